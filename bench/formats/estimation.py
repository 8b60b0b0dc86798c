"""Estimate time, disk space and cost of preparing many images, from two samples of them.

Each part of the work has a fixed cost and a cost per image. Both follow from preparing two samples of different sizes,
with the code that will prepare all images, and drawing the straight line through the two.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from loaderbench.campaign import forecast
from loaderbench.campaign.campaign import Campaign
from loaderbench.formats.writing import Job, canonical_settings, jobs, write
from loaderbench.images import CanonicalImages, ImageTree
from loaderbench.images.canonical_build import canonical_folder
from loaderbench.machine.cores import usable_cores
from loaderbench.machine.disk import size
from loaderbench.machine.files import size_bytes
from loaderbench.machine.progress import Display

SAMPLES = (256, 1024)
"""Images in the two samples."""
_HOUR_S = 3600
CANONICAL, _CHECKS = "decoding once for all formats", "starting the writers, and checking what they stored"


@dataclass(frozen=True)
class PartEstimate:
    """Estimate for the canonical images, or for one format."""

    title: str
    seconds: float
    size_bytes: float


@dataclass(frozen=True)
class Estimate:
    """Estimate for preparing all images."""

    images: int
    parts: tuple[PartEstimate, ...]
    free_bytes: int
    """On the disk of the cache."""
    measuring_s: float
    """How long the campaign's trials on the prepared images take, without what a limited network adds."""
    left_out: tuple[str, ...] = ()
    """Formats that could not be written, with the reason."""
    in_cache: tuple[str, ...] = ()
    """What is prepared already, and is no part of the estimate."""

    @property
    def seconds(self) -> float:
        """Return the time on this machine."""
        return sum(part.seconds for part in self.parts)

    @property
    def size_bytes(self) -> float:
        """Return the disk space."""
        return sum(part.size_bytes for part in self.parts)

    def lines(self, usd_per_hour: float | None = None) -> list[str]:
        """Return the estimate in words, the sum first. `usd_per_hour`: price of the machine."""
        cost = f" (${self.seconds / _HOUR_S * usd_per_hour:,.2f})" if usd_per_hour is not None else ""
        cores = usable_cores()
        duration = f"about {_duration(self.seconds)} on {cores:g} core{'s' * (cores != 1)}{cost}"
        space = f"{size(self.size_bytes)}, where {size(self.free_bytes)} are free"
        total = f"preparing {self.images:,} images takes {duration} and {space}:"
        if not self.parts:
            total = f"{self.images:,} images are prepared:"
        parts = (
            f"  {part.title}: {_duration(part.seconds)}" + (f", {size(part.size_bytes)}" if part.size_bytes else "")
            for part in self.parts
        )
        left_out = (f"  left out: {left}" for left in self.left_out)
        return [
            total,
            *parts,
            *left_out,
            *([f"  in the cache: {', '.join(self.in_cache)}"] if self.in_cache else []),
            f"measuring the loaders on them then takes about {_duration(self.measuring_s)}",
        ]


@dataclass(frozen=True)
class Measured:
    """What preparing a sample took."""

    images: int
    parts: dict[str, PartEstimate]
    """By format name, and the work for all formats."""
    left_out: tuple[str, ...] = ()


def estimate_on_samples(campaign: Campaign, tree: ImageTree, images: int, cache: Path, display: Display) -> Estimate:
    """Return the estimate for what the cache lacks of preparing `images` images of the tree.

    Raises as `jobs` and `write` do.
    """
    decoded, made = _prepared(campaign, tree, cache)
    lacking = campaign.model_copy(update={"formats": [form for form in campaign.formats if form.name not in made]})
    measuring_s, free_bytes = forecast.whole_s(campaign, images), shutil.disk_usage(cache).free
    in_cache = ("decoded images",) * decoded + tuple(form.title for form in campaign.formats if form.name in made)
    if not lacking.formats:
        return Estimate(images, (), free_bytes, measuring_s, in_cache=in_cache)
    sizes = sorted({min(size, images) for size in SAMPLES})
    display.say(f"measuring on {' and '.join(map(str, sizes))} of {images:,} images what all of them will take ...")
    samples = [_measure(lacking, tree, size, cache, display) for size in sizes]
    parts = extrapolate(samples[0], samples[-1], images)
    parts = tuple(part for part in parts if not (decoded and part.title == CANONICAL))
    return Estimate(images, parts, free_bytes, measuring_s, samples[-1].left_out, in_cache)


def _prepared(campaign: Campaign, tree: ImageTree, cache: Path) -> tuple[bool, set[str]]:
    """Return whether the cache holds the decoded images of all formats, and the names of the formats that it holds."""
    folders = {
        form.name: canonical_folder(tree, canonical_settings(campaign, form), cache) for form in campaign.formats
    }
    images = {folder: CanonicalImages(folder) for folder in set(folders.values()) if folder.exists()}
    decoded = [form for form in campaign.formats if folders[form.name] in images]
    made = {form.name for form in decoded if Job(form, images[folders[form.name]], 1, cache).folder.exists()}
    return len(decoded) == len(campaign.formats), made


def extrapolate(few: Measured, more: Measured, images: int) -> tuple[PartEstimate, ...]:
    """Return the estimate of each part for `images` images, on the straight line through two samples.

    A part that only the larger sample has keeps that sample's values, as if the number of images did not matter. So do
    all parts if both samples have the same size.
    """

    def line(few_value: float, more_value: float) -> float:
        each = max(more_value - few_value, 0) / max(more.images - few.images, 1)
        return more_value + each * (images - more.images)

    pairs = [(few.parts.get(name, part), part) for name, part in more.parts.items()]
    return tuple(
        PartEstimate(part.title, line(first.seconds, part.seconds), line(first.size_bytes, part.size_bytes))
        for first, part in pairs
    )


def _measure(campaign: Campaign, tree: ImageTree, samples: int, cache: Path, display: Display) -> Measured:
    """Prepare a sample in a temporary folder."""
    drawn = campaign.model_copy(update={"data": campaign.data.model_copy(update={"samples": samples})})
    with tempfile.TemporaryDirectory(prefix="estimate-", dir=cache) as folder:
        scratch, start_s = Path(folder), time.perf_counter()
        made = jobs(drawn, tree, scratch, display, strict=False)
        decoded_s = time.perf_counter() - start_s
        records = write(made, scratch, display)
        checks_s = time.perf_counter() - start_s - decoded_s - sum(record.write_synced_s or 0 for record in records)
        canonical_bytes = sum(map(size_bytes, {job.images.folder for job in made}))
        parts = {
            CANONICAL: PartEstimate(CANONICAL, decoded_s, canonical_bytes),
            _CHECKS: PartEstimate(_CHECKS, checks_s, 0),
        }
        for job, record in zip(made, records, strict=True):
            if record.write_synced_s:
                written_bytes = size_bytes(job.folder / "files")
                parts[record.format] = PartEstimate(record.title, record.write_synced_s, written_bytes)
        left_out = tuple(f"{record.title}: {record.reason}" for record in records if record.status != "ok")
        return Measured(len(made[0].images), parts, left_out)


def _duration(seconds: float) -> str:
    if seconds < 100:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < _HOUR_S else f"{seconds / _HOUR_S:.1f} h"
