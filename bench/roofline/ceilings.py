"""What bounds each contestant? The limits of an attempt at a block as rows, and what follows from them for a trial."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from loaderbench.campaign import plan
from loaderbench.machine import process
from loaderbench.records.record import Record, now
from loaderbench.roofline import measure as limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from loaderbench.campaign.campaign import Campaign
    from loaderbench.campaign.schema import Format
    from loaderbench.formats.prepare import Prepared
    from loaderbench.records.record import Status

_LIMIT_S = 120.0
"""Measuring the limits of one set of images may take so long beyond the time of the steps themselves."""


def measure(
    campaign: Campaign, prepared: Prepared, trial: plan.Trial, folder: Path, measured: Mapping[str, Record]
) -> Iterator[Record]:
    """Yield a row for each limit that the trial's attempt at a block lacks, measured now. `measured`: rows by trial."""
    if not (campaign.timing.stage_s and trial.block):  # a search is no part of any block
        return
    prefix = _prefix(trial)
    for canonical in dict.fromkeys(prepared.canonicals.values()):
        formats = [f for f in campaign.formats if prepared.canonicals.get(f.name) == canonical]
        lacking = {
            n: stage for n, stage in _names(campaign, formats, prepared).items() if f"{prefix}/{n}" not in measured
        }
        if not lacking:
            continue
        # Whatever the ranks, a limit is that of the whole machine, on all cores at once.
        work = replace(campaign.work_on(prepared.data["samples"], trial.block), ranks=1)
        spec = {
            "canonical": str(canonical),
            "artifacts": {f.name: asdict(prepared.artifacts[f.name]) for f in formats if f"disk/{f.name}" in lacking},
            "work": asdict(work),
            "stages": sorted(set(lacking.values())),
            "seconds": campaign.timing.stage_s,
        }
        limit_s = _LIMIT_S + 2 * campaign.timing.stage_s * len(lacking)
        log = folder / f"{plan.prefix(trial.block, trial.attempt)}+limit.log"
        started_at = now()
        result = process.run("loaderbench.roofline.measure.run", spec, log, limit_s)
        for name, stage in lacking.items():
            key = name if stage == "disk" else stage
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
                batch_size=work.batch_size,
                workers=work.workers,
                images_per_s=speed,
            )


def of_trial(
    campaign: Campaign, prepared: Prepared, trial: plan.Trial, record: Record, measured: Mapping[str, Record]
) -> dict[str, Any]:
    """Return the columns that tell how close a trial came to the least of the limits that hold for it; none of a
    consumer that does not take batches as fast as they come, and of a contestant whose work is of another kind. That of
    one that delivers in another form than all is bound by what is done to images alone.
    """
    contestant = trial.contestant
    if trial.consumer != "hungry" or contestant.apart:
        return {}
    form = campaign.format_of(trial.contestant)
    on_gpu = campaign.work.device != "cpu"
    stages = limits.applicable(
        form.mode,
        cold=record.cache == "cold",
        shared=record.batch_memory == "shared",
        on_gpu=on_gpu,
        pageable=on_gpu and record.batch_memory in {"shared", "private"},
    )
    if campaign.work.processes > 1:
        stages = tuple(stage for stage in stages if stage not in limits.OF_ONE_PROCESS)
    # One that delivers on the device may have written and copied bytes there, and made them what is asked for later.
    converts_there = record.batch_memory == "device" and campaign.work.dtype != "uint8"
    if converts_there or campaign.work_on(1, 1, contestant) != campaign.work_on(1, 1):
        stages = tuple(stage for stage in stages if stage not in limits.OF_ANY_IMAGES)
    found = {
        stage: row.images_per_s
        for stage in stages
        if (row := measured.get(f"{_prefix(trial)}/{_name(stage, form, prepared)}")) is not None
    }
    if (disk_ips := found.get("disk")) is not None:  # of several visits to a sample in an epoch only the first reads
        found["disk"] = disk_ips * campaign.work_on(prepared.artifacts[form.name].samples, 1).passes
    least = limits.bound(found, stages)
    if least is None or record.images_per_s is None:
        return {}
    bound_ips, bound_by = least
    return {"bound_ips": bound_ips, "bound_by": bound_by, "pct_of_bound": 100 * record.images_per_s / bound_ips}


def _prefix(trial: plan.Trial) -> str:
    """Return what the names of the limits begin with that hold for a trial: those of its attempt at the block."""
    return f"{plan.prefix(trial.block, trial.attempt)}/limit"


def _names(campaign: Campaign, formats: list[Format], prepared: Prepared) -> dict[str, str]:
    """Return the stages that are measured for contestants of these formats, by the names of their rows."""
    cold = {c.format for c in campaign.contestants if c.name in campaign.cold}
    return {
        _name(stage, f, prepared): stage
        for f in formats
        if f.name in prepared.artifacts
        for stage in limits.measurable(f.mode, cold=f.name in cold)
    }


def _name(stage: str, form: Format, prepared: Prepared) -> str:
    """Return what a limit is called: the stage, of which format or images where that matters."""
    if stage == "disk":
        return f"disk/{form.name}"
    first = next(iter(prepared.canonicals.values()))
    if stage in limits.OF_ANY_IMAGES or prepared.canonicals[form.name] == first:
        return stage
    return f"{stage}/{form.max_side or 'full'}px-q{form.quality}"
