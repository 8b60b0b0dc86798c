"""Write canonical images in the campaign's formats, each once, and keep them in the cache."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from loaderbench.api import Artifact
from loaderbench.bucket.repository import MANIFEST, Repository
from loaderbench.campaign import registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.schema import Format
from loaderbench.formats.conversion import Conversion
from loaderbench.formats.forks import Forks
from loaderbench.formats.modes import bytes_per_image
from loaderbench.images import CanonicalImages, CanonicalSettings, ImageTree, canonical
from loaderbench.machine.disk import FEWER_IMAGES, need, size
from loaderbench.machine.errors import FixableError
from loaderbench.machine.files import StoppedError, begun_bytes, building, forget_earlier, pulled
from loaderbench.machine.progress import Display
from loaderbench.records.record import SCHEMA_VERSION, Record, now

_FULL_BYTES = 16 << 20
"""If a conversion failed with less than this free on the disk, the full disk is the likely reason."""


class PrepareError(FixableError):
    """Formats that cannot be prepared."""


@dataclass(frozen=True)
class Job:
    """One format to write."""

    form: Format
    images: CanonicalImages
    workers: int
    cache: Path

    @cached_property
    def adapter(self) -> registry.Adapter:
        """The writer."""
        return registry.adapters("writer")[self.form.writer]

    @cached_property
    def content(self) -> dict[str, Any]:
        """Columns of `Record` that describe what is written, wherever it is written."""
        return {
            "options": json.dumps(asdict(self.form.encoding), sort_keys=True),
            "versions": self.adapter.versions(),
            "samples": len(self.images),
        }

    @cached_property
    def folder(self) -> Path:
        """Where the cache keeps the format: "name-key-code".

        The key changes with the images and the encoding; the code with the columns of records, the library's version
        and the adapter. They are the same on every machine, unless the format is links to files of this machine.
        """
        manifest = self.images.manifest
        links = self.form.encoding.mode == "original"
        images = str(self.images.folder.resolve()) if links else [manifest.digest, manifest.classes]
        made_by = [SCHEMA_VERSION, self.content["versions"], self.adapter.code_digest()]
        parts = json.dumps([images, self.content["options"]]), json.dumps(made_by)
        key, code = (hashlib.sha256(part.encode()).hexdigest() for part in parts)
        return self.cache / "artifacts" / f"{self.form.name}-{key[:16]}-{code[:8]}"

    @property
    def to_write(self) -> bool:
        """Whether the cache lacks the format and its library is installed."""
        return not self.folder.exists() and not self.adapter.why_unavailable()

    @property
    def expected_bytes(self) -> int:
        """Estimate of the format's size, without what its library adds, such as FFCV's padding."""
        return round(len(self.images) * bytes_per_image(self.form.mode, self.images.manifest))

    def record(self, started_at: str, **outcome: Any) -> Record:
        """Return the row of this format. `outcome`: status, reason and what else `conversion.run` returns."""
        return Record(
            trial=f"write/{self.form.name}",
            kind="write",
            started_at=started_at,
            title=self.form.title,
            adapter=self.form.writer,
            format=self.form.name,
            workers=self.workers,
            **self.content,
            **outcome,
        )

    def artifact(self, record: Record) -> Artifact | None:
        """Return the format for loaders; None if it could not be written."""
        if record.size_bytes is None or record.payload_bytes is None:
            return None
        return Artifact(
            format=self.form.name,
            path=str(self.folder / "files"),
            samples=len(self.images),
            classes=len(self.images.classes),
            class_names=self.images.classes,
            label_counts=self.images.label_counts,
            label_sum=sum(label * count for label, count in enumerate(self.images.label_counts)),
            size_bytes=record.size_bytes,
            payload_bytes=record.payload_bytes,
            encoding=self.form.encoding,
        )


def canonical_settings(campaign: Campaign, form: Format) -> CanonicalSettings:
    """Return which canonical images a format stores."""
    return CanonicalSettings(campaign.data.samples, campaign.data.seed, form.max_side, form.quality)


def jobs(campaign: Campaign, tree: ImageTree, cache: Path, display: Display, *, strict: bool) -> list[Job]:
    """Return a job for each selected format of the campaign, and make the canonical images that the cache lacks.

    Raises SourceError or DiskSpaceError.
    """
    workers = campaign.work.count_workers()
    needed = {form.name: canonical_settings(campaign, form) for form in campaign.selected_formats}
    images = {each: canonical(tree, each, cache, display, strict=strict) for each in dict.fromkeys(needed.values())}
    return [Job(form, images[needed[form.name]], workers, cache) for form in campaign.selected_formats]


def write(jobs: Sequence[Job], cache: Path, display: Display, artifacts: str | None = None) -> list[Record]:
    """Return a row for each format, and write the formats that the cache lacks.

    `artifacts`: URL of a `bucket.repository`; formats that it has are downloaded instead of written. Raises S3Error,
    PrepareError or DiskSpaceError.
    """
    lacking = [job for job in jobs if job.to_write]
    for job in lacking:
        forget_earlier(job.folder)
    lacking_bytes = sum(job.expected_bytes - begun_bytes(job.folder) for job in lacking)
    need(lacking_bytes, cache, f"{len(lacking)} formats", FEWER_IMAGES)
    repository = Repository(artifacts) if artifacts and lacking else None
    with Forks() as forks:
        return [_record(job, display, repository, forks) for job in jobs]


def _record(job: Job, display: Display, repository: Repository | None, forks: Forks) -> Record:
    """Return the row of one format, and write or download the format if the cache lacks it."""
    if reason := job.adapter.why_unavailable():
        return job.record(now(), status="unavailable", reason=reason)
    if job.folder.exists():
        return replace(Record(**json.loads((job.folder / MANIFEST).read_text())), title=job.form.title)
    if repository and (record := _download(job, display, repository, forks)):
        return record
    if pulled(job.folder).exists():
        shutil.rmtree(pulled(job.folder))  # it is written here after all
    return _write(job, display, forks)


def _download(job: Job, display: Display, repository: Repository, forks: Forks) -> Record | None:
    """Download the format, read it back, and return its row; None if the repository lacks it.

    The row has no times, because they would be another machine's. Raises PrepareError.
    """
    files = pulled(job.folder)
    if job.form.encoding.mode == "original":  # links to files of this machine
        return None
    if (stored := repository.pull(job.folder.name, files, display)) is None:
        return None
    expected = job.content | {"schema": SCHEMA_VERSION}
    if any(stored.get(column) != value for column, value in expected.items()):
        raise _refused(job, repository, "its manifest describes another format than its name")
    display.say(f"reading back {job.form.title} ...")
    started_at, log = now(), job.cache / f"read-{job.form.name}.log"
    spec = Conversion(job.form.writer, job.images, job.form.encoding, job.workers, files, is_written=True)
    outcome = forks.run(spec, log)
    if outcome["status"] != "ok":
        raise _refused(job, repository, f"{outcome['reason']}; see {log}")
    record = job.record(started_at, **outcome)
    with building(job.folder) as partial:
        files.rename(partial / "files")
        (partial / MANIFEST).write_text(json.dumps(asdict(record), indent=1))
    return record


def _refused(job: Job, repository: Repository, why: str) -> PrepareError:
    """Remove what was downloaded of a format, and return the error."""
    shutil.rmtree(pulled(job.folder))
    return PrepareError(
        f"{repository.location / job.folder.name} is refused: {why}. "
        "Remove it and publish it again, or omit --artifacts"
    )


class _NotWrittenError(Exception):
    """Makes `building` remove the folder."""


def _write(job: Job, display: Display, forks: Forks) -> Record:
    """Write the format and return its row, also if that fails."""
    resumes = registry.writer(job.form.writer).resumes
    if left_bytes := begun_bytes(job.folder):
        how = "resumes" if resumes else "restarts from scratch, because its library cannot resume"
        display.say(f"{job.form.title} was stopped at {size(left_bytes)}; it {how}")
    log = job.cache / f"write-{job.form.name}.log"
    started_at, outcome = now(), {"status": "failed", "reason": ""}
    with suppress(_NotWrittenError, StoppedError), building(job.folder, goes_on=resumes) as partial:
        outcome = _convert(job, partial, log, display, forks)
        if outcome["status"] != "ok":
            kept = resumes and outcome["status"] == "failed"  # and not invalid
            outcome["reason"] = _full(partial, job.cache) + f"{outcome['reason']}; see {log}"
            if kept:
                outcome["reason"] += "; what is complete is kept, and the same command resumes"
                raise StoppedError
            raise _NotWrittenError
        (partial / MANIFEST).write_text(json.dumps(asdict(job.record(started_at, **outcome)), indent=1))
    return job.record(started_at, **outcome)


def _full(partial: Path, cache: Path) -> str:
    """Return the start of a failure's reason if the disk is full, otherwise an empty string."""
    free_bytes = shutil.disk_usage(partial).free
    return f"{cache} is full ({free_bytes >> 20} MiB left); " if free_bytes < _FULL_BYTES else ""


def _convert(job: Job, partial: Path, log: Path, display: Display, forks: Forks) -> dict[str, Any]:
    """Let a process of its own write the format into `partial/files`, and return its report.

    Nothing watches it, because its time is reported. The library's own progress goes to the log.
    """
    files = partial / "files"
    files.mkdir(exist_ok=True)
    spec = Conversion(job.form.writer, job.images, job.form.encoding, job.workers, files)
    display.say(f"writing {job.form.title} ...; the library's own progress is in {log}")
    return forks.run(spec, log)
