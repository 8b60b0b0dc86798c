"""Which trials are still to be run, and what came of each? Every trial is a process; every end of one is a row."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loaderbench import trial as trials
from loaderbench.campaign import plan, registry
from loaderbench.campaign.pixel_values import delivers
from loaderbench.machine import page_cache
from loaderbench.machine.cores import canary_s
from loaderbench.machine.files import locked, write_whole
from loaderbench.machine.text import printable
from loaderbench.records import record as records
from loaderbench.records.certificates import load, save
from loaderbench.records.record import Record
from loaderbench.roofline import ceilings
from loaderbench.run import bucket_under_test as remote
from loaderbench.run import environment
from loaderbench.run.trial_table import trial_table
from loaderbench.trial import TrialSpec, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loaderbench.api import Artifact
    from loaderbench.campaign.campaign import Campaign
    from loaderbench.campaign.schema import Contestant
    from loaderbench.campaign.tuning import Settings
    from loaderbench.formats import Prepared
    from loaderbench.machine.progress import Display
    from loaderbench.records.certificates import Certificate
    from loaderbench.records.record import Cache, Consumer, Transport
    from loaderbench.run.bucket_under_test import Place


def run(  # noqa: PLR0913 - what is measured, and where it is kept
    campaign: Campaign,
    prepared: Prepared,
    results: Path,
    display: Display,
    *,
    certify: Callable[[], Mapping[str, Certificate]] = dict,
    after_block: Callable[[Path], None] = lambda _: None,
    artifacts: str | None = None,
) -> Path:
    """Measure what is missing of the campaign and return its folder in `results`.

    Rows that are there and were measured under the same conditions stay and are not measured again. A folder that is
    complete, or was measured under other conditions, is set aside under another name.

    `certify`: returns the certificates by contestant. It is called once: after the first block if there are several, so
    that the first speeds come early. `after_block`: is called with the folder after each block. `artifacts`: the bucket
    with the formats of those trials that have them in one; see `run.bucket_under_test`. Raises BusyError or
    SourceError.
    """
    folder = results / campaign.name
    with locked(results / ".locks" / campaign.name, f"another loaderbench is measuring {folder}; wait for it to end"):
        _begin(campaign, prepared, artifacts, folder, display)
        rows = folder / "trials.csv"
        measured = {record.trial: record for record in records.read(rows)}
        for record in prepared.records:
            if record.trial not in measured or record.status != measured[record.trial].status:
                records.append(rows, record)
        done = [record for record in measured.values() if record.kind in {"load", "tune"}]
        _announce(campaign, prepared, folder, measured, display)
        certificates = load(folder)
        with remote.place(campaign, prepared, artifacts, folder, display) as place:
            while lacking := plan.missing(campaign, measured):
                if not certificates and (lacking[0].block != 1 or campaign.timing.blocks == 1):
                    save(certificates := dict(certify()), folder)
                with trial_table(display, campaign, done) as show:
                    for trial in _of_one_block(campaign, measured):
                        show(trial)
                        for record in ceilings.measure(campaign, prepared, trial, folder, measured):
                            records.append(rows, record)
                            measured[record.trial] = record
                        record = _measure(campaign, trial, prepared, folder, measured, place)
                        if certificate := certificates.get(trial.contestant.name):
                            record = replace(record, certificate=certificate.digest)
                        records.append(rows, record)
                        measured[trial.name] = record
                        done.append(record)
                    show(None)
                after_block(folder)
    return folder


def _of_one_block(campaign: Campaign, measured: Mapping[str, Record]) -> Iterator[plan.Trial]:
    """Yield the missing trials up to the end of a block.

    Searches come before the first block, trial by trial: each depends on the rows before it, which the caller adds to
    `measured`.
    """
    while lacking := plan.missing(campaign, measured):
        yield from lacking
        if lacking[-1].block:
            return


def _announce(
    campaign: Campaign, prepared: Prepared, folder: Path, measured: Mapping[str, Record], display: Display
) -> None:
    """Say what is there, what is left and how long that takes."""
    if done := sum(record.kind in {"load", "tune"} for record in measured.values()):
        display.say(f"going on with {folder}: {done} trials are there")
    lacking = plan.missing(campaign, measured)
    later = range(lacking[0].block + 1, campaign.timing.blocks + 1)
    left = [trial for trial in lacking if trial.block]
    left += [trial for block in later for trial in plan.trials(campaign, block)]
    searching, searching_most = plan.searching(campaign, measured)
    network_s = _network_s(campaign, prepared, left)
    carried_s = sum(network_s.get((trial.contestant.name, trial.transport), 0) for trial in left)
    minutes = (campaign.expected_s(left, searching) + carried_s) / 60
    if searching:
        display.say(f"searching for the best settings first: about {searching} trials, at most {searching_most}")
    reruns = campaign.timing.reruns
    most = f", at most {(1 + reruns) * minutes:.0f} if all blocks are disturbed and run again" if reruns else ""
    display.say(f"measuring {len(left)} trials, about {minutes:.0f} minutes{most}")
    limit_s = campaign.timing.limit_s
    for (name, transport), expected_s in network_s.items():
        if expected_s > limit_s:
            display.say(
                f"{name}, {records.TRANSPORTS[transport]}: the network alone takes up to {expected_s:.0f} s, and after "
                f"{limit_s:g} s a trial is killed; raise timing.limit_s, or stream.rate_mib_per_s"
            )


def _network_s(
    campaign: Campaign, prepared: Prepared, trials: Sequence[plan.Trial]
) -> dict[tuple[str, Transport], float]:
    """Return how long the network takes for a trial with its data in a bucket, by contestant and transport."""
    return {
        (trial.contestant.name, trial.transport): remote.network_s(
            campaign.stream, trial.transport, artifact.size_bytes
        )
        for trial in trials
        if campaign.stream and trial.transport and (artifact := prepared.artifacts.get(trial.contestant.format))
    }


def _begin(campaign: Campaign, prepared: Prepared, artifacts: str | None, folder: Path, display: Display) -> None:
    """Leave a folder whose rows, if any, belong to this campaign under today's conditions."""
    bucket = {"bucket": artifacts or remote.ON_LOOPBACK} if campaign.stream else {}
    now = environment.describe(campaign, prepared.data | bucket)
    described = folder / "env.json"
    if described.exists():
        before = json.loads(described.read_text())
        records.mend(folder / "trials.csv")
        if different := environment.differences(before, now):
            changed = f"was measured under other conditions ({', '.join(different)})"
        elif not plan.missing(campaign, {record.trial: record for record in records.read(folder / "trials.csv")}):
            changed = "is complete"
        else:
            return
        aside = folder.with_name(f"{folder.name}-{before['started_at'].translate(str.maketrans('', '', ':-+'))}")
        remote.clear(folder)
        folder.rename(aside)
        display.say(f"{folder} {changed}; kept as {aside}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "unreadable.csv").open("w", newline="") as file:
        rows = [(printable(rejected.path), rejected.reason) for rejected in prepared.rejected]
        csv.writer(file, lineterminator="\n").writerows([("path", "reason"), *rows])
    write_whole(described, json.dumps(now, indent=1) + "\n")


def trial_spec(  # noqa: PLR0913 - all that a trial is
    campaign: Campaign,
    contestant: Contestant,
    artifact: Artifact,
    times: Path,
    *,
    block: int = 1,
    cache: Cache = "warm",
    consumer: Consumer = "hungry",
    transport: Transport = "",
    settings: Settings | None = None,
) -> TrialSpec:
    """Return the specification of a trial.

    `times`: where it keeps its raw times. `block`: 0 is a search. `settings`: in place of the contestant's own.
    """
    work = campaign.work_on(artifact.samples, block, contestant)
    if transport:  # its first epoch fetches, and would find in its cache what it visits again
        work = replace(work, passes=1)
    put = settings or {}
    window = campaign.timing.model_dump(include={"warmup_s", "window_s", "window_batches", "pause_s"})
    if not block:
        window |= campaign.tuning.model_dump(include={"warmup_s", "window_s"})
    feeding = None if consumer == "hungry" else campaign.feedings[consumer]
    if feeding:
        window |= feeding.model_dump(include={"warmup_s", "window_s", "window_batches"}) | {"whole_epoch": False}
    if feeding or campaign.work.processes > 1:
        window |= {"pause_s": None}
    epochs = campaign.stream.epochs if transport and campaign.stream else int(cache == "cold")
    return TrialSpec(
        loader=contestant.loader,
        artifact=artifact,
        work=replace(work, workers=put.get("workers", work.workers)),
        window=Window(**window, epochs=epochs),
        times=times,
        options=_options(contestant, put),
        consumer=consumer,
        consumer_options=feeding.model_dump().get("options", {}) if feeding else {},
        jobs=campaign.work.jobs,
    )


def _options(contestant: Contestant, settings: Settings) -> dict[str, Any]:
    """Return what the loader is given beside the work."""
    return contestant.options | {name: value for name, value in settings.items() if name != "workers"}


def _identity(campaign: Campaign, trial: plan.Trial) -> dict[str, Any]:
    """Return the columns that say which trial a row is of."""
    contestant = trial.contestant
    place = {"kind": "load", "block": trial.block, "attempt": trial.attempt, "track": trial.track}
    same = trial.block and trial.track == "same"
    return {
        "trial": trial.name,
        **(place if trial.block else {"kind": "tune"}),
        "position": trial.position,
        "cache": "" if trial.transport else trial.cache,
        "consumer": trial.consumer,
        "started_at": records.now(),
        "contestant": contestant.name,
        "title": contestant.title if same else campaign.best[contestant.name].title,
        "adapter": contestant.loader,
        "format": contestant.format,
        "options": json.dumps(_options(contestant, trial.settings or {}), sort_keys=True),
        "versions": registry.adapters("loader")[contestant.loader].versions(),
        **(remote.limits(campaign.stream, trial.transport) if trial.transport and campaign.stream else {}),
    }


def _measure(  # noqa: PLR0913, PLR0917 - all that a trial needs
    campaign: Campaign,
    trial: plan.Trial,
    prepared: Prepared,
    folder: Path,
    measured: Mapping[str, Record],
    place: Place | None,
) -> Record:
    """Run one trial and return its row, whatever becomes of it."""
    contestant, identity = trial.contestant, _identity(campaign, trial)
    if trial.settings is None:
        reason = f"no settings that were tried keep to {campaign.tuning.memory_mib} MiB of memory"
        return Record(**identity, status="unavailable", reason=reason)
    if reason := registry.adapters("loader")[contestant.loader].why_unavailable():
        return Record(**identity, status="unavailable", reason=reason)
    artifact = prepared.artifacts.get(contestant.format)
    if artifact is None:
        written = next(record for record in prepared.records if record.format == contestant.format)
        return Record(**identity, status=written.status, reason=f"format {contestant.format}: {written.reason}")
    file_name = trial.name.replace("/", "+")  # which no name has
    (folder / "times").mkdir(exist_ok=True)
    times = folder / "times" / f"{file_name}.npz"
    spec = trial_spec(
        campaign,
        contestant,
        artifact,
        times,
        block=trial.block,
        cache=trial.cache,
        consumer=trial.consumer,
        transport=trial.transport,
        settings=trial.settings,
    )
    resident_pct = None if trial.transport else page_cache.warm_or_evict(Path(artifact.path), trial.cache)
    canary_before_s = canary_s()
    log, limit_s = folder / f"{file_name}.log", campaign.timing.limit_s
    if place and trial.transport:
        result = place.run(trial.transport, spec, log, limit_s)
    else:
        result = trials.measure(spec, log, limit_s)
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
        canary_drift_pct=100 * (canary_s() / canary_before_s - 1),
        **result,
    )
    if record.status != "ok" or trial.transport or not registry.loader(contestant.loader).reads:
        return record
    virtual = environment.virtual_machine() is not None
    state = page_cache.cache_state(
        trial.cache,
        resident_pct,
        record.read_bytes,
        size_bytes=artifact.size_bytes,
        payload_bytes=artifact.payload_bytes,
        virtual_machine=virtual,
    )
    return replace(record, cache_state=state, **ceilings.limit_columns(campaign, prepared, trial, record, measured))
