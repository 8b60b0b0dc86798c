"""How is one child process run, waited for without polling, and ended with all that it started?"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_WATCH_MS = 1000


def run(  # noqa: PLR0913 - each is a way in which tasks differ
    task: str,
    spec: dict[str, Any],
    log: Path,
    limit_s: float | None = None,
    *,
    watch: Callable[[int], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `python -m loaderbench.machine.child TASK` in a process group of its own and return what it reports.

    The result has at least `status` (`ok`, `invalid`, `failed`, `timeout`) and `reason`. Its output goes to `log`,
    which is removed if all went well. However this ends, nothing of the group is left running. Several ranks, or jobs
    side by side, are as many processes below the child, see `loaderbench.trial.ranks`.

    `watch`: is called each second with the process's id. Not for what is measured, which it would disturb; without a
    limit of time. `environment`: all variables of the child. None: this process's.
    """
    if spec.get("work", {}).get("ranks", 1) > 1 or spec.get("jobs", 1) > 1:
        task, spec = "loaderbench.trial.ranks.run", {**spec, "task": task}
    with tempfile.TemporaryDirectory(prefix="loaderbench-") as scratch:
        result = Path(scratch, "result.json")
        message = json.dumps({**spec, "result": str(result), "parent": os.getpid()})
        with log.open("wb") as output:
            child = _start(task, output, environment)
            try:
                _send(child, message)
                ended = _wait(child, limit_s, watch)
            finally:
                others = psutil.Process(child.pid).children(recursive=True)  # ranks are in sessions of their own
                # The child is not reaped yet, so the group's number cannot have passed to another.
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                for other in others:
                    with suppress(psutil.NoSuchProcess):
                        other.kill()
                child.wait()
        if not ended:
            return {"status": "timeout", "reason": f"killed after its time limit of {limit_s:g} s"}
        if not result.exists():
            return {"status": "failed", "reason": death("the process", child.returncode)}
        report: dict[str, Any] = json.loads(result.read_text())
    if report["status"] == "ok":
        log.unlink()
    return report


def _start(task: str, output: IO[bytes], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "loaderbench.machine.child", task],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
        env=environment,
    )


def _send(child: subprocess.Popen[bytes], message: str) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin:
        child.stdin.write(message.encode())


def _wait(child: subprocess.Popen[bytes], limit_s: float | None, watch: Callable[[int], None] | None) -> bool:
    """Sleep until the child has ended, at most `limit_s`; return whether it has."""
    descriptor = os.pidfd_open(child.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while watch and not poll.poll(_WATCH_MS):
            watch(child.pid)
        return bool(poll.poll(None if limit_s is None else limit_s * 1000))
    finally:
        os.close(descriptor)


def death(who: str, code: int) -> str:
    """Say how a process ended that left no result. `code`: as in `subprocess`, a signal's number below zero."""
    if code >= 0:
        return f"{who} ended with {code} and no result"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"{who} was ended by {signal.Signals(-code).name}{hint}"
