"""Run conversions in processes that are forked from one that has imported their writer's libraries.

Importing FFCV or LitData takes longer than storing a thousand images. Each format still has a process of its own, so
its times, and how it ends, depend on no other format.
"""

import gc
import importlib
import os
import pickle
import sys
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Never

from loaderbench.campaign import registry
from loaderbench.formats.conversion import Conversion
from loaderbench.machine.child import perform
from loaderbench.machine.files import new_file
from loaderbench.machine.guardian import LOG_LOOK_S, end_descendants, follow, shorten
from loaderbench.machine.process import Child, death, started

_LIMIT_S, _LIMIT_S_PER_IMAGE = 600, 0.25
"""Only a writer that hangs takes so long."""
_CONVERT = "loaderbench.formats.conversion.run"


class Forks(ExitStack):
    """Runs conversions. The process of the latest writer is kept for the next one, until the block ends."""

    _writer = ""
    _child: Child
    _asked: Connection
    _told: Connection

    def run(self, spec: Conversion, log: Path) -> dict[str, Any]:
        """Return the report of a conversion. It ends, and `log` gets its output, as in `machine.run_child`."""
        with new_file(log, os.O_APPEND) as output:
            if self._writer != spec.writer:
                self._start(spec.writer, output)
        try:
            report = self._report(spec, log)
        except BaseException:
            self._end()  # now, because the caller may remove what is written
            raise
        if report["status"] == "ok":
            log.unlink()
        return report

    def _report(self, spec: Conversion, log: Path) -> dict[str, Any]:
        self._asked.send((spec, log))
        limit_s = _LIMIT_S + _LIMIT_S_PER_IMAGE * len(spec.images)
        ended = wait([self._told, self._child], limit_s)  # type: ignore[list-item] # it has a `fileno`
        if self._told in ended:
            report: dict[str, Any] = self._told.recv()
            return report
        if ended:
            report = self._child.report() or self._child.death("the process")
        else:
            report = {"status": "timeout", "reason": f"killed after its time limit of {limit_s:,.0f} s"}
        self._end()
        return report

    def _end(self) -> None:
        self._writer = ""
        self.close()

    def _start(self, writer: str, output: IO[bytes]) -> None:
        self._end()
        folder = Path(self.enter_context(TemporaryDirectory(prefix="loaderbench-")))
        self._asked, self._told = (self.enter_context(_fifo(folder / name)) for name in ("asked", "told"))
        self._child = self.enter_context(started(f"{__name__}.serve", (writer, folder), output))
        self._writer = writer


def _fifo(path: Path) -> Connection:
    """Open a FIFO, and make it if there is none. Opened for both directions, it waits for no other process."""
    with suppress(FileExistsError):
        os.mkfifo(path)
    return Connection(os.open(path, os.O_RDWR))


def serve(spec: tuple[str, Path]) -> Never:
    """Import a writer's libraries; then fork a process for each conversion, until the harness ends this process.

    `spec`: the writer, and a folder with two FIFOs: `asked` brings conversions with their logs, `told` takes reports.
    """
    writer, folder = spec
    for name in registry.writer(writer).requires:
        importlib.import_module(name)
    gc.freeze()  # the collector would write to memory that forked processes share
    asked, told = (_fifo(folder / name) for name in ("asked", "told"))
    while True:
        conversion, log = asked.recv()
        told.send(_forked(conversion, log, folder / "report"))


def _forked(spec: Conversion, log: Path, report: Path) -> dict[str, Any]:
    """Run a conversion in a forked process, and return its report. Nothing that it started is left running."""
    parent = os.getpid()
    if not (pid := os.fork()):
        follow(parent)
        with log.open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        perform(_CONVERT, spec, report)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # threads that a failed writer left behind may never end
    ended = os.pidfd_open(pid)
    with log.open("ab") as output:
        while not wait([ended], LOG_LOOK_S):
            shorten(output.fileno())
    os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    end_descendants()
    if not report.exists():
        return {"status": "failed", "reason": death("the process", code)}
    found: dict[str, Any] = pickle.loads(report.read_bytes())  # noqa: S301 - written by our own process
    report.unlink()
    return found
