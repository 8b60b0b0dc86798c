"""Let one command at a time use the machine."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import psutil

from loaderbench.machine.files import BusyError
from loaderbench.machine.text import one_line

VARIABLE = "LOADERBENCH_LOCK"
"""Names another lock: commands with different locks run at the same time, and change what the others measure."""
_COMMAND_CHARACTERS = 200


@contextmanager
def machine_lock() -> Iterator[None]:
    """Hold the machine's lock until the block or this process ends. Raises BusyError, which names who holds it.

    The lock is a socket with an abstract name. It needs no file and is the same for all users. The kernel frees it when
    its process ends, even by a kill, and tells which process holds it. Containers share it if they share the network.
    """
    name = "\0" + os.environ.get(VARIABLE, "loaderbench")
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise BusyError(
                f"another loaderbench uses this machine, {_holder(name)}; each would change what the other measures. "
                "Wait for it to end, or stop it: the same command resumes it later. "
                f"To run both all the same, set {VARIABLE} to any other name"
            ) from None
        lock.listen()
        yield


def _holder(name: str) -> str:
    """Return who holds the lock, as far as this process may know."""
    pid = 0
    with suppress(OSError), socket.socket(socket.AF_UNIX) as other:
        other.settimeout(1)
        other.connect(name)
        pid, *_ = struct.unpack("iII", other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if not pid:
        return "in another container"
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        since = datetime.fromtimestamp(process.create_time(), UTC).astimezone().isoformat(" ", "minutes")
        command = one_line(" ".join(process.cmdline()), _COMMAND_CHARACTERS)
        return f"process {pid} of {process.username()} since {since}: {command}"
    return f"process {pid}"
