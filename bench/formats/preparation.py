"""Prepare all that a campaign's trials read: canonical images and formats, each made once and kept in the cache."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path
from typing import Any

from loaderbench.api import Artifact, Mode
from loaderbench.bucket.repository import MANIFEST, Repository
from loaderbench.campaign import registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.names import known
from loaderbench.campaign.schema import Data, Format
from loaderbench.formats.estimation import Estimate, estimate_on_samples
from loaderbench.formats.writing import Job, PrepareError, canonical_settings, jobs, write
from loaderbench.images import CanonicalImages, CanonicalSettings, ImageTree, Rejected, canonical, find
from loaderbench.images.canonical_build import canonical_folder
from loaderbench.images.splits import TRAIN
from loaderbench.machine.cores import core_count
from loaderbench.machine.disk import FEWER_IMAGES, need
from loaderbench.machine.files import begun, expanded, forget_earlier, locked
from loaderbench.machine.progress import Display
from loaderbench.machine.text import printable
from loaderbench.records.record import Record

ESTIMATED_FROM = 50_000
"""From this number of images on, time and disk space are estimated before the images are prepared."""


@dataclass(frozen=True)
class Prepared:
    """All that the trials read."""

    artifacts: Mapping[str, Artifact]
    """By format name. A format that could not be written is missing."""
    canonicals: Mapping[str, Path]
    """By format name: the folder of the canonical images that it was made from. The first is the campaign's first."""
    records: tuple[Record, ...]
    """One row per selected format: how it was written, or why it was not."""
    data: dict[str, Any]
    """What the images are, for `env.json`."""
    rejected: tuple[Rejected, ...]
    """What was skipped."""


def prepare(  # noqa: PLR0913 - the images, and how and where they are prepared
    campaign: Campaign,
    data: str | Path | None,
    cache: Path,
    display: Display,
    *,
    strict: bool,
    artifacts: str | None = None,
) -> Prepared:
    """Return the campaign's formats, and make those that the cache lacks.

    `data`: as for `images.find`. `artifacts`: URL of a `bucket.repository`; formats that it has are downloaded instead
    of written. Raises PrepareError, SourceError, DiskSpaceError or BusyError.
    """
    with _lock(cache):
        tree = find(data, campaign.data, cache, display)
        first, selected = campaign.formats[0], campaign.selected_formats
        settings = dict.fromkeys(canonical_settings(campaign, form) for form in (first, *selected))
        folders = [canonical_folder(tree, each, cache) for each in settings]
        for folder in folders:
            forget_earlier(folder)
        count = canonical_settings(campaign, first).count(tree)
        if count >= ESTIMATED_FROM and not any(begun(folder) for folder in folders):
            expected = estimate_on_samples(campaign, tree, count, cache, display)
            for line in expected.lines():
                display.say(line)
            need(expected.size_bytes, cache, f"{count:,} images in all formats", FEWER_IMAGES)
        made = jobs(campaign, tree, cache, display, strict=strict)
        # `env.json` describes the images of the first format, whatever is selected.
        images = canonical(tree, canonical_settings(campaign, first), cache, display, strict=strict)
        for note in images.manifest.notes[len(tree.notes) :]:
            display.say(note)
        if len(images) < campaign.work.batch_size:
            raise PrepareError(
                f"{printable(tree.root)}: only {len(images)} readable images, but the batch size is "
                f"{campaign.work.batch_size}; use --batch-size {len(images)} or smaller"
            )
        records = tuple(write(made, cache, display, artifacts))
    found = {job.form.name: job.artifact(record) for job, record in zip(made, records, strict=True)}
    ready = {name: artifact for name, artifact in found.items() if artifact}
    for artifact in ready.values():
        artifact.describe()
    canonicals = {first.name: images.folder} | {job.form.name: job.images.folder for job in made}
    return Prepared(ready, canonicals, records, _described(data, campaign, tree, images), images.rejected())


