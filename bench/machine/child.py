"""What runs inside a child process: one task in, one result out. Started by `loaderbench.machine.process`."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def main() -> None:
    """Do the task that the command line names, as standard input describes it."""
    perform(sys.argv[1], json.load(sys.stdin))


def perform(task: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Do a task in this process, which belongs to `spec["parent"]`; leave the result in the file that `spec` names, and
    return it.
    """
    _die_with_parent(spec["parent"])
    os.register_at_fork(after_in_child=_set_death_signal)
    # Orphans become children of this process: what they cost is still charged to it.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        module, _, function = task.rpartition(".")
        result: dict[str, Any] = getattr(import_module(module), function)(spec)
    except NotImplementedError as error:  # the loader's own word for work that it cannot do
        result = {"status": "unavailable", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - an adapter may raise anything; it becomes the row's reason
        traceback.print_exc()
        result = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    partial = Path(spec["result"]).with_suffix(".partial")
    partial.write_text(json.dumps(result))
    partial.rename(spec["result"])
    return result


def _die_with_parent(parent: int) -> None:
    """Be killed when the harness is, however that happens."""
    _set_death_signal()
    if os.getppid() != parent:
        sys.exit("the harness has gone")


def _set_death_signal() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
