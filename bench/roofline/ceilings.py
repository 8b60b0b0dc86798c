"""Record the machine's limits of each block, and compare a trial with the smallest limit that applies to it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from loaderbench.api import Work
from loaderbench.campaign import plan
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.schema import Contestant, Format
from loaderbench.formats import Prepared
from loaderbench.machine import process
from loaderbench.records.record import Record, Status, now
from loaderbench.roofline.measure import RANDOM_DISK, LimitSpec, Situation, Step, needed

_LEAST_READ = 1e-3
"""Share of the data that a trial reads from the disk at least; without reading, the disk would be no limit."""
_LIMIT_S = 120.0
"""Time limit for measuring the steps on one set of images, beyond the time of the measurements themselves."""


def limit_rows(
    campaign: Campaign, prepared: Prepared, trial: plan.Trial, folder: Path, measured: Mapping[str, Record]
) -> Iterator[Record]:
    """Measure the limits that the trial's attempt at a block still lacks, and yield a row for each.

    `folder`: the campaign's. `measured`: its rows by trial.
    """
    if not (campaign.timing.stage_s and trial.block):  # a search belongs to no block
        return
    prefix = _prefix(trial)
    for canonical in dict.fromkeys(prepared.canonicals.values()):
        formats = [f for f in campaign.formats if prepared.canonicals.get(f.name) == canonical]
        lacking = {
            name: step
            for name, step in _named(campaign, formats, prepared).items()
            if f"{prefix}/{name}" not in measured
        }
        if not lacking:
            continue
        read = {name.partition("/")[2] for name, step in lacking.items() if not step.measure}
        spec = LimitSpec(
            canonical=canonical,
            artifacts={f.name: prepared.artifacts[f.name] for f in formats if f.name in read},
            # Whatever the number of ranks, a limit is that of the whole machine, on all cores at once.
            work=replace(campaign.work_on(prepared.data["samples"], trial.block), ranks=1),
            steps={step.name for step in lacking.values()},
            seconds=campaign.timing.stage_s,
        )
        limit_s = _LIMIT_S + 2 * spec.seconds * len(lacking)
        log, started_at = folder / f"{plan.prefix(trial.block, trial.attempt)}+limit.log", now()
        result = process.run_child("loaderbench.roofline.measure.run", spec, log, limit_s)
        for name, step in lacking.items():
            key = step.name if step.measure else name
            speed = result.get("limits", {}).get(key)
            failure: Status = "unavailable" if result["status"] == "ok" else result["status"]
            yield Record(
                trial=f"{prefix}/{name}",
                kind="limit",
                block=trial.block,
                attempt=trial.attempt,
                started_at=started_at,
                title=name,
                adapter="",
                format=name.partition("/")[2],
                status="ok" if speed else failure,
                reason="" if speed else result.get("reasons", {}).get(key) or result["reason"],
                batch_size=spec.work.batch_size,
                workers=spec.work.workers,
                images_per_s=speed,
            )


def limit_columns(
    campaign: Campaign, prepared: Prepared, trial: plan.Trial, record: Record, measured: Mapping[str, Record]
) -> dict[str, Any]:
    """Return the columns of `Record` that compare a trial with the smallest limit that applies to it, or say why none
    does.

    A contestant that delivers in another form than the rest is limited by the steps on images alone. `record`: the
    trial's, with `cache_state`.
    """
    contestant = trial.contestant
    if record.images_per_s is None:
        return {}
    if trial.variant.consumer != "hungry":
        return {"bound_reason": f"the consumer, {trial.variant.consumer}, sets the pace"}
    if contestant.apart:
        return {"bound_reason": f"unranked: {contestant.apart}"}
    limits: dict[str, float] = {}
    reasons: list[str] = []
    for step in _steps(campaign, contestant, record):
        row = measured.get(f"{_prefix(trial)}/{_name(step, campaign.format_of(contestant), prepared)}")
        if row is None or row.images_per_s is None:
            continue
        limit_ips = row.images_per_s
        if step.name == "disk":
            limit_ips /= _read_share(campaign.work_on(prepared.artifacts[contestant.format].samples, 1), record)
        if reason := _why_no_limit(step, limit_ips, row, record):
            reasons.append(f"{step.name}: {reason}")
        else:
            limits[step.name] = limit_ips
    if not limits:
        return {"bound_reason": "; ".join(reasons)}
    by = min(limits, key=lambda name: limits[name])
    if record.images_per_s > limits[by] >= _certain_ips(record):
        return {"bound_reason": "; ".join([*reasons, f"{by}: faster, but no more than by images prefetched before"])}
    share_pct = 100 * record.images_per_s / limits[by]
    return {"bound_ips": limits[by], "bound_by": by, "pct_of_bound": share_pct, "bound_reason": "; ".join(reasons)}


def _read_share(work: Work, record: Record) -> float:
    """Return the share of the delivered images that had to be read from the disk."""
    if record.from_memory_pct is None:
        return 1 / work.passes  # only the first visit to a sample in an epoch reads it
    return max(_LEAST_READ, 1 - record.from_memory_pct / 100)


def _steps(campaign: Campaign, contestant: Contestant, record: Record) -> Iterator[Step]:
    """Yield the steps that a contestant's batches need."""
    on_gpu, memory = campaign.work.device != "cpu", record.batch_memory
    # A loader that delivers on the device may copy bytes there first, and convert them to the requested dtype later.
    converts_there = memory == "device" and campaign.work.dtype != "uint8"
    other_form = converts_there or campaign.work_on(1, 1, contestant) != campaign.work_on(1, 1)
    situations: dict[Situation, bool] = {
        "cold": record.cache != "warm",
        "shared": memory == "shared",
        "on the GPU": on_gpu,
        "pageable": on_gpu and memory in {"shared", "private"},
    }
    for step in needed(campaign.format_of(contestant).mode, [name for name, holds in situations.items() if holds]):
        if not (step.any_images and other_form) and not (step.one_process and campaign.work.processes > 1):
            yield step


