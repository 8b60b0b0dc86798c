"""Run a trial, or another task on a loader, in one child process or in its ranks or jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loaderbench.machine import process
from loaderbench.trial.spec import ObserveSpec, Several, TrialSpec


def measure(
    spec: TrialSpec, log: Path, limit_s: float, *, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a trial and return its columns of `Record`, `status` and `reason` included.

    `log`, `limit_s`, `environment`: as in `machine.process.run_child`.
    """
    return run("loaderbench.trial.trial.run", spec, log, limit_s, environment=environment)


def run(
    task: str, spec: TrialSpec | ObserveSpec, log: Path, limit_s: float, *, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a task in as many processes as `spec` has ranks or jobs, and return its report."""
    with TemporaryDirectory(prefix="loaderbench-") as folder:
        several = Several(task, spec, Path(folder))
        if several.count == 1:
            return process.run_child(task, spec, log, limit_s, environment=environment)
        return process.run_child("loaderbench.trial.several.run", several, log, limit_s, environment=environment)
