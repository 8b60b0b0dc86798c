"""Examine the user's images: which part of this machine holds training back, and what each cure would give."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loaderbench.campaign import campaign as config
from loaderbench.campaign.campaign import Campaign
from loaderbench.doctor import data_demand
from loaderbench.machine.errors import FixableError
from loaderbench.machine.machine_lock import machine_lock
from loaderbench.machine.progress import Display
from loaderbench.machine.scratch import scratch
from loaderbench.run import preflight

if TYPE_CHECKING:
    from loaderbench.doctor.data_verdict import DataDiagnosis

_BATCHES = 8
"""Batches of an epoch, at least, for each worker."""
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(i?)b?", re.IGNORECASE)


def examine_data(  # noqa: PLR0913 - what is examined, for which training, and where files go
    data: str | Path | None,
    *,
    loader: str | None = None,
    demand: float | None = None,
    model: str | None = None,
    memory_bytes: int | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    cache: Path = Path("data"),
    results: Path = Path("results"),
    reports: Path = Path("reports"),
    display: Display | None = None,
) -> DataDiagnosis:
    """Return what holds back training on the user's images, and which cures pay; print it and write it as a page.

    `data`: as for `loaderbench bench`. `loader`: the contestant of campaign `doctor` that training uses today; None:
    its reference, torchvision's ImageFolder. `demand`: images/s that the training takes. `model`: a model of
    torchvision whose demand is measured. `memory_bytes`: memory that training may use; None: what this machine
    or container has. `overrides`: keys of the campaign to replace, by table. The page is `doctor/answer.md` in
    `reports`. It needs the machine for itself. Raises FixableError or BusyError.
    """
    display, ran = display or Display(), campaign(overrides or {})
    now, names = loader or ran.reference, [contestant.name for contestant in ran.competing]
    if now not in names:
        raise FixableError(f"--loader {now} is no contestant of campaign doctor; use one of {', '.join(names)}")
    if demand and model:
        raise FixableError("--model measures what --demand says: give only one of them")
    with machine_lock(), scratch(cache):
        preflight.check(ran, data, cache, results, reports, None, display)

        from loaderbench.doctor import data_sample  # libraries look for a home folder as they are imported

        trained = "training"
        if model:
            display.say(f"training {model} on one batch ...")
            demand, trained = data_demand.measure(model, ran.work_on(1, 1))
            display.say(f"{trained} takes {demand:,.0f} images/s")
        measured = data_sample.measure(ran, data, cache, results, display)
        diagnosis, page = data_sample.answer(
            measured, reports, now=now, demand=demand, trained=trained, memory_bytes=memory_bytes
        )
    display.say(f"\n{page}\nanswer: {reports / ran.name}")
    return diagnosis


def campaign(overrides: Mapping[str, Mapping[str, Any]]) -> Campaign:
    """Return the campaign, with epochs that keep all workers of this machine busy."""
    keys = {table: dict(of_table) for table, of_table in overrides.items()}
    work = config.load("doctor", keys).work
    epoch_images = max(work.epoch_images, _BATCHES * work.batch_size * work.count_workers())
    return config.load("doctor", {**keys, "work": {**keys.get("work", {}), "epoch_images": epoch_images}})


def size_bytes(text: str) -> int:
    """Return a number of bytes that is written like 16GiB, 64 GB or 17179869184. Raises FixableError."""
    found = _SIZE.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise FixableError(f"{text} is no size of memory; write it like 16GiB or 64GB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _UNITS[unit.lower()])
