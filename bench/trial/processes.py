"""Run a trial, or another task on a loader, in one child process or in its ranks or jobs."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loaderbench.machine import process
from loaderbench.machine.cores import allowed_cores
from loaderbench.machine.private import without_secrets
from loaderbench.trial.spec import ObserveSpec, Several, TrialSpec

_THREADS = "NUMBA_NUM_THREADS"
"""The variable that limits numba's threads. Without it, there are as many as allowed cores."""
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""Hides all GPUs from CUDA, but not from NVML."""
_TRAINING = {"train", "lightning"}
"""The consumers that train, on a GPU if there is one."""


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
    """Run a task in as many processes as `spec` has ranks or jobs, and return its report.

    They see no GPU if no image comes to one: a library that finds a GPU may use it all the same, as FFCV does for
    page-locked memory.
    """
    environment = _with_threads(environment or without_secrets(os.environ), spec.work.workers)
    if not _uses_gpu(spec):
        environment = {**environment, **_NO_GPU}
    with TemporaryDirectory(prefix="loaderbench-") as folder:
        several = Several(task, spec, Path(folder))
        if several.count == 1:
            return process.run_child(task, spec, log, limit_s, environment=environment)
        return process.run_child("loaderbench.trial.several.run", several, log, limit_s, environment=environment)


def _uses_gpu(spec: TrialSpec | ObserveSpec) -> bool:
    """Return whether a task delivers images on a GPU, or may train on one."""
    return spec.work.device != "cpu" or (isinstance(spec, TrialSpec) and spec.consumer in _TRAINING)


def _with_threads(environment: Mapping[str, str], workers: int) -> Mapping[str, str]:
    """Return an environment in which numba, once it is imported, has at least as many threads as there are workers."""
    told = environment.get(_THREADS, "")
    threads = int(told) if told.isdecimal() else allowed_cores()
    return environment if workers <= threads else {**environment, _THREADS: str(workers)}
