"""Measure the trials that a campaign lacks; every outcome is a row."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from loaderbench import roofline
from loaderbench.campaign import plan
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.forecast import expected_s
from loaderbench.campaign.plan import Trial
from loaderbench.campaign.tuning import Settings
from loaderbench.formats import Prepared
from loaderbench.machine import page_cache
from loaderbench.machine.cgroup import memory_limit_bytes
from loaderbench.machine.files import locked, write_whole
from loaderbench.machine.progress import Display
from loaderbench.machine.text import cell, printable
from loaderbench.records import certificates, trials_csv
from loaderbench.records.certificates import Certificate
from loaderbench.records.record import Record
from loaderbench.run import bucket_under_test, environment
from loaderbench.run.one_trial import measure
from loaderbench.run.trial_table import trial_table


def run(  # noqa: PLR0913 - what is measured, and where it is kept
    campaign: Campaign,
    prepared: Prepared,
    results: Path,
    display: Display,
    *,
    certify: Callable[[Mapping[str, Settings | None]], Mapping[str, Certificate]] = lambda _: {},
    after_block: Callable[[Path], None] = lambda _: None,
    artifacts: str | None = None,
    campaign_file: str | None = None,
) -> Path:
    """Measure the trials that the campaign lacks, and return its folder in `results`.

    Rows that were measured under the same conditions are kept. A folder that is complete, or that was measured under
    other conditions, is archived under its date.

    `certify`: returns the certificates by contestant, given the best settings that searches found. It is called once,
    after the searches, and after the first block if there are several. `after_block`: is called with the folder after
    each block. `artifacts`: the bucket with the formats of trials whose data is in one; see `run.bucket_under_test`.
    `campaign_file`: as for `environment.describe`. Raises BusyError or SourceError.
    """
    folder = results / campaign.name
    with locked(results / ".locks" / campaign.name, f"another loaderbench is measuring {folder}; wait for it to end"):
        bucket = {"bucket": (artifacts or bucket_under_test.ON_LOOPBACK).rstrip("/")} if campaign.stream else {}
        now = environment.describe(campaign, prepared.data | bucket, campaign_file)
        measured = _begin(campaign, folder, now, prepared, display)
        done = [record for record in measured.values() if record.kind in {"load", "tune"}]
        _announce(campaign, prepared, folder, measured, display)
        certified = certificates.load(folder)
        uncertified = {contestant.name for contestant in campaign.competing} - certified.keys()
        with bucket_under_test.place(campaign, prepared, artifacts, folder, display) as place:
            while lacking := plan.missing(campaign, measured):
                if uncertified and lacking[0].block >= min(2, campaign.timing.blocks):
                    certificates.save(certified := {**certify(plan.tuned(campaign, measured)), **certified}, folder)
                    uncertified.clear()
                with trial_table(display, campaign, done) as show:
                    for trial in _of_one_block(campaign, measured):
                        show(trial)
                        for record in roofline.limit_rows(campaign, prepared, trial, folder, measured):
                            trials_csv.append(folder / "trials.csv", record)
                            measured[record.trial] = record
                        record = measure(campaign, trial, prepared, folder, measured, place)
                        record = replace(record, certificate=certificates.digest(record, certified))
                        trials_csv.append(folder / "trials.csv", record)
                        measured[trial.name] = record
                        done.append(record)
                    show(None)
                if done[-1].block:
                    after_block(folder)
    return folder


def _of_one_block(campaign: Campaign, measured: Mapping[str, Record]) -> Iterator[Trial]:
    """Yield the missing trials up to the end of a block, or up to that of the searches, which come before the first.

    Searches yield trial by trial: each depends on the rows before it, which the caller adds to `measured`.
    """
    lacking = plan.missing(campaign, measured)
    yield from lacking
    while not lacking[0].block and (further := plan.missing(campaign, measured)) and not further[0].block:
        yield from further


def _announce(
    campaign: Campaign, prepared: Prepared, folder: Path, measured: Mapping[str, Record], display: Display
) -> None:
    """Print how many trials are done and missing, and how long the missing ones take."""
    if done := sum(record.kind in {"load", "tune"} for record in measured.values()):
        display.say(f"resuming {folder}: {done} trials are there")
    if not (lacking := plan.missing(campaign, measured)):
        display.say("all selected trials are there; without --only and --skip, the same command measures the others")
        return
    later = range(lacking[0].block + 1, campaign.timing.blocks + 1)
    left = [trial for trial in lacking if trial.block]
    left += [trial for block in later for trial in plan.trials(campaign, block)]
    searching, searching_most = plan.searching(campaign, measured)
    carried_s = sum(
        bucket_under_test.network_s(campaign.stream, trial.variant.transport, artifact.size_bytes)
        for trial in left
        if campaign.stream and trial.variant.transport
        if (artifact := prepared.artifacts.get(trial.contestant.format))
    )
    minutes = (expected_s(campaign, left, prepared.data["samples"], searching) + carried_s) / 60
    if searching:
        display.say(f"searching for the best settings first: about {searching} trials, at most {searching_most}")
    display.say(f"measuring {len(left)} trials, about {minutes:.0f} minutes")
    if reruns := campaign.timing.reruns:
        display.say(f"a block that is disturbed from outside is measured again, at most {reruns} times")
    memory_bytes = memory_limit_bytes() or psutil.virtual_memory().total
    for form in campaign.formats:
        artifact = prepared.artifacts.get(form.name)
        if artifact and (why := page_cache.why_not_kept(artifact.size_bytes, memory_bytes)):
            display.say(f"{form.title} will not be verified as warm: {why}; --samples N takes fewer images")


def _begin(
    campaign: Campaign, folder: Path, now: dict[str, Any], prepared: Prepared, display: Display
) -> dict[str, Record]:
    """Return the rows, by trial, that the folder has of this campaign under the conditions `now`.

    A folder that cannot be continued is archived, and a new one is begun with a row for each format.
    """
    rows = folder / "trials.csv"
    if not _continues(campaign, folder, now, display):
        folder.mkdir(parents=True, exist_ok=True)
        rejected = [(cell(printable(each.path)), cell(each.reason)) for each in prepared.rejected]
        csv.writer(text := io.StringIO(), lineterminator="\n").writerows([("path", "reason"), *rejected])
        write_whole(folder / "unreadable.csv", text.getvalue())
        write_whole(folder / "env.json", json.dumps(now, indent=1) + "\n")
    measured = {record.trial: record for record in trials_csv.read(rows)}
    for record in prepared.records:
        if record.trial not in measured or record.status != measured[record.trial].status:
            trials_csv.append(rows, record)
    return measured


def _continues(campaign: Campaign, folder: Path, now: dict[str, Any], display: Display) -> bool:
    """Return whether the folder is of this campaign, under the conditions `now`, and incomplete; archive another."""
    described, rows = folder / "env.json", folder / "trials.csv"
    if not described.exists():
        return False
    before = json.loads(described.read_text())
    trials_csv.mend(rows)
    if different := environment.differences(before, now):
        changed = f"was measured under other conditions ({', '.join(different)})"
    elif not plan.missing(campaign.limited_to(None), {record.trial: record for record in trials_csv.read(rows)}):
        changed = "is complete"
    else:
        return True
    date = before["started_at"].translate(str.maketrans("", "", ":-+"))
    names = itertools.chain([date], (f"{date}-{number}" for number in itertools.count(2)))
    archive = next(path for name in names if not (path := folder.with_name(f"{folder.name}-{name}")).exists())
    bucket_under_test.clear(folder)
    folder.rename(archive)
    display.say(f"{folder} {changed}; archived as {archive}")
    return False
