"""Run a task in a child process, wait for it without polling, and end it with all that it started."""

import os
import pickle
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from loaderbench.machine.files import new_file
from loaderbench.machine.private import without_secrets
from loaderbench.machine.reasons import killer, last_error

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Variables with which Python imports nothing from the current folder. A data set may be there."""
_LOOK_S, _ENDS_WITHIN_S = 0.02, 90
_LONGEST_MS = (1 << 31) - 1
"""What `poll` takes at most: 24 days."""


def run_child(
    task: str,
    spec: Any,
    log: Path,
    limit_s: float | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run one task in a child process and return its report.

    The report has at least `status` (`ok`, `invalid`, `unavailable`, `failed`, `timeout`) and `reason`. However the
    task ends, nothing that it started is left running.

    `task`: the dotted name of a function. `spec`: its picklable argument. `log`: receives the output; it is removed if
    the status is `ok`. `limit_s`: the child is killed after this time. `environment`: all variables of the child; None
    takes those of this process but for secrets, such as AWS_SECRET_ACCESS_KEY and HF_TOKEN.
    """
    with new_file(log, os.O_APPEND) as output, started(task, spec, output, environment) as child:
        if not child.wait(limit_s):
            killed = f"killed after its time limit of {limit_s:g} s"
            return {"status": "timeout", "reason": killed + last_error(log)}
        report = child.report()
    if report is None:
        report = child.death("the process")
        report["reason"] += last_error(log)
    if report["status"] == "ok":
        log.unlink()
    return report


class Child:
    """A child process that does one task."""

    def __init__(self, process: subprocess.Popen[bytes], result: Path) -> None:
        """`result`: the file in which the child leaves its report."""
        self._process, self._result = process, result
        self._descriptor = os.pidfd_open(process.pid)

    def fileno(self) -> int:
        """Return a descriptor that is readable once the process has ended."""
        return self._descriptor

    def wait(self, limit_s: float | None = None) -> bool:
        """Sleep until the process has ended, for at most `limit_s`; return whether it has."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return bool(poll.poll(None if limit_s is None else min(limit_s * 1000, _LONGEST_MS)))

    def end(self) -> None:
        """Kill the task, if it still runs. Its guardian, the started process, then ends all that the task started."""
        if self._process.returncode is not None:
            return
        guardian = psutil.Process(self._process.pid)
        until = time.monotonic() + _ENDS_WITHIN_S
        while not self.wait(_LOOK_S):
            for each in guardian.children(recursive=True):
                with suppress(psutil.Error):
                    each.kill()
            if time.monotonic() > until:
                guardian.kill()
        self._process.wait()
        os.close(self._descriptor)

    def reported_s(self) -> float:
        """Return when the process left its report, in seconds; 0 if it has left none."""
        return self._result.stat().st_mtime if self._result.exists() else 0.0

    def report(self) -> dict[str, Any] | None:
        """Return what the ended process reports; None if it died before it could."""
        self.end()
        if not self._result.exists():
            return None
        report: dict[str, Any] = pickle.loads(self._result.read_bytes())  # noqa: S301 - written by our own child
        return report

    def death(self, who: str) -> dict[str, Any]:
        """Return a report on an ended process that left none. `who`: names the process in the reason."""
        return {"status": "failed", "reason": death(who, self._process.returncode)}


@contextmanager
def started(
    task: str, spec: Any, output: IO[bytes] | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """Start a task in a child process and end the child with the block. The arguments are those of `run_child`.

    The child has a folder of its own for temporary files, which is removed when it has ended. `output`: None lets the
    child write where this process writes.
    """
    with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as folder:
        result = Path(folder, "result")
        inherited = without_secrets(os.environ) if environment is None else environment
        process = _start(task, output, {**inherited, **SAFE_PATH, "TMPDIR": folder})
        child = Child(process, result)
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin:
                pickle.dump((os.getpid(), result), process.stdin)
                pickle.dump(spec, process.stdin)
            yield child
        finally:
            child.end()


def _start(task: str, output: IO[bytes] | None, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "loaderbench.machine.child", task],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
        env=environment,
    )


def death(who: str, code: int) -> str:
    """Return a sentence on how a process ended that left no report. `code`: as in `subprocess`, signals below zero."""
    if code >= 0:
        return f"{who} ended with {code} and no result"
    return f"{who} was ended by {killer(-code)}"
