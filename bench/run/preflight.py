"""Check before the long work that the machine has what a campaign needs; tell all that it lacks together."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loaderbench.bucket.client import SCHEME, S3Error
from loaderbench.campaign import registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.machine import home, open_files
from loaderbench.machine.disk import DiskSpaceError, need, obstacle
from loaderbench.machine.errors import FixableError
from loaderbench.machine.progress import Display
from loaderbench.machine.text import names, printable
from loaderbench.run import bucket_under_test, outcome
from loaderbench.trial import needs

_LEAST_BYTES = 16 << 20
"""Room for the raw times and the pictures of a campaign."""


def check_cache(campaign: Campaign, cache: Path) -> None:
    """Check what preparing a campaign's formats needs. Raises FixableError."""
    _refuse([*_cache(campaign, cache), *_open_files(campaign)])


def check(  # noqa: PLR0913, PLR0917 - all that a campaign writes
    campaign: Campaign,
    data: Any,
    cache: Path,
    results: Path,
    reports: Path,
    artifacts: str | None,
    display: Display,
) -> None:
    """Check what a whole campaign needs. Print which contestants cannot run here, whose rows will be *unavailable*.

    Raises FixableError if the campaign would have no answer.
    """
    shortages = _shared_memory(campaign)
    lacking = {name for contestants in shortages.values() for name in contestants}
    told = [f"{names(contestants)}: {why}" for why, contestants in shortages.items()]
    _refuse(
        [
            *_cache(campaign, cache),
            *_folder(results / campaign.name, "--results"),
            *_folder(reports / campaign.name, "--reports"),
            *_among_images(data, results, "--results"),
            *_among_images(data, reports, "--reports"),
            *_open_files(campaign),
            *_bucket(campaign, artifacts),
            *([] if outcome.answers(campaign, lacking) else told),
        ]
    )
    for line in told:
        display.say(line)


def _refuse(faults: list[str]) -> None:
    """Raise FixableError if there are faults."""
    if len(faults) == 1:
        raise FixableError(faults[0])
    if faults:
        raise FixableError("\n  ".join([f"{len(faults)} things are in the way:", *faults]))


def _folder(folder: Path, option: str, least_bytes: int = _LEAST_BYTES) -> Iterator[str]:
    """Yield why a folder cannot take `least_bytes`."""
    fix = f"use {option} DIR for another folder"
    if why := obstacle(folder):
        yield f"{why}; {fix}"
        return
    try:
        need(least_bytes, next(path for path in (folder, *folder.parents) if path.exists()), "its files", fix)
    except DiskSpaceError as error:
        yield str(error)


def _among_images(data: Any, folder: Path, option: str) -> Iterator[str]:
    """Yield why files of the harness would become images of the next run: a folder lies in that of the images."""
    if isinstance(data, str | Path) and data and not str(data).startswith(SCHEME):
        images = Path(data)
        if images.is_dir() and folder.resolve().is_relative_to(images.resolve()):
            yield (
                f"{printable(folder)} is among your images, {printable(images)}, which are only read; "
                f"use {option} DIR for another folder"
            )


def _cache(campaign: Campaign, cache: Path) -> Iterator[str]:
    """Yield why the cache cannot be used; a user without a home folder gets one there.

    How much room the formats need is checked when the images are known.
    """
    if faults := [*_folder(cache, "--cache", 0)]:
        yield from faults
        return
    home.settle(cache / "home")
    if linked := [form.title for form in campaign.selected_formats if form.mode == "original"]:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as folder:
            try:
                Path(folder, "link").symlink_to(folder)
            except OSError as error:
                why = os.strerror(error.errno or 0).lower()
                yield (
                    f"{cache} is on a file system without symbolic links ({why}), of which {names(linked)} consists; "
                    "use --cache DIR on another one"
                )


def _open_files(campaign: Campaign) -> Iterator[str]:
    """Yield why the files cannot be opened that a trial opens."""
    scaled = campaign.scaling.workers if campaign.scaling else ()
    workers, limit = max(campaign.work.count_workers(), *scaled, 1), open_files.raise_limit()
    if limit < (needed := needs.open_files(workers)):
        yield (
            f"a process may have {limit} files open, and a trial with --workers {workers} needs about {needed}; "
            f"use ulimit -n {needed}, docker run --ulimit nofile={needed}, or fewer --workers"
        )


def _bucket(campaign: Campaign, artifacts: str | None) -> Iterator[str]:
    try:
        bucket_under_test.check(campaign, artifacts)
    except S3Error as error:
        yield str(error)


def _shared_memory(campaign: Campaign) -> dict[str, list[str]]:
    """Return the names of the contestants for which /dev/shm is too small, by the reason."""
    found: dict[str, list[str]] = defaultdict(list)
    for contestant in campaign.competing:
        if registry.adapters("loader")[contestant.loader].why_unavailable():
            continue
        work = campaign.work_on(campaign.work.epoch_images, 1, contestant)
        if why := needs.shared_memory_shortage(contestant.loader, work, contestant.options, campaign.work.jobs):
            found[why].append(contestant.name)
    return found
