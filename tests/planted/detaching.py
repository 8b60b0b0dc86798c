"""A third-party loader that starts workers in every way that there is, and ends none of them."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

requires = ()
reads = ("imagefolder",)
streams = False
DETACHED = """
import os, sys, time
os.fork() and os._exit(0)
os.setsid()
os.fork() and os._exit(0)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(600)
"""


@contextmanager
def stream(artifact, work, *, pid_file):
    """`pid_file`: one line for each process, this one included."""

    def batches():
        work_in(pid_file, 0)
        for start in WAYS:
            start(pid_file)
        time.sleep(600)
        yield

    yield batches()


def work_in(pid_file, seconds=600):
    """Write this process's pid, and wait."""
    with open(pid_file, "a") as file:
        print(os.getpid(), file=file)
    time.sleep(seconds)


def _forked_by_a_thread(pid_file):
    """The thread ends before the worker has begun."""

    def fork():
        if not os.fork():
            time.sleep(0.2)
            work_in(pid_file)

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()


def _spawned(pid_file):
    multiprocessing.get_context("spawn").Process(target=work_in, args=(pid_file,)).start()


def _executed_in_a_session_of_its_own(pid_file):
    program = f"import detaching; detaching.work_in({pid_file!r})"
    subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stdin=subprocess.DEVNULL)


def _detached(pid_file):
    subprocess.run([sys.executable, "-S", "-c", DETACHED, pid_file], check=True, env={})


WAYS = (_forked_by_a_thread, _spawned, _executed_in_a_session_of_its_own, _detached)
