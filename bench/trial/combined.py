"""Combine what the ranks or jobs of a trial report."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from loaderbench.api import Artifact, Work
from loaderbench.machine.cores import allowed_cores
from loaderbench.machine.gpu import GpuLoad
from loaderbench.records.record import OVER_RANKS
from loaderbench.records.timeline import Timeline
from loaderbench.trial.checks import EpochTotals, InvalidWorkError
from loaderbench.trial.clock import stall_pct
from loaderbench.trial.spec import Several, TrialSpec

_OF_THE_FIRST = {"status", "reason", "memory_format", "batch_memory"}
"""Columns that are the same in all ranks or jobs: one loader delivers in each."""


def refuse_one_accelerator(several: Several) -> None:
    """Raise NotImplementedError for a consumer that takes batches in one process only."""
    if isinstance(several.spec, TrialSpec) and several.spec.consumer == "paced":
        raise NotImplementedError("one accelerator is emulated, and fed by one process")


def columns(several: Several, reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a trial's columns of `Record` from those of its ranks or jobs, and write their raw times to one file.

    For another task, return the first report.
    """
    spec = several.spec
    if not isinstance(spec, TrialSpec):
        return reports[0]
    timelines = [Timeline.load(several.times(index)) for index in range(len(reports))]
    epochs = [report.pop("epochs") for report in reports]
    try:
        if several.jobs == 1:  # jobs check their own epochs
            _check_shared(epochs, spec.artifact, spec.work)
        timeline = Timeline.together(timelines, [report.pop("first_asked_ns") for report in reports])
    except (InvalidWorkError, ValueError) as error:
        return {"status": "invalid", "reason": str(error)}
    timeline.save(spec.times)
    return _combined(reports, timeline)


def _combined(reports: Sequence[dict[str, Any]], timeline: Timeline) -> dict[str, Any]:
    """Return the columns of all processes together. Raises TypeError for a column without a rule for that."""
    together: dict[str, Any] = {**timeline.columns()}
    together |= {name: _statistic(name, reports) for name in OVER_RANKS if name in reports[0]}
    for kind in ("cached", "warm_cached"):
        if cached := together.get(f"{kind}_images_per_s"):
            together[f"stall_vs_{kind}_pct"] = stall_pct(together["images_per_s"], cached)
    allowed = allowed_cores()
    busy_cores = fmean(report["cores_used"] + allowed * report["other_cpu_pct"] / 100 for report in reports)
    cpu_s = together["cores_used"] * together["window_s"]
    several_gpus = "each of several processes may use a GPU of its own"
    reason = several_gpus if reports[0]["gpu_util_pct"] is not None else reports[0]["gpu_reason"]
    together |= {
        **asdict(GpuLoad(gpu_reason=reason)),
        "cpu_s": cpu_s,
        "cpu_s_per_1k_images": 1000 * cpu_s / together["window_images"],
        "other_cpu_pct": 100 * max(0.0, busy_cores - together["cores_used"]) / allowed,
    }
    if undeclared := reports[0].keys() - together.keys() - _OF_THE_FIRST:
        raise TypeError(f"declare over_ranks in Record for {', '.join(sorted(undeclared))}")
    return {name: reports[0][name] for name in _OF_THE_FIRST} | together


def _check_shared(epochs: Sequence[Sequence[EpochTotals]], artifact: Artifact, work: Work) -> None:
    """Raise InvalidWorkError unless every epoch is right that all ranks have begun; one rank may be one ahead."""
    for number, parts in enumerate(zip(*epochs, strict=False), 1):
        EpochTotals.of_all(parts).check(number, artifact, work)


def _statistic(name: str, reports: Sequence[dict[str, Any]]) -> float | None:
    values = [report[name] for report in reports]
    return None if None in values else OVER_RANKS[name](values)
