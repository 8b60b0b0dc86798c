"""Watch over a task from its parent process, which outlives the harness and ends all that the task has started."""

import ctypes
import os
import resource
import select
import shutil
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_ENDS_WITHIN_S = 60
"""A process that waits for a dead disk or driver cannot be killed."""
_LOOK_S = 0.005
LOG_BYTES = 64 << 20
"""Size from which a log is emptied. The harness reads its end."""
LOG_LOOK_S = 5


def guard(harness: int, scratch: Path) -> None:
    """Fork: return in the child process, which does the task, and watch over it in this one, which never returns.

    When the task's process or the harness ends, this process kills all descendants of the task: forked by any thread,
    spawned, replaced by another program, or detached. Then it ends as the task did. If the harness is gone, it removes
    the folder `scratch`. `harness`: this process's parent.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core holds all of a process's memory
    watched = os.pidfd_open(harness)
    guardian = os.getpid()
    if os.getppid() != harness:
        os._exit(1)  # the harness has gone already
    if task := os.fork():
        _watch(task, watched, scratch)
    os.close(watched)
    follow(guardian)


def follow(parent: int) -> None:
    """Let the kernel kill this process when the main thread of its parent ends.

    Orphans among this process's descendants become its children, so that their CPU time is still counted. If memory
    ends, the kernel kills this process and its descendants before its parent.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it has ended already
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _watch(task: int, harness: int, scratch: Path) -> None:
    """Wait until the task or the harness ends, end all that is left, and end this process."""
    os.close(0)  # so that the harness notices if the task stops reading
    poll, own = select.poll(), os.pidfd_open(task)
    for descriptor in (own, harness):
        poll.register(descriptor, select.POLLIN)
    while not (ended := {descriptor for descriptor, _ in poll.poll(1000 * LOG_LOOK_S)}):
        shorten(1)
    code = os.waitstatus_to_exitcode(os.waitpid(task, 0)[1]) if own in ended else 1
    end_descendants()
    if harness in ended:
        shutil.rmtree(scratch, ignore_errors=True)
    if code < 0:
        with suppress(OSError):  # no handler can be set for SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def shorten(log: int) -> None:
    """Empty a file that has grown beyond its bound and that is only appended to, so that it does not fill the disk."""
    status = os.fstat(log)
    if stat.S_ISREG(status.st_mode) and status.st_size > LOG_BYTES:
        os.ftruncate(log, 0)
        os.write(log, f"[{status.st_size:,} bytes of output before this line are not kept]\n".encode())


def end_descendants() -> None:
    """Kill all descendants of this process until none is left; an orphan becomes a child of this process."""
    own, until = psutil.Process(), time.monotonic() + _ENDS_WITHIN_S
    while (left := own.children(recursive=True)) and time.monotonic() < until:
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(_LOOK_S)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
