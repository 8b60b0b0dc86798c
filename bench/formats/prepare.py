"""Is the data there in every format? Images, canonical bytes and artifacts, each made once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loaderbench.api import Artifact
from loaderbench.bucket.repository import MANIFEST, Repository
from loaderbench.campaign import registry
from loaderbench.formats import estimate
from loaderbench.images import canonical, synthetic
from loaderbench.images import find as ingest
from loaderbench.images import tree as source
from loaderbench.images.canonical_store import CanonicalImages
from loaderbench.images.unpack import TRAIN
from loaderbench.machine import process
from loaderbench.machine.code_digest import code_digest
from loaderbench.machine.counters import written_bytes
from loaderbench.machine.files import StoppedError, begun, begun_bytes, building, forget_earlier, locked, pulled
from loaderbench.records.record import SCHEMA_VERSION, Record, now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loaderbench.campaign.campaign import Campaign
    from loaderbench.campaign.schema import Format
    from loaderbench.machine.progress import Display

SYNTHETIC_SAMPLES = 4096
"""How many images the synthetic set has where the campaign sets no number."""
_SYNTHETIC_BYTES = 120_000  # of one source image, generously
ESTIMATED_FROM = 50_000
"""So many images are prepared only after it has been measured on a sample of them what that will take."""
_FULL_BYTES = 16 << 20
"""A conversion that failed with less than this left on the disk most likely failed of that."""
_GIB = 1 << 30


class PrepareError(Exception):
    """The data cannot be made ready. The message says what is wrong, where, and what mends it."""


@dataclass(frozen=True)
class _Conversion:
    """One format to be had: from `images`, as described by `record`, in `folder` once it is whole."""

    form: Format
    images: CanonicalImages
    record: Record
    folder: Path


@dataclass(frozen=True)
class Prepared:
    """All that the trials need."""

    artifacts: Mapping[str, Artifact]
    """By format name; a format that could not be written is missing."""
    canonicals: Mapping[str, Path]
    """By format name: the folder of the canonical pixels and JPEG bytes that it was made of."""
    records: tuple[Record, ...]
    """One row per format: how it was written, or why it was not."""
    data: dict[str, Any]
    """What the images are, for `env.json`."""
    rejected: tuple[source.Rejected, ...]
    """What could not be read."""


def prepare(  # noqa: PLR0913 - what it is, and where it is kept
    campaign: Campaign,
    data: str | Path | None,
    cache: Path,
    display: Display,
    *,
    strict: bool,
    artifacts: str | None = None,
) -> Prepared:
    """Return the campaign's formats, writing those that the cache does not hold.

    `data`: what `images.find` takes; None makes the synthetic set. `artifacts`: a `bucket.repository`, from which
    formats are taken in place of writing them. Raises PrepareError, SourceError or BusyError.
    """
    with locked(cache, f"another loaderbench is preparing data in {cache}; wait for it to end"):
        tree = _tree(campaign, data, cache, display)
        stores = {
            key: _store(campaign, tree, key, cache)
            for key in dict.fromkeys((f.max_side, f.quality) for f in campaign.formats)
        }
        for _, folder in stores.values():
            forget_earlier(folder)
        if _drawn(campaign, tree) >= ESTIMATED_FROM and not any(begun(folder) for _, folder in stores.values()):
            _say_what_it_takes(_estimate(campaign, tree, cache, display), cache, display)
        sources = {
            key: _canonical(tree, settings, folder, display, strict=strict)
            for key, (settings, folder) in stores.items()
        }
        images = next(iter(sources.values()))
        if len(images) < campaign.work.batch_size:
            message = (
                f"{tree.root} gives {len(images)} readable images, fewer than one batch of "
                f"{campaign.work.batch_size}; use --batch-size {len(images)} or less"
            )
            raise PrepareError(message)
        conversions = [_conversion(campaign, f, sources[f.max_side, f.quality], cache) for f in campaign.formats]
        missing = [c for c in conversions if not c.folder.exists() and not c.record.reason]
        for conversion in missing:
            forget_earlier(conversion.folder)
        _need(sum(_expected_bytes(c) - begun_bytes(c.folder) for c in missing), cache, f"{len(missing)} formats")
        repository = Repository(artifacts) if artifacts and missing else None
        records = tuple(_record(c, cache, display, repository) for c in conversions)
    ready = {
        c.form.name: Artifact(
            format=c.form.name,
            path=str(c.folder / "files"),
            samples=len(c.images),
            classes=len(c.images.classes),
            label_sum=c.images.label_sum,
            size_bytes=size_bytes,
            payload_bytes=payload_bytes,
            encoding=c.form.encoding,
        )
        for c, record in zip(conversions, records, strict=True)
        if (size_bytes := record.size_bytes) is not None and (payload_bytes := record.payload_bytes) is not None
    }
    for artifact in ready.values():
        artifact.describe()
    canonicals = {c.form.name: c.images.folder for c in conversions}
    return Prepared(ready, canonicals, records, _describe(data, campaign, images), images.rejected())


def foresee(campaign: Campaign, data: str | Path | None, cache: Path, display: Display) -> estimate.Estimate:
    """Return what preparing the campaign's formats will take, measured on samples. Raises as `prepare` does."""
    with locked(cache, f"another loaderbench is preparing data in {cache}; wait for it to end"):
        return _estimate(campaign, _tree(campaign, data, cache, display), cache, display)


