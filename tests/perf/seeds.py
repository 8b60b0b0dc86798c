"""Certify one contestant with several seeds, which one process observes, or one for each rank."""

from __future__ import annotations

import os
import shutil
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loaderbench.certify import observe
from loaderbench.certify.certification import Job, judged
from loaderbench.certify.observation import SEEN, limit_s
from loaderbench.records.certificates import Certificate
from loaderbench.trial import processes
from loaderbench.trial.spec import ObserveSpec
from tests.perf.ffcv_once import compile_once


@dataclass(frozen=True)
class Group:
    """One contestant in one way, to be certified with several seeds."""

    way: str
    name: str
    jobs: tuple[Job, ...]
    """One for each seed."""
    cache: Path


@dataclass(frozen=True)
class SeedsSpec(ObserveSpec):
    """One contestant to be observed with several seeds, one after the other, in the folders `scratch/SEED`."""

    seeds: tuple[int, ...] = ()


def with_seed(job: Job, seed: int) -> Job:
    """Return the job with another seed."""
    return replace(job, spec=replace(job.spec, work=replace(job.spec.work, seed=seed)))


def certified(group: Group) -> list[Certificate]:
    """Return the certificates of a group, those that the cache lacks from one child process or one for each rank."""
    kept = {job.key: certificate for job in group.jobs if (certificate := job.kept(group.cache))}
    lacking = [job for job in group.jobs if job.key not in kept]
    if lacking:
        with TemporaryDirectory() as name:
            scratch, log = Path(name), group.cache / f"{group.way}, {group.name}.log"
            seeds = tuple(job.spec.work.seed for job in lacking)
            for seed in seeds:
                (scratch / f"{seed}").mkdir()
            spec = SeedsSpec(**{**vars(lacking[0].spec), "scratch": scratch}, seeds=seeds)
            limit = len(seeds) * limit_s(spec.artifact.samples)
            ended = processes.run(f"{__name__}.observe_seeds", spec, log, limit, environment=_environment())
            for job in lacking:
                kept[job.key] = judged(replace(job, log=log), scratch / f"{job.spec.work.seed}", ended)
                job.keep(kept[job.key], group.cache)
    return [kept[job.key] for job in group.jobs]


def _environment() -> dict[str, str]:
    """Return variables with which a child process imports this module, and FFCV compiles as for other certificates."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "NUMBA_OPT": "0", "PYTHONPATH": path}


def observe_seeds(spec: SeedsSpec) -> dict[str, Any]:
    """Observe a contestant with one seed after the other. A failure costs no other seed its observation."""
    if spec.loader == "ffcv":
        compile_once()
    report: dict[str, Any] = {"status": "ok", "reason": ""}
    for seed in spec.seeds:
        scratch, work = spec.scratch / f"{seed}", replace(spec.work, seed=seed)
        try:
            seen = observe.run(ObserveSpec(spec.loader, spec.artifact, work, spec.options, scratch, turn=scratch))
        except Exception as error:  # noqa: BLE001 - an honest loader fails on empty files, after it was observed
            traceback.print_exc()
            seen = {"status": "failed", "reason": str(error)}
        if not (scratch / f"rank{work.rank}" / SEEN).exists():
            report = seen
        shutil.rmtree(scratch / f"rank{work.rank}" / "files", ignore_errors=True)
    return report
