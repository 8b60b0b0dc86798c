"""Measure a sample of the user's images with the campaign `doctor`, and diagnose what holds training back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil

from loaderbench.bucket.client import SCHEME
from loaderbench.campaign.campaign import Campaign
from loaderbench.doctor import data_answer
from loaderbench.doctor.data_case import Case
from loaderbench.doctor.data_verdict import DataDiagnosis, diagnose
from loaderbench.findings import verdicts
from loaderbench.findings.raw_times import analyse_folder
from loaderbench.formats import prepare
from loaderbench.formats.estimation import CANONICAL, estimate_on_samples
from loaderbench.images import ImageTree, find
from loaderbench.machine.cgroup import memory_limit_bytes
from loaderbench.machine.progress import Display
from loaderbench.records.folder import CampaignFolder
from loaderbench.report.first_screen import setup
from loaderbench.report.material import Material
from loaderbench.run import runner


class Measured(NamedTuple):
    """A measured sample."""

    folder: Path
    """The campaign's."""
    images: int
    """In the whole data set."""
    conversion_s: Mapping[str, float]
    """To convert the whole data set, by format, decoding included."""


def measure(campaign: Campaign, data: str | Path | None, cache: Path, results: Path, display: Display) -> Measured:
    """Measure the campaign on a sample of the images. Raises as `formats.prepare` and `run.runner.run` do."""
    prepared = prepare(campaign, data, cache, display, strict=False)
    tree = find(data, campaign.data, cache, display)
    seconds = conversion_s(campaign, tree, cache, display)
    folder = runner.run(campaign, prepared, results, display, campaign_file=campaign.name)
    return Measured(folder, len(tree.paths), seconds)


def answer(  # noqa: PLR0913 - what was measured, and for which training
    measured: Measured, reports: Path, *, now: str, demand: float | None, trained: str, memory_bytes: int | None
) -> tuple[DataDiagnosis, str]:
    """Return the diagnosis and the text of its page, which is written into a folder of `reports` with a picture.

    `now`, `demand`, `trained`, `memory_bytes`: as of a `Case`.
    """
    files = CampaignFolder(measured.folder)
    case = Case(
        analysis=analyse_folder(files),
        formats={form["name"]: form for form in files.env["campaign"]["formats"]},
        images=measured.images,
        conversion_s=measured.conversion_s,
        memory_bytes=memory_bytes or memory_limit_bytes() or psutil.virtual_memory().total,
        demand=demand,
        trained=trained,
        bucket=files.env["data"]["origin"].startswith(SCHEME),
        now=now,
    )
    diagnosis, out = diagnose(case), reports / measured.folder.name
    page = data_answer.write(diagnosis, files.env["data"]["origin"], _conditions(files, case), out)
    return diagnosis, page.read_text(encoding="utf-8")


def conversion_s(campaign: Campaign, tree: ImageTree, cache: Path, display: Display) -> dict[str, float]:
    """Return how long each format of the whole data set takes: on the straight line through two samples."""
    with TemporaryDirectory(prefix="doctor-", dir=cache) as fresh:  # what the cache holds would not be timed
        estimate = estimate_on_samples(campaign, tree, len(tree.paths), Path(fresh), display)
    parts = {part.title: part.seconds for part in estimate.parts}
    decoding_s = parts.get(CANONICAL, 0.0)
    return {form.name: decoding_s + parts[form.title] for form in campaign.formats if form.title in parts}


def _conditions(files: CampaignFolder, case: Case) -> str:
    """Return in one line what was measured on what."""
    material = Material(files.env, case.analysis, {}, 0, (), {})
    disturbed = verdicts.counted(len(case.analysis.flagged), "trial")
    memory = f"{case.memory_bytes / 2**30:,.1f} GiB of memory"
    whole = f"{case.images:,} images in the whole data set"
    unreadable = files.env["data"]["unreadable"]
    left_out = [f"{verdicts.counted(unreadable, 'unreadable image')} left out"] if unreadable else []
    return "; ".join([*setup(material), *left_out, whole, memory, f"each way once, {disturbed} disturbed"])