def _why_no_limit(step: Step, limit_ips: float, row: Record, record: Record) -> str:
    """Return why a measured step does not limit a trial, or an empty string. `row`: the step's."""
    if step.name == "disk" and record.cache_state == "unproven":
        return "the state of the page cache is unproven: the data may have come from memory"
    if step.name == "transfer" and row.workers != record.workers:
        return f"measured with {row.workers} workers instead of {record.workers}"
    if step.other_ways and (record.images_per_s or 0) > limit_ips:
        return "faster, so it takes another way than the measured one"
    return ""


def _certain_ips(record: Record) -> float:
    """Return the part of a trial's speed that batches prefetched before cannot explain, in images/s."""
    assert record.images_per_s is not None
    if record.cache == "cold":
        return min(record.images_per_s, record.epoch1_images_per_s or record.images_per_s)
    return record.images_per_s * (1 - (record.prefetch_bias_bound_pct or 0) / 100)


def _prefix(trial: plan.Trial) -> str:
    """Return the prefix of the names of all limits for a trial: those of its attempt at the block."""
    return f"{plan.prefix(trial.block, trial.attempt)}/limit"


def _named(campaign: Campaign, formats: list[Format], prepared: Prepared) -> dict[str, Step]:
    """Return the steps that are measured for contestants of these formats, by the names of their rows."""
    cold = {c.format for c in campaign.contestants if c.name in campaign.cold}
    limited = {c.format for c in campaign.competing if campaign.limited}
    read = {"disk": cold | limited, RANDOM_DISK: limited}
    return {
        _name(step, f, prepared): step
        for f in formats
        if f.name in prepared.artifacts
        for step in needed(f.mode, get_args(Situation))
        if step.measure or f.name in read[step.name]
    }


def _name(step: Step, form: Format, prepared: Prepared) -> str:
    """Return the name of a limit: its step, and the format or the images where they matter."""
    if step.measure is None:
        return f"{step.name}/{form.name}"
    first = next(iter(prepared.canonicals.values()))
    if step.any_images or prepared.canonicals[form.name] == first:
        return step.name
    return f"{step.name}/{form.max_side or 'full'}px-q{form.quality}"