def publish(prepared: Prepared, to: str, display: Display) -> None:
    """Put what was prepared into a `bucket.repository`, except links to files of this machine. Raises SourceError."""
    repository = Repository(to)
    for artifact in prepared.artifacts.values():
        folder = Path(artifact.path).parent
        if artifact.encoding.mode == "original":
            display.say(f"{artifact.format} stays here: it is links to the images themselves")
        elif not repository.publish(folder, json.loads((folder / MANIFEST).read_text()), display):
            display.say(f"{artifact.format} is there already")


def _tree(campaign: Campaign, data: str | Path | None, cache: Path, display: Display) -> source.ImageTree:
    if data:
        return ingest.scan(data, cache, display, campaign.data.split)
    if campaign.data.split not in {None, TRAIN}:
        raise PrepareError("the synthetic images have no splits: leave out --split, or name images by --data")
    return source.scan(synthetic_images(campaign, cache, display))


def synthetic_images(campaign: Campaign, cache: Path, display: Display) -> Path:
    """Return the folder of the campaign's synthetic set, making it if need be. Raises PrepareError."""
    samples, seed = campaign.data.samples or SYNTHETIC_SAMPLES, campaign.data.seed
    code = code_digest([Path(synthetic.__file__)])[:8]
    folder = cache / "synthetic" / f"{samples}-seed{seed}-{code}"
    if not folder.exists():
        _need(samples * _SYNTHETIC_BYTES, cache, "the synthetic images")
        with building(folder) as partial, display.stage("making synthetic images", samples) as on_progress:
            synthetic.write(partial, samples, seed, on_progress=on_progress)
    return folder


def _estimate(campaign: Campaign, tree: source.ImageTree, cache: Path, display: Display) -> estimate.Estimate:
    def sample(samples: int, scratch: Path) -> Prepared:
        data = campaign.data.model_copy(update={"samples": samples, "split": None})  # of a tree
        work = campaign.work.model_copy(update={"batch_size": 1})
        drawn = campaign.model_copy(update={"data": data, "work": work})
        return prepare(drawn, tree.root, scratch, display, strict=False)

    images = _drawn(campaign, tree)
    display.say(f"measuring on {' and '.join(map(str, estimate.SAMPLES))} of {images:,} images what they will take ...")
    return estimate.estimate(sample, images, cache)