def write_format(  # noqa: PLR0913 - the images, and how they are stored
    data: Any,
    writer: str,
    mode: Mode = "jpeg",
    *,
    cache: str | Path = "data",
    samples: int | None = None,
    split: str | None = None,
    strict: bool = False,
    **encoding: Any,
) -> Artifact:
    """Return images in one format, for a `DataModule`, and write the format if the cache lacks it.

    `data`, `split`: as on the command line; `data` may also be a dataset that can be pickled. In a script, call this
    below `if __name__ == "__main__":`, because worker processes run the script again. `writer`: a name that
    `loaderbench adapters` lists. `samples`: how many images to draw; None takes all. `strict`: refuse unreadable images
    instead of leaving them out. `encoding`: further fields of `Encoding`. Raises as `prepare` does, PrepareError also
    if the format cannot be written, and ValueError for an unknown writer or a wrong value.
    """
    if getattr(current_process(), "_inheriting", False):  # a worker process runs the script again that calls this
        raise PrepareError(
            'call write_format below `if __name__ == "__main__":`, because worker processes run the script'
        )
    known("unknown writer", [writer], sorted(registry.adapters("writer")))
    form = Format(name=f"{writer}-{mode}", title=f"{writer} {mode}", writer=writer, mode=mode, **encoding)
    settings, display, folder = (
        Data.model_validate({"samples": samples, "split": split}),
        Display(),
        Path(expanded(cache)),
    )
    with _lock(folder):
        tree = find(data, settings, folder, display)
        drawn = CanonicalSettings(samples, settings.seed, form.max_side, form.quality)
        job = Job(form, canonical(tree, drawn, folder, display, strict=strict), core_count(), folder)
        [record] = write([job], folder, display)
    if not (artifact := job.artifact(record)):
        raise PrepareError(f"{form.title} could not be written: {record.status}, {record.reason}")
    artifact.describe()
    return artifact


def estimate(campaign: Campaign, data: str | Path | None, cache: Path, display: Display) -> Estimate:
    """Return time and disk space that preparing the campaign's formats will take. Raises as `prepare` does."""
    with _lock(cache):
        tree = find(data, campaign.data, cache, display)
        count = canonical_settings(campaign, campaign.formats[0]).count(tree)
        return estimate_on_samples(campaign, tree, count, cache, display)


def publish(prepared: Prepared, to: str, display: Display) -> None:
    """Upload the formats to a `bucket.repository`, except links to files of this machine. Raises S3Error."""
    repository = Repository(to)
    for artifact in prepared.artifacts.values():
        folder = Path(artifact.path).parent
        if artifact.encoding.mode == "original":
            display.say(f"{artifact.format} is not published: it is links to the images themselves")
        elif not repository.publish(folder, json.loads((folder / MANIFEST).read_text()), display):
            display.say(f"{artifact.format} is published already")


def _lock(cache: Path) -> AbstractContextManager[None]:
    return locked(cache, f"another loaderbench is preparing data in {cache}; wait for it to end")


def _described(data: str | Path | None, campaign: Campaign, tree: ImageTree, images: CanonicalImages) -> dict[str, Any]:
    """Return what the images are, for `env.json`."""
    manifest, split = images.manifest, campaign.data.split
    origin = str(data) if data else f"synthetic, seed {campaign.data.seed}"
    return {
        "origin": origin if split in {None, TRAIN} else f"{origin}, split {split}",
        "argument": str(data) if data else None,
        "files": tree.digest,
        "found": manifest.found,
        "samples": manifest.samples,
        "classes": len(manifest.classes),
        "unreadable": manifest.rejected,
        "digest": manifest.digest,
        "raw_bytes_per_image": manifest.pixels_bytes_mean,
        "jpeg_bytes_per_image": manifest.jpeg_bytes_mean,
        "versions": manifest.versions,
        "notes": list(manifest.notes),
    }
