"""A third-party loader that fails before its first batch; it needs no library, so its trials are short."""

import os
import threading
import time
from contextlib import contextmanager

from planted import leave_behind

requires = ()
reads = ("imagefolder",)
streams = False


@contextmanager
def stream(artifact, work, *, end, pid_file=""):
    def batches():
        if pid_file:
            leave_behind(pid_file)
        yield ENDS[end]()

    yield batches()


def _hang():
    time.sleep(600)


def _crash():
    raise ValueError("the planted | fault\nin two lines")


def _segfault():
    os.kill(os.getpid(), 11)


def _hang_for_a_thread():
    def fail():
        raise ValueError("the planted fault of a thread")

    threading.Thread(target=fail).start()
    time.sleep(600)


def _kill_rank_1():
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), 9)
    time.sleep(600)


ENDS = {
    "hang": _hang,
    "crash": _crash,
    "segfault": _segfault,
    "a thread fails": _hang_for_a_thread,
    "rank 1 is killed": _kill_rank_1,
}