def _say_what_it_takes(foreseen: estimate.Estimate, cache: Path, display: Display) -> None:
    """Raise PrepareError if there is no room for it."""
    for line in foreseen.lines():
        display.say(line)
    _need(foreseen.size_bytes, cache, f"{foreseen.images:,} images in all formats")


def _drawn(campaign: Campaign, tree: source.ImageTree) -> int:
    """Return how many images of the tree the campaign takes, if all can be read."""
    return min(len(tree.paths), campaign.data.samples or len(tree.paths))


def _store(
    campaign: Campaign, tree: source.ImageTree, key: tuple[int | None, int], cache: Path
) -> tuple[canonical.CanonicalSettings, Path]:
    """Return the settings of the canonical images of a longest side and a JPEG quality, and their folder."""
    settings = canonical.CanonicalSettings(campaign.data.samples, campaign.data.seed, *key)
    return settings, cache / "canonical" / canonical.fingerprint(tree, settings)


def _canonical(
    tree: source.ImageTree, settings: canonical.CanonicalSettings, folder: Path, display: Display, *, strict: bool
) -> CanonicalImages:
    if not folder.exists():
        total = min(len(tree.paths), settings.samples or len(tree.paths))
        stage = display.stage("decoding once for all formats", total)
        with building(folder, goes_on=True) as partial, stage as on_progress:
            canonical.build(tree, partial, settings, strict=strict, on_progress=on_progress)
    return CanonicalImages(folder)


