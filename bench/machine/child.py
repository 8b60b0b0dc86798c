"""Perform one task in a child process that `loaderbench.machine.process` has started."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from loaderbench.machine.files import write_whole

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def main() -> None:
    """Perform the task that the command line names, with the specification from standard input."""
    parent, result, spec = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the harness
    if perform(sys.argv[1], spec, result, parent)["status"] != "ok":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # threads that a failed loader left behind may never end


def perform(task: str, spec: Any, result: Path, parent: int) -> dict[str, Any]:
    """Call the function with the dotted name `task` and write its report to the file `result`; return the report.

    From then on this process is killed when its `parent` ends, and all processes that it forks when it ends itself.
    """
    _set_death_signal()
    if os.getppid() != parent:
        sys.exit("the harness has gone")
    os.register_at_fork(after_in_child=_set_death_signal)
    # Orphans become children of this process, so that their CPU time is still counted.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        report = call(task, spec)
    except NotImplementedError as error:  # how a loader refuses work that it does not support
        report = {"status": "unavailable", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - an adapter may raise anything; it becomes the row's reason
        traceback.print_exc()
        report = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    write_whole(result, pickle.dumps(report), durable=False)
    return report


def call(task: str, spec: Any) -> dict[str, Any]:
    """Call the function with the dotted name `task` and return its report."""
    module, _, function = task.rpartition(".")
    report: dict[str, Any] = getattr(import_module(module), function)(spec)
    return report


def _set_death_signal() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
