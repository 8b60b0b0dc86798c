"""Run a trial in several jobs, which do not know of each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing.connection import wait
from typing import Any

from loaderbench.machine import gpu, process
from loaderbench.trial import combined
from loaderbench.trial.spec import Several


def run(several: Several) -> dict[str, Any]:
    """Run all jobs at the same time and return their combined report; the first job that fails ends the others."""
    combined.refuse_one_accelerator(several)
    reports: dict[int, dict[str, Any]] = {}
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                process.started(several.task, several.of(job), environment={**os.environ, **own_gpu(job, os.environ)})
            )
            for job in range(several.jobs)
        ]
        running = {child.fileno(): job for job, child in enumerate(children)}
        while running:
            ended = wait(running)
            for job in [running.pop(descriptor) for descriptor in [*running] if descriptor in ended]:
                report = children[job].report()
                if report is None:
                    return children[job].death(f"job {job}")
                if report["status"] != "ok":
                    return {**report, "reason": f"job {job}: {report['reason']}"}
                reports[job] = report
    return combined.columns(several, [reports[job] for job in range(several.jobs)])


def own_gpu(job: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that shows a job one GPU only, of those that `environment` shows; empty without a GPU.

    Jobs share a GPU only if there are more jobs than GPUs.
    """
    name = "CUDA_VISIBLE_DEVICES"
    shown = environment[name].split(",") if name in environment else [*map(str, range(gpu.count()))]
    return {name: shown[job % len(shown)]} if shown else {}
