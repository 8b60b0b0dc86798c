"""How does a trial run whose data is in a bucket? With a network of its own, which counts, and a folder that goes."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from loaderbench import trial
from loaderbench.api import Artifact
from loaderbench.bucket import loopback
from loaderbench.bucket import metered_network as network
from loaderbench.bucket.client import Location, S3Error
from loaderbench.bucket.repository import Repository
from loaderbench.machine import process
from loaderbench.machine.files import size_bytes
from loaderbench.records.timeline import Timeline
from loaderbench.trial import TrialSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loaderbench.campaign.campaign import Campaign
    from loaderbench.campaign.schema import Stream
    from loaderbench.formats import Prepared
    from loaderbench.machine.progress import Display
    from loaderbench.records.record import Transport

_MIB = 1 << 20
ON_LOOPBACK = "on loopback"
"""In place of a URL, where the bucket is one of this machine's own."""
_BUCKET = "loaderbench"
_SCRATCH = "scratch"
_LOOKS_EVERY_S = 0.1


@dataclass(frozen=True)
class Place:
    """A bucket with the formats that a campaign wants from one."""

    settings: Stream
    location: Location
    scratch: Path
    """A folder for what trials fetch."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """The variables of a process that reads from it."""

    def run(self, transport: Transport, spec: TrialSpec, log: Path, limit_s: float) -> dict[str, Any]:
        """Run a trial as `machine.process` does, with its data in the bucket, and return its columns of `Record`.

        Each gets a network of its own, its limits and counts with it, and an empty folder, which is removed.
        `limit_s`: for the download and the trial each.
        """
        rate_mib_per_s = self.settings.rate_mib_per_s
        link = network.Link(rate_mib_per_s and rate_mib_per_s * _MIB, self.settings.latency_ms / 1000)
        own = self.scratch / "trial"
        own.mkdir()
        try:
            with network.proxy(link) as url:
                begun_ns = perf_counter_ns()
                tunnelled = {"HTTPS_PROXY": url, "https_proxy": url, "NO_PROXY": "", "no_proxy": ""}
                environment = {**self.environment, **tunnelled}
                download = {"location": str(self.location), "name": _name(spec), "out": str(own)}
                result: dict[str, Any] = {}
                if transport == "download":
                    task = "loaderbench.bucket.tasks.download"
                    result = process.run_child(task, download, log, limit_s, environment=environment)
                    if result["status"] != "ok":
                        result["reason"] = f"download: {result['reason']}"
                if result.get("status", "ok") == "ok":
                    there = replace(spec, artifact=self._there(transport, spec, own))
                    with _watched(own, meanwhile=transport != "download") as most_mib:
                        result |= trial.measure(there, log, limit_s, environment=environment)
                    end_mib = _size_mib(own)
                    result |= {"cache_end_mib": end_mib, "cache_peak_mib": max(most_mib(), end_mib)}
        finally:
            shutil.rmtree(own)
        if result["status"] != "ok":
            return {**result, "reason": "; ".join(filter(None, [result["reason"], link.trouble]))}
        return {**result, "network_bytes": link.received_bytes(), **_epochs(link, spec.times, begun_ns)}

    def _there(self, transport: Transport, spec: TrialSpec, own: Path) -> Artifact:
        """Return the artifact as the loader finds it: downloaded to `own`, or in the bucket with its cache there."""
        if transport == "download":
            return replace(spec.artifact, path=str(own))
        bound_mib = self.settings.cache_mib if transport == "bounded" else None
        url = f"{self.location / _name(spec)}files"
        cache_bytes = None if bound_mib is None else int(bound_mib * _MIB)
        return replace(spec.artifact, path=url, cache=str(own), cache_bytes=cache_bytes)


def _name(spec: TrialSpec) -> str:
    """Return a format's name in the cache, which it has in a bucket too."""
    return Path(spec.artifact.path).parent.name


def check(campaign: Campaign, artifacts: str | None) -> None:
    """Raise S3Error, before anything is prepared, if a bucket on loopback is wanted and a program for it is missing."""
    if artifacts is None and any(campaign.transports.values()):
        for name in ("setpriv", "rclone", "openssl"):
            loopback.program(name)


@contextmanager
def place(
    campaign: Campaign, prepared: Prepared, artifacts: str | None, folder: Path, display: Display
) -> Iterator[Place | None]:
    """Make the formats that the campaign wants from a bucket ready in one, until the block ends; None if it wants none.

    `artifacts`: where they are published. None: a server on loopback is started and filled. `folder`: the campaign's.
    Raises SourceError.
    """
    wanted = {name for names in campaign.transports.values() for name in names}
    formats = {c.format for c in campaign.contestants if c.name in wanted} & prepared.artifacts.keys()
    folders = [Path(prepared.artifacts[name].path).parent for name in sorted(formats)]
    if campaign.stream is None or not folders:
        yield None
        return
    clear(folder)
    scratch = folder / _SCRATCH
    scratch.mkdir()
    try:
        if artifacts:
            yield _published(campaign.stream, artifacts, folders, scratch)
        else:
            with _served(campaign.stream, folders, scratch, display) as here:
                yield here
    finally:
        clear(folder)


