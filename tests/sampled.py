"""Make up what the doctor measured on a sample of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.doctor import data_sample
from loaderbench.doctor.data_case import Case
from loaderbench.doctor.data_verdict import DataDiagnosis, diagnose
from loaderbench.findings.analysis import analyse
from loaderbench.records.record import Record
from tests import fabricate

CAMPAIGN = config.load("doctor").model_dump(mode="json")
IMAGES = 1_000_000
GIB = 1 << 30
BYTES = {"original": 110_000.0, "jpeg-files": 16_600.0, "litdata-jpeg": 16_600.0, "ffcv-raw": 142_000.0}
SPEEDS = dict.fromkeys(("present", "present-again", "original-prefetch", "original-sharing"), 1000.0) | {
    "original-torchvision": 1050.0,
    "original-uint8": 1080.0,
    "original-threads": 1900.0,
    "copies-pil": 2000.0,
    "copies-torchvision": 3000.0,
    "copies-threads": 8000.0,
    "litdata-jpeg": 3200.0,
    "ffcv-raw": 9600.0,
    "ffcv-raw-quasi": 9500.0,
    "ffcv-jpeg": 5400.0,
    "ffcv-half": 6500.0,
}
"""Images/s of each contestant where nothing is out of the ordinary: images are larger than needed."""
LIMITS = {
    "disk/original": 5000.0,
    "disk/ffcv-raw": 20_000.0,
    "original decode": 3000.0,
    "original decode+crop": 2400.0,
    "output": 15_000.0,
    "transfer": 7000.0,
}
CONVERSION_S = {"jpeg-files": 1500.0, "litdata-jpeg": 1600.0, "ffcv-raw": 2000.0, "ffcv-jpeg": 1900.0}


def row(name: str, speed: float, cores: float = 1.95, **changes: Any) -> Record:
    contestant = next(c for c in CAMPAIGN["contestants"] if c["name"] == name)
    form = contestant["format"].replace("ffcv-half", "ffcv-jpeg")
    actor = fabricate.Actor(name, contestant["title"], "a loader", form, speed, BYTES.get(form, 20_000.0), cores=cores)
    columns = {"images_per_s": speed, "cpu_s_per_1k_images": 1000 * cores / speed, "pct_of_bound": 90.0}
    return fabricate.load(actor, 1, **columns | changes)


def rows_of(speeds: dict[str, float], limits: dict[str, float], present: dict[str, Any]) -> list[Record]:
    """All rows but those of other numbers of workers. `present`: columns of the present way's trials."""
    return [
        *(row(name, speed, **present if name.startswith("present") else {}) for name, speed in speeds.items()),
        *(fabricate.limit(step, 1, speed) for step, speed in limits.items() if speed),
        *(fabricate.write(form, bytes_per_image=size) for form, size in BYTES.items()),
    ]


def case(  # noqa: PLR0913 - each is a way in which machines and trainings differ
    speeds: dict[str, float] | None = None,
    *,
    limits: dict[str, float] | None = None,
    workers: dict[int, float] | None = None,
    memory_gib: float = 1024,
    demand: float | None = None,
    present: dict[str, Any] | None = None,
) -> Case:
    """What was measured, with speeds and limits that differ from the ordinary ones."""
    rows = rows_of(SPEEDS | (speeds or {}), LIMITS | (limits or {}), present or {})
    rows += [
        replace(row("present", speed), trial=f"1/present/scaling/{number}", track="scaling", workers=number)
        for number, speed in (workers or {1: 550.0, 4: 1000.0}).items()
    ]
    ran = CAMPAIGN | {"scaling": {"contestants": ["present"], "workers": list(workers or {1: 1, 4: 1})}}
    return Case(
        analysis=analyse(rows, ran),
        formats={form["name"]: form for form in ran["formats"]},
        images=IMAGES,
        conversion_s=CONVERSION_S,
        memory_bytes=int(memory_gib * GIB),
        demand=demand,
    )


def found(*args: Any, **kwargs: Any) -> DataDiagnosis:
    return diagnose(case(*args, **kwargs))


def sampled_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an examination find the ordinary rows instead of measuring a sample."""
    made = fabricate.campaign(folder / "doctor", rows_of(SPEEDS, LIMITS, {}), certified={}, campaign=CAMPAIGN)
    monkeypatch.setattr(data_sample, "measure", lambda *_: data_sample.Measured(made, IMAGES, CONVERSION_S))


def places(folder: Path) -> dict[str, Any]:
    """Where an examination keeps what it makes."""
    return {"cache": folder / "cache", "results": folder / "results", "reports": folder / "reports"}
