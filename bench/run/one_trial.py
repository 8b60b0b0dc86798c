"""Run one trial in a process of its own; every outcome is a row."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loaderbench import roofline
from loaderbench.api import Artifact
from loaderbench.campaign import forecast, registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.pixel_values import delivers
from loaderbench.campaign.plan import Trial
from loaderbench.campaign.schema import Contestant
from loaderbench.campaign.tuning import Settings, options_at
from loaderbench.campaign.variant import MAIN, Variant
from loaderbench.formats import Prepared
from loaderbench.machine import cgroup, page_cache
from loaderbench.machine.cores import canary_s
from loaderbench.machine.disk import need
from loaderbench.machine.errors import FixableError
from loaderbench.machine.private import masked
from loaderbench.records import trials_csv
from loaderbench.records.record import Cache, Record, Status, now
from loaderbench.run import bucket_under_test
from loaderbench.run.bucket_under_test import Place
from loaderbench.run.environment import virtual_machine
from loaderbench.trial import TrialSpec, Window, needs
from loaderbench.trial import measure as run_trial

_ROOM_BYTES = 16 << 20
"""For the files of one trial. Without it each further trial would fail, and the campaign would have to be repeated."""


def measure(  # noqa: PLR0913, PLR0917 - all that a trial needs; # long, because a row names its columns
    campaign: Campaign,
    trial: Trial,
    prepared: Prepared,
    folder: Path,
    measured: Mapping[str, Record],
    place: Place | None,
) -> Record:
    """Run one trial and return its row, whatever the outcome. Raises DiskSpaceError without room for its files.

    `folder`: the campaign's. `measured`: its rows by trial. `place`: where trials with their data in a bucket run.
    """
    contestant, variant, identity = trial.contestant, trial.variant, _identity(campaign, trial)
    if obstacle := _obstacle(campaign, trial, prepared):
        status, reason = obstacle
        return Record(**identity, workers=variant.workers or None, status=status, reason=reason)
    need(_ROOM_BYTES, folder, f"the log and the raw times of {trial.name}", trials_csv.MAKE_ROOM)
    artifact = prepared.artifacts[contestant.format]
    file_name = trial.name.replace("/", "+")  # no name contains a plus
    (folder / "times").mkdir(exist_ok=True)
    times = folder / "times" / f"{file_name}.npz"
    spec = trial_spec(campaign, contestant, artifact, times, trial.block, variant, trial.settings)
    if shortage := needs.shared_memory_shortage(spec.loader, spec.work, spec.options, spec.jobs):
        return Record(**identity, status="unavailable", reason=shortage)
    resident_pct = None if variant.transport else page_cache.warm_or_evict(Path(artifact.path), identity["cache"])
    before_s = canary_s()
    log, limit_s = folder / f"{file_name}.log", trial_limit_s(campaign, variant, artifact)
    if place and variant.transport:
        result = place.run(variant.transport, spec, log, limit_s)
    else:
        result = _run(campaign, spec, log, limit_s)
    record = Record(
        **identity,
        samples=artifact.samples,
        size_bytes=artifact.size_bytes,
        bytes_per_image=artifact.size_bytes / artifact.samples,
        batch_size=spec.work.batch_size,
        workers=spec.work.workers,
        ranks=spec.work.ranks,
        jobs=spec.jobs,
        delivers=delivers(vars(spec.work)),
        resident_pct=resident_pct,
        times=times.name if result["status"] == "ok" else "",
        canary_drift_pct=100 * (canary_s() / before_s - 1),
        resident_after_pct=None if variant.transport else page_cache.resident_pct(Path(artifact.path)),
        **result,
    )
    if record.status != "ok" or variant.transport or not registry.loader(contestant.loader).reads:
        return record
    state = _cache_state(record, artifact)
    record = replace(record, cache_state=state, **_reads(record, artifact))
    return replace(record, **roofline.limit_columns(campaign, prepared, trial, record, measured))


def _run(campaign: Campaign, spec: TrialSpec, log: Path, limit_s: float) -> dict[str, Any]:
    """Run a trial with its data on this machine, in a control group if its memory is limited, and return its report."""
    if not (campaign.limited and campaign.limited.memory_mib):
        return run_trial(spec, log, limit_s)
    try:
        with cgroup.limited(campaign.limited.memory_mib) as group:
            return run_trial(replace(spec, memory_group=group), log, limit_s)
    except FixableError as error:
        return {"status": "unavailable", "reason": str(error)}


def _cache(campaign: Campaign, variant: Variant) -> Cache:
    """Return the requested state of the page cache."""
    return "limited" if campaign.limited else variant.cache


def _reads(record: Record, artifact: Artifact) -> dict[str, Any]:
    """Return the columns of `Record` on what the window's images had to read from the disk."""
    if record.cache != "limited" or record.window_read_bytes is None or not record.window_images:
        return {}
    read_bytes, takes_bytes = record.window_read_bytes / record.window_images, artifact.payload_bytes / artifact.samples
    return {"read_bytes_per_image": read_bytes, "from_memory_pct": max(0.0, 100 * (1 - read_bytes / takes_bytes))}


