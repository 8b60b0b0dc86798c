"""Which trials are still to be run, and what came of each? Every trial is a process; every end of one is a row."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import environment, pagecache, plan, process, records, registry
from bench.api import Work
from bench.cache import locked
from bench.monitors import machine
from bench.records import Record
from bench.source import printable

if TYPE_CHECKING:
    from bench.api import Artifact
    from bench.config import Campaign
    from bench.display import Display
    from bench.prepare import Prepared

WARM_RESIDENT_PCT = 99
WARM_READ_PCT = 1


def run(campaign: Campaign, prepared: Prepared, results: Path, display: Display) -> Path:
    """Measure what is missing of the campaign and return its folder in `results`.

    Rows that are there and were measured under the same conditions stay and are not measured again. A folder that is
    complete, or was measured under other conditions, is set aside under another name. Raises BusyError.
    """
    folder = results / campaign.name
    with locked(results / ".locks" / campaign.name, f"another loaderbench is measuring {folder}; wait for it to end"):
        _begin(campaign, prepared, folder, display)
        rows = folder / "trials.csv"
        measured = {record.trial: record for record in records.read(rows)}
        for record in prepared.records:
            if record.trial not in measured or record.status != measured[record.trial].status:
                records.append(rows, record)
        done = [record for record in measured.values() if record.kind == "load"]
        planned = plan.trials(campaign)
        if done:
            display.say(f"going on with {folder}: {len(done)} of {len(planned)} trials are there")
        left = len(planned) - len(done)
        display.say(f"measuring {left} trials, about {campaign.expected_s(left) / 60:.0f} minutes")
        with display.campaign(campaign, len(planned), done) as show:
            for trial in planned:
                if trial.name not in measured:
                    show(trial.contestant.title)
                    record = _measure(campaign, trial, prepared, folder)
                    records.append(rows, record)
                    done.append(record)
            show(None)
    return folder


def _begin(campaign: Campaign, prepared: Prepared, folder: Path, display: Display) -> None:
    """Leave a folder whose rows, if any, belong to this campaign under today's conditions."""
    now = environment.describe(campaign, prepared.data)
    described = folder / "env.json"
    if described.exists():
        before = json.loads(described.read_text())
        records.mend(folder / "trials.csv")
        if different := environment.differences(before, now):
            changed = f"was measured under other conditions ({', '.join(different)})"
        elif all(trial.name in _names(folder) for trial in plan.trials(campaign)):
            changed = "is complete"
        else:
            return
        aside = folder.with_name(f"{folder.name}-{before['started_at'].translate(str.maketrans('', '', ':-+'))}")
        folder.rename(aside)
        display.say(f"{folder} {changed}; kept as {aside}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "unreadable.csv").open("w", newline="") as file:
        rows = [(printable(rejected.path), rejected.reason) for rejected in prepared.rejected]
        csv.writer(file, lineterminator="\n").writerows([("path", "reason"), *rows])
    _write_whole(described, json.dumps(now, indent=1) + "\n")


def _names(folder: Path) -> set[str]:
    return {record.trial for record in records.read(folder / "trials.csv")}


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, whatever happens to the machine."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def work(campaign: Campaign, artifact: Artifact, block: int) -> Work:
    """Return what every contestant delivers in one block: the same, in an order that differs from block to block."""
    return Work(
        batch_size=campaign.work.batch_size,
        workers=campaign.work.count_workers(),
        image_size=campaign.work.image_size,
        dtype=campaign.work.dtype,
        passes=max(1, round(campaign.work.epoch_images / artifact.samples)),
        seed=campaign.work.seed + block,
    )


def window(campaign: Campaign) -> dict[str, float]:
    """Return the keys of `trial.Window`."""
    return campaign.timing.model_dump(include={"warmup_s", "window_s", "window_batches"})


def _cache_state(artifact: Artifact, resident_pct: float | None, read_bytes: int | None) -> str:
    """Return `warm` if that is proven: nearly all was resident before, and nearly nothing was read from the disk."""
    if resident_pct is None or read_bytes is None:
        return "unproven"
    warm = resident_pct >= WARM_RESIDENT_PCT and 100 * read_bytes <= WARM_READ_PCT * artifact.size_bytes
    return "warm" if warm else "unproven"


def _identity(trial: plan.Trial) -> dict[str, Any]:
    """Return the columns that say which trial a row is of."""
    contestant = trial.contestant
    return {
        "trial": trial.name,
        "kind": "load",
        "block": trial.block,
        "position": trial.position,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "contestant": contestant.name,
        "title": contestant.title,
        "adapter": contestant.loader,
        "format": contestant.format,
        "options": json.dumps(contestant.options, sort_keys=True),
        "versions": registry.adapters("loader")[contestant.loader].versions(),
    }


def _measure(campaign: Campaign, trial: plan.Trial, prepared: Prepared, folder: Path) -> Record:
    """Run one trial and return its row, whatever becomes of it."""
    contestant, identity = trial.contestant, _identity(trial)
    if reason := registry.adapters("loader")[contestant.loader].why_unavailable():
        return Record(**identity, status="unavailable", reason=reason)
    artifact = prepared.artifacts.get(contestant.format)
    if artifact is None:
        written = next(record for record in prepared.records if record.format == contestant.format)
        return Record(**identity, status=written.status, reason=f"format {contestant.format}: {written.reason}")
    file_name = trial.name.replace("/", "-")
    (folder / "times").mkdir(exist_ok=True)
    asked = work(campaign, artifact, trial.block)
    pagecache.read_through(Path(artifact.path))
    resident_pct = pagecache.resident_pct(Path(artifact.path))
    spec = {
        "loader": contestant.loader,
        "artifact": asdict(artifact),
        "work": asdict(asked),
        "options": contestant.options,
        "window": window(campaign),
        "times": str(folder / "times" / f"{file_name}.npz"),
    }
    canary_s = machine.canary_s()
    result = process.run("trial", spec, folder / f"{file_name}.log", campaign.timing.limit_s)
    return Record(
        **identity,
        samples=artifact.samples,
        size_bytes=artifact.size_bytes,
        bytes_per_image=artifact.size_bytes / artifact.samples,
        batch_size=asked.batch_size,
        workers=asked.workers,
        resident_pct=resident_pct,
        cache_state=_cache_state(artifact, resident_pct, result.get("read_bytes")),
        canary_drift_pct=100 * (machine.canary_s() / canary_s - 1),
        **result,
    )