def clear(folder: Path) -> None:
    """Remove what `place` has put into a campaign's folder; a kill leaves it there."""
    shutil.rmtree(folder / _SCRATCH, ignore_errors=True)


def _published(settings: Stream, artifacts: str, folders: Sequence[Path], scratch: Path) -> Place:
    repository = Repository(artifacts)
    if not repository.endpoint.startswith("https://"):
        raise S3Error(
            f"{repository.endpoint} is plain http, which not every loader reads, and whose bytes are not counted; "
            "leave out --artifacts, and a server on loopback that speaks https is started"
        )
    if lacking := [folder.name for folder in folders if not repository.has(folder.name)]:
        raise S3Error(repository.lacks(lacking[0]))
    return Place(settings, repository.location, scratch)


@contextmanager
def _served(settings: Stream, folders: Sequence[Path], scratch: Path, display: Display) -> Iterator[Place]:
    """Serve the formats on loopback. They are put there as `loaderbench publish` does it."""
    _need_room(folders, scratch)
    buckets, certificates = scratch / "buckets", scratch / "certificates"
    (buckets / _BUCKET).mkdir(parents=True)
    certificates.mkdir()
    loopback.certify(certificates)
    with loopback.serve(buckets, certificates=certificates) as endpoint:
        here = Place(settings, Location(_BUCKET, ""), scratch, loopback.environment(endpoint, certificates))
        spec = {"folders": list(map(str, folders)), "to": str(here.location)}
        with display.stage("filling a bucket on loopback", None):
            done = process.run_child(
                "loaderbench.bucket.tasks.publish", spec, scratch / "publish.log", environment=here.environment
            )
        if done["status"] != "ok":
            raise S3Error(f"the bucket on loopback could not be filled: {done['reason']}")
        yield here


def _need_room(folders: Sequence[Path], scratch: Path) -> None:
    """Raise S3Error if the disk has no room for the formats in the bucket and what one trial fetches beside them."""
    sizes_mib = [_size_mib(folder) for folder in folders]
    need_mib, free_mib = sum(sizes_mib) + max(sizes_mib), shutil.disk_usage(scratch).free / _MIB
    if need_mib > free_mib:
        raise S3Error(
            f"the bucket on loopback and what a trial fetches need {need_mib:,.0f} MiB and {scratch} has "
            f"{free_mib:,.0f} MiB free; use --results for a folder with more room, or --artifacts for another bucket"
        )


def network_s(settings: Stream, transport: Transport, size_bytes: int) -> float:
    """Return how long the network takes at its limit for all that a trial fetches of a format.

    With a bounded cache that is all of it in each epoch, which is the most.
    """
    fetches = settings.epochs if transport == "bounded" else 1
    return fetches * size_bytes / (settings.rate_mib_per_s * _MIB) if settings.rate_mib_per_s else 0.0


def limits(settings: Stream, transport: Transport) -> dict[str, Any]:
    """Return the columns of `Record` that tell under which limits a trial runs."""
    return {
        "transport": transport,
        "network_rate_mib_per_s": settings.rate_mib_per_s,
        "network_latency_ms": settings.latency_ms,
        "cache_mib": settings.cache_mib if transport == "bounded" else None,
    }


def _epochs(link: network.Link, times: Path, begun_ns: int) -> dict[str, Any]:
    """Return what follows of the first two epochs, and of what came before, from the trial's times and the network's.

    `begun_ns`: when it began, by the clock `perf_counter_ns`, which all processes of a machine share.
    """
    timeline = Timeline.load(times)
    with np.load(times) as kept:
        first_asked_ns = int(kept["first_asked_ns"][0])
    exits_ns = first_asked_ns + np.array(timeline.exits_ns)
    first, second = (int(exits_ns[e - 1]) for e in [*timeline.epochs, len(exits_ns)][1:3])
    received = [link.received_bytes(until_ns) for until_ns in (first, second)]
    return {
        "until_asked_s": (first_asked_ns - begun_ns) / 1e9,
        "epoch2_s": (second - first) / 1e9,
        "network_epoch1_bytes": received[0],
        "network_epoch2_bytes": received[1] - received[0],
    }


@contextmanager
def _watched(folder: Path, *, meanwhile: bool) -> Iterator[Callable[[], float]]:
    """Look at a folder; call what is given for its largest size so far.

    `meanwhile`: look again and again, until the block ends. Not for what a download has filled: that does not grow, and
    may be so many files that looking at them costs the trial.
    """
    largest_mib, over = _size_mib(folder), Event()

    def look() -> None:
        nonlocal largest_mib
        while not over.wait(_LOOKS_EVERY_S):
            largest_mib = max(largest_mib, _size_mib(folder))

    thread = Thread(target=look)
    if meanwhile:
        thread.start()
    try:
        yield lambda: largest_mib
    finally:
        over.set()
        if meanwhile:
            thread.join()


def _size_mib(folder: Path) -> float:
    return size_bytes(folder) / _MIB
