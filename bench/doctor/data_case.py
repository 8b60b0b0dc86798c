"""The types of an examination of data: what was measured on a sample, and each way to load the whole data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from loaderbench.findings import verdicts
from loaderbench.findings.findings import Analysis, ContestantSummary
from loaderbench.machine.page_cache import why_not_kept

PRESENT, AGAIN = "present", "present-again"
"""The contestant that loads as PyTorch's examples do, and its repetition."""
_SEPARATE_FILES = {"original", "jpeg-files"}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to load the user's data set."""

    name: str
    title: str
    format: str
    images_per_s: float
    """As measured, with the sample in memory."""
    expected_images_per_s: float
    """On the whole data set: the same, or what the disk delivers if the data does not fit into memory."""
    size_bytes: float
    """Of the whole data set."""
    fits: bool
    """Whether it stays in memory."""
    conversion_s: float | None
    """Of the whole data set; 0 if there is nothing to convert, None if it is not known."""
    memory_mib: float | None
    start_s: float | None
    """Until the first batch."""
    limit_images_per_s: float | None
    """What this machine can do of the slowest step that it needs, with the data in memory."""
    workers: int | None = None
    """Its number of workers, if that is what it changes."""
    pixels: str
    """What is stored of each image, and how batches differ from those of the present way."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What was measured, and what is known of the data set and of the training."""

    analysis: Analysis
    formats: Mapping[str, Mapping[str, Any]]
    """As `env.json` keeps them, by name."""
    images: int
    """In the whole data set."""
    conversion_s: Mapping[str, float]
    """Of the whole data set, by format."""
    memory_bytes: int
    """That the training may use, page cache included."""
    demand: float | None = None
    """Images/s that the training takes."""
    trained: str = "training"
    """What takes them, for a sentence."""
    now: str = PRESENT
    """The contestant that loads as training does today."""
    bucket: bool = False
    """Whether the images were copied from a bucket before they were measured."""

    def summary(self, name: str) -> ContestantSummary | None:
        """Return a contestant with a speed."""
        return next((s for s in self.analysis.measured if s.name == name), None)

    @property
    def present(self) -> Way | None:
        """The present way, with the mean speed of its trials; None if none of them succeeded."""
        names = (PRESENT, AGAIN) if self.now == PRESENT else (self.now,)
        found = [s for s in map(self.summary, names) if s]
        return self.way(found[0], fmean(s.median for s in found)) if found else None

    @property
    def others(self) -> list[Way]:
        """All other ways that have a speed."""
        others = [self.way(s, s.median) for s in self.analysis.measured if s.name not in {self.now, AGAIN}]
        curves = [curve for curve in self.analysis.scaling if curve.main.name == self.now]
        return others + [
            self.way(point, point.median, workers)
            for curve in curves
            for workers, point in curve.points.items()
            if point.speeds and point is not curve.main
        ]

    def way(self, s: ContestantSummary, images_per_s: float, workers: int | None = None) -> Way:
        """Return a contestant as a way to load the whole data set. `workers`: see `Way`."""
        per_image = s.medians.get("bytes_per_image", 0.0)
        size_bytes = per_image * self.images
        fits = not why_not_kept(round(size_bytes), self.memory_bytes)
        disk = self.disk_bytes_per_s(s.format)
        from_disk = disk / per_image if disk and per_image and not fits else images_per_s
        original = self.formats[s.format]["mode"] == "original"
        return Way(
            name=s.name,
            format=s.format,
            title=verdicts.counted(workers, "worker") if workers else s.title,
            images_per_s=images_per_s,
            expected_images_per_s=min(images_per_s, from_disk),
            size_bytes=size_bytes,
            fits=fits,
            conversion_s=0.0 if original else self.conversion_s.get(s.format),
            memory_mib=s.medians.get("anon_memory_mib"),
            start_s=s.medians.get("start_s"),
            limit_images_per_s=s.medians.get("bound_ips"),
            workers=workers,
            pixels=_pixels(self.formats[s.format], s.apart),
        )

    def disk_bytes_per_s(self, form: str) -> float | None:
        """Return how fast this machine reads such files from where they are, if that was measured."""
        step = disk_step(form)
        read = next((w for w in self.analysis.writes if w.format == step.partition("/")[2]), None)
        limit = self.analysis.limits.get(step)
        return limit * read.bytes_per_image if limit and read and read.bytes_per_image else None


def disk_step(form: str) -> str:
    """Return the machine limit that reads such files as a format consists of: separate ones, or a large one."""
    return "disk/original" if form in _SEPARATE_FILES else "disk/ffcv-raw"


def _pixels(form: Mapping[str, Any], apart: str) -> str:
    """Return what a format stores of each image. `apart`: how the batches differ from those of the others."""
    mode, size = form["mode"], f"at most {form['max_side']} px" if form["max_side"] else "full size"
    jpeg = f"JPEG {form['quality']}"
    stored = {
        "original": "the same files",
        "raw": size,
        "proportion": f"{size}, {100 * form['compress_probability']:.0f}% as {jpeg}",
    }.get(mode, f"{size}, {jpeg}")
    return f"{stored}; {apart.partition(' instead')[0]}" if apart else stored
