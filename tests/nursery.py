"""Fork the harness's child processes from a process that has already imported the libraries.

Importing them takes longer than most tests let a child work. A forked child is like a started one: it has the same
parent, its own session, environment and standard files, and ends in the same way. Only the imports cost nothing.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil
import pytest

from loaderbench.machine import process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ROOT = Path(__file__).parent.parent
_LIBRARIES = (
    "loaderbench.machine.child",
    "loaderbench.bucket.tasks",
    "loaderbench.certify.observe",
    "loaderbench.formats.forks",
    "loaderbench.roofline.measure",
    "loaderbench.trial.trial",
    "torchvision.transforms.v2",
    "ffcv",
    "litdata",
)
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_MESSAGE_BYTES = 1 << 18


class Forked:
    """A forked child, with the part of the interface of `subprocess.Popen` that the harness uses."""

    returncode: int | None = None

    def __init__(self, pid: int, stdin: IO[bytes]) -> None:
        self.pid, self.stdin = pid, stdin

    def wait(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)


def gone(pid: int, within_s: float = 300) -> bool:
    """Wait for a process to end."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


class Nursery:
    """Forks children for this process."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:  # when this process ends, its end is closed, and the nursery exits
            command = [sys.executable, "-m", "tests.nursery", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Let `loaderbench.machine.process` fork its children here until the block ends."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "_start", self.start)
            yield

    def start(self, task: str, output: IO[bytes], environment: Mapping[str, str]) -> Forked:
        """Fork a child; replaces `loaderbench.machine.process._start`."""
        told = {"task": task, "parent": os.getpid(), "folder": str(Path.cwd()), "environment": dict(environment)}
        theirs, ours = os.pipe()
        with _adopting():
            socket.send_fds(self._connection, [json.dumps(told).encode()], [theirs, output.fileno()])
            pid = int(self._connection.recv(_MESSAGE_BYTES))
        os.close(theirs)
        return Forked(pid, os.fdopen(ours, "wb"))


@contextmanager
def _adopting() -> Iterator[None]:
    """Adopt descendants of this process whose own parent ends."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0)


def main() -> None:
    """Fork a child for each message; the child's parent is the process that asked."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    connection = socket.socket(fileno=int(sys.argv[1]))
    while True:
        told, files, *_ = socket.recv_fds(connection, _MESSAGE_BYTES, 2)
        if not told:
            os._exit(0)
        if not (middle := os.fork()):
            if os.fork():
                os._exit(0)
            _become(json.loads(told), files, connection)
            sys.modules["loaderbench.machine.child"].main()
            threading._shutdown()
            atexit._run_exitfuncs()
            os._exit(0)  # the interpreter's own clean-up would copy the shared memory pages
        os.waitpid(middle, 0)
        for file in files:
            os.close(file)


def _become(told: dict[str, Any], files: list[int], connection: socket.socket) -> None:
    """Give this process the parent, session, folder, files and variables of `python -m loaderbench.machine.child`."""
    while os.getppid() != told["parent"]:
        time.sleep(0.0005)  # until the process between has ended
    connection.send(str(os.getpid()).encode())
    connection.close()
    os.setsid()
    for number, file in enumerate([files[0], files[1], files[1]]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    sys.argv = ["loaderbench.machine.child", told["task"]]
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    tempfile.tempdir = None  # read the variable again
    sys.path[1:1] = filter(None, told["environment"].get("PYTHONPATH", "").split(os.pathsep))


if __name__ == "__main__":
    main()