def _describe(data: str | Path | None, campaign: Campaign, images: CanonicalImages) -> dict[str, Any]:
    """Return what the images are, for `env.json`."""
    manifest = images.manifest
    return {
        "origin": _origin(data, campaign),
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


def _origin(data: str | Path | None, campaign: Campaign) -> str:
    if not data:
        return f"synthetic, seed {campaign.data.seed}"
    split = campaign.data.split
    return str(data) if split in {None, TRAIN} else f"{data}, split {split}"


def _conversion(campaign: Campaign, form: Format, images: CanonicalImages, cache: Path) -> _Conversion:
    adapter = registry.adapters("writer")[form.writer]
    record = Record(
        trial=f"write/{form.name}",
        kind="write",
        started_at=now(),
        title=form.title,
        adapter=form.writer,
        format=form.name,
        options=json.dumps(asdict(form.encoding), sort_keys=True),
        versions=adapter.versions(),
        status="unavailable",
        reason=adapter.why_unavailable(),
        samples=len(images),
        workers=campaign.work.count_workers(),
    )
    # What the stored bytes depend on: the images and the encoding; and the row, the library and the adapter's own code.
    # It is the same on every machine, unless what is stored are links to its own files.
    code = adapter.code_digest()
    content = [images.manifest.digest, images.manifest.classes]
    what = str(images.folder.resolve()) if form.encoding.mode == "original" else content
    parts = json.dumps([what, record.options]), json.dumps([SCHEMA_VERSION, record.versions, code])
    of_what, made_by = (hashlib.sha256(part.encode()).hexdigest() for part in parts)
    key = f"{of_what[:16]}-{made_by[:8]}"
    return _Conversion(form, images, record, cache / "artifacts" / f"{form.name}-{key}")


def _record(conversion: _Conversion, cache: Path, display: Display, repository: Repository | None) -> Record:
    """Write the format unless it is there, and return the row that tells how it was written, or why it was not."""
    form, record, folder = conversion.form, conversion.record, conversion.folder
    if record.reason:
        return record
    if folder.exists():
        return replace(Record(**json.loads((folder / MANIFEST).read_text())), title=form.title)
    if repository and (taken := _pulled(conversion, display, repository)):
        return taken
    if pulled(folder).exists():
        shutil.rmtree(pulled(folder))  # it is written here after all
    resumes = registry.writer(form.writer).resumes
    if left_bytes := begun_bytes(folder):
        how = "goes on from there" if resumes else "starts anew, for it is not written in parts"
        display.say(f"{form.title} was stopped at {left_bytes / _GIB:.2f} GiB; it {how}")
    with suppress(_NotWrittenError, StoppedError), building(folder, goes_on=resumes) as partial:
        log = cache / f"write-{form.name}.log"
        record = replace(record, **_converted(conversion, partial, log, display))
        if record.status != "ok":
            free_bytes = shutil.disk_usage(partial).free
            full = f"{cache} is full ({free_bytes >> 20} MiB left); " if free_bytes < _FULL_BYTES else ""
            kept = resumes and record.status == "failed"  # and not invalid
            then = "; what is whole is kept, and the same command goes on from there" if kept else ""
            record = replace(record, reason=f"{full}{record.reason}; see {log}{then}")
            raise StoppedError if kept else _NotWrittenError
        (partial / MANIFEST).write_text(json.dumps(asdict(record), indent=1))
    return record


def _converted(conversion: _Conversion, partial: Path, log: Path, display: Display) -> dict[str, Any]:
    """Let a process write the format's files below `partial`, where some may be already; return what it reports."""
    form, files = conversion.form, partial / "files"
    files.mkdir(exist_ok=True)
    kept_bytes, expected_bytes = begun_bytes(conversion.folder), round(_expected_bytes(conversion))
    spec = {
        "writer": form.writer,
        "canonical": str(conversion.images.folder),
        "out": str(files),
        "encoding": asdict(form.encoding),
        "workers": conversion.record.workers,
    }
    with display.transfer(f"writing {form.title}") as on_progress:

        def progress(pid: int) -> None:
            if (written := written_bytes(pid)) is not None:
                on_progress(min(kept_bytes + written, expected_bytes), expected_bytes)

        return process.run_child("loaderbench.formats.conversion.run", spec, log, watch=progress)


def _pulled(conversion: _Conversion, display: Display, repository: Repository) -> Record | None:
    """Take the format from a repository and return the row that tells what is stored; None if it is not there.

    How long it took to write is not told, for that was another machine's time.
    """
    folder, files = conversion.folder, pulled(conversion.folder)
    if (stored := repository.pull(folder.name, files, display)) is None:
        return None
    described = ("schema", "options", "versions", "samples")
    if any(stored.get(column) != getattr(conversion.record, column) for column in described):
        shutil.rmtree(files)
        raise PrepareError(
            f"{repository.location / folder.name} is refused: its manifest tells of another format than its name; "
            "remove it and publish it again, or leave out --artifacts"
        )
    untimed = dict.fromkeys(("write_s", "cpu_s", "images_per_s", "cpu_s_per_1k_images"))
    record = Record(**{**stored, **untimed, "title": conversion.form.title})
    with building(folder) as partial:
        files.rename(partial / "files")
        (partial / MANIFEST).write_text(json.dumps(asdict(record), indent=1))
    return record


class _NotWrittenError(Exception):
    """Leaves the folder that is being built, so that it is removed."""


def _expected_bytes(conversion: _Conversion) -> float:
    images, encoding = conversion.images, conversion.form.encoding
    per_image = {
        "original": 0.0,
        "raw": images.manifest.pixels_bytes_mean,
        "jpeg": images.manifest.jpeg_bytes_mean,
        "jpeg-reencoded": images.manifest.jpeg_bytes_mean,
    }
    return len(images) * per_image.get(encoding.mode, per_image["raw"])


def _need(size_bytes: float, cache: Path, what: str) -> None:
    """Raise PrepareError before anything is written if it would not fit."""
    free_bytes = shutil.disk_usage(cache).free
    if size_bytes > free_bytes:
        message = (
            f"{what} need about {size_bytes / _GIB:.1f} GiB and {cache} has {free_bytes / _GIB:.1f} GiB free; "
            "use --cache for a folder with more room, or --samples for fewer images"
        )
        raise PrepareError(message)
