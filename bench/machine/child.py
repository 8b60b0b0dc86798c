"""Perform one task in a child process that `loaderbench.machine.process` has started."""

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from loaderbench.machine.files import write_whole
from loaderbench.machine.guardian import guard
from loaderbench.machine.reasons import WORDS_CHARACTERS, reason
from loaderbench.machine.text import one_line

_place: list[Path] = []
"""The file for the report of this process's task."""


def main() -> None:
    """Perform the task that the command line names, with what the harness writes to standard input."""
    harness, result = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the harness
    guard(harness, result.parent)
    _place.append(result)
    spec = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the harness
    if perform(sys.argv[1], spec, result)["status"] != "ok":
        _exit(1)  # threads that a failed loader left behind may never end


def perform(task: str, spec: Any, result: Path) -> dict[str, Any]:
    """Call the function with the dotted name `task` and write its report to the file `result`; return the report."""
    return _write(lambda: call(task, spec), result)


def end(work: Callable[[], dict[str, Any]]) -> NoReturn:
    """Write what `work` returns as the report of this process's task, and end the process.

    It ends at once: code that called this one neither cleans up nor saves anything.
    """
    _write(work, _place[0])
    _exit(0)


def call(task: str, spec: Any) -> dict[str, Any]:
    """Call the function with the dotted name `task` and return its report."""
    module, _, function = task.rpartition(".")
    report: dict[str, Any] = getattr(import_module(module), function)(spec)
    return report


def _write(work: Callable[[], dict[str, Any]], result: Path) -> dict[str, Any]:
    try:
        report = work()
    except NotImplementedError as error:  # how a loader refuses work that it does not support
        report = {"status": "unavailable", "reason": one_line(str(error) or reason(error), WORDS_CHARACTERS)}
    except BaseException as error:  # noqa: BLE001 - an adapter may raise anything; it becomes the row's reason
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # in torch's handler a dead worker raises a further error
        traceback.print_exc()
        report = {"status": "failed", "reason": reason(error)}
    write_whole(result, pickle.dumps(report), durable=False)
    return report


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.modules["loaderbench.machine.child"] = sys.modules["__main__"]  # a task that imports it gets this one
    main()