def _cache_state(record: Record, artifact: Artifact) -> str:
    """Return the verified state of the page cache in a trial that read an artifact."""
    before_pct = record.resident_pct
    if record.cache == "warm":
        window_read_bytes = record.window_read_bytes
        return page_cache.warm_state(before_pct, record.resident_after_pct, window_read_bytes, artifact.size_bytes)
    if record.cache == "limited":
        return page_cache.limited_state(before_pct)
    served = page_cache.on_file_server(Path(artifact.path))
    elsewhere = "client" if served else "guest" if virtual_machine() else ""
    return page_cache.cold_state(before_pct, record.read_bytes, artifact.payload_bytes, elsewhere)


def _obstacle(campaign: Campaign, trial: Trial, prepared: Prepared) -> tuple[Status, str] | None:
    """Return the status and the reason of a trial that cannot run; None if it can."""
    form = trial.contestant.format
    if trial.settings is None:
        return "unavailable", f"none of the tried settings fits the limit of {campaign.tuning.memory_mib} MiB of memory"
    if reason := registry.adapters("loader")[trial.contestant.loader].why_unavailable():
        return "unavailable", reason
    if form not in prepared.artifacts:
        written = next(record for record in prepared.records if record.format == form)
        return written.status, f"format {form}: {written.reason}"
    return None


def trial_spec(  # noqa: PLR0913, PLR0917 - all that a trial is
    campaign: Campaign,
    contestant: Contestant,
    artifact: Artifact,
    times: Path,
    block: int = 1,
    variant: Variant = MAIN,
    settings: Settings | None = None,
) -> TrialSpec:
    """Return the specification of a trial.

    `times`: the file for its raw times. `block`: 0 for a search. `settings`: those that replace the contestant's own.
    """
    work, settings = campaign.work_on(artifact.samples, block, contestant), settings or {}
    if variant.transport:  # a second visit in the first epoch would find in the cache what the first fetched
        work = replace(work, passes=1)
    window = campaign.timing.window() | ({} if block else campaign.tuning.window())
    window["whole_epoch_s"] = forecast.whole_epoch_s(campaign)
    feeding = campaign.feedings.get(variant.consumer)
    if feeding:
        window |= feeding.window() | {"whole_epoch_s": 0.0}
    if feeding or campaign.work.processes > 1:
        window |= {"pause_s": None}
    epochs = forecast.whole_epochs(campaign, variant)
    if campaign.limited:
        window |= {"pause_s": None, "epochs_before": forecast.EPOCHS_BEFORE}
    return TrialSpec(
        loader=contestant.loader,
        artifact=artifact,
        work=replace(work, workers=settings.get("workers", variant.workers or work.workers)),
        window=Window(**window, epochs=epochs),
        times=times,
        options=options_at(contestant.options, settings),
        consumer=variant.consumer,
        consumer_options=feeding.model_dump().get("options", {}) if feeding else {},
        jobs=campaign.work.jobs,
    )


def trial_limit_s(campaign: Campaign, variant: Variant, artifact: Artifact) -> float:
    """Return the time limit of a trial on this artifact, with the time that a limited network takes."""
    limit_s = forecast.limit_s(campaign, variant, artifact.samples)
    if not (campaign.stream and variant.transport):
        return limit_s
    return limit_s + bucket_under_test.network_s(campaign.stream, variant.transport, artifact.size_bytes)


def _identity(campaign: Campaign, trial: Trial) -> dict[str, Any]:
    """Return the columns that identify the trial."""
    contestant, variant = trial.contestant, trial.variant
    place = {"kind": "load", "block": trial.block, "attempt": trial.attempt, "track": variant.track}
    own = trial.block and variant.track != "best"
    network = {}
    if campaign.stream and variant.transport:
        network = bucket_under_test.limits(campaign.stream, variant.transport)
    return {
        "trial": trial.name,
        **(place if trial.block else {"kind": "tune"}),
        "position": trial.position,
        "cache": "" if variant.transport else _cache(campaign, variant),
        "memory_limit_mib": campaign.limited and campaign.limited.memory_mib,
        "consumer": variant.consumer,
        "started_at": now(),
        "contestant": contestant.name,
        "title": contestant.title if own else campaign.best[contestant.name].title,
        "adapter": contestant.loader,
        "format": contestant.format,
        "options": json.dumps(masked(options_at(contestant.options, trial.settings)), sort_keys=True),
        "versions": registry.adapters("loader")[contestant.loader].versions(),
        **network,
    }
