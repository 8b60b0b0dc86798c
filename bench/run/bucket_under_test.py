"""Run trials whose data is in a bucket, each behind a metered network and with an empty folder for what it fetches."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from time import perf_counter_ns
from typing import Any

import numpy as np

from loaderbench import trial
from loaderbench.api import Artifact
from loaderbench.bucket import loopback, metered_network, rclone
from loaderbench.bucket.client import Location, S3Error
from loaderbench.bucket.repository import Repository
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.schema import Stream
from loaderbench.formats import Prepared
from loaderbench.machine import disk, process
from loaderbench.machine.files import size_bytes
from loaderbench.machine.progress import Display
from loaderbench.records.record import Transport
from loaderbench.records.timeline import Timeline
from loaderbench.trial import TrialSpec

_MIB = 1 << 20
ON_LOOPBACK = "on loopback"
"""Recorded instead of a URL where the harness serves the bucket itself."""
_BUCKET = "loaderbench"
_SCRATCH = "scratch"
_LOOKS_EVERY_S = 0.1
_PAST_THE_PROXY = "data went past the metering proxy, as many programs do for a localhost or loopback endpoint"


@dataclass(frozen=True)
class Place:
    """A bucket that holds the formats of a campaign's trials."""

    settings: Stream
    location: Location
    scratch: Path
    """Folder for what trials fetch."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Variables of a process that reads from the bucket."""

    def run(self, transport: Transport, spec: TrialSpec, log: Path, limit_s: float) -> dict[str, Any]:
        """Run a trial with its data in the bucket and return its columns of `Record`.

        Each trial has a proxy that counts and limits what it receives, and an empty folder, which is removed at the
        end. `limit_s`: for the download and for the trial.
        """
        rate_mib_per_s = self.settings.rate_mib_per_s
        rate_bytes_per_s = rate_mib_per_s and rate_mib_per_s * _MIB
        hosts = {loopback.METERED_HOST: loopback.HOST}
        link = metered_network.Link(rate_bytes_per_s, self.settings.latency_ms / 1000, hosts)
        own = self.scratch / "trial"
        own.mkdir()
        try:
            with metered_network.proxy(link) as url:
                begun_ns = perf_counter_ns()
                proxied = {"HTTPS_PROXY": url, "https_proxy": url, "NO_PROXY": "", "no_proxy": ""}
                environment = {**self.environment, **proxied}
                result = self._download(spec, own, log, limit_s, environment) if transport == "download" else {}
                least_bytes = max(size_bytes(own), 1)
                if result.get("status", "ok") == "ok":
                    there = replace(spec, artifact=self._artifact(transport, spec, own))
                    with _watched(own, meanwhile=transport != "download") as most_mib:
                        result |= trial.measure(there, log, limit_s, environment=environment)
                    end_mib = _size_mib(own)
                    result |= {"cache_end_mib": end_mib, "cache_peak_mib": max(most_mib(), end_mib)}
        finally:
            shutil.rmtree(own)
        if result["status"] != "ok":
            return {**result, "reason": "; ".join(filter(None, [result["reason"], link.trouble]))}
        if link.received_bytes() < least_bytes:
            reason = f"{_PAST_THE_PROXY}: {link.received_bytes():,} of at least {least_bytes:,} bytes came through it"
            return {"status": "failed", "reason": reason}
        return {**result, "network_bytes": link.received_bytes(), **_epochs(link, spec.times, begun_ns)}

    def _download(
        self, spec: TrialSpec, own: Path, log: Path, limit_s: float, environment: Mapping[str, str]
    ) -> dict[str, Any]:
        task = {"location": str(self.location), "name": _name(spec), "out": str(own)}
        result = process.run_child("loaderbench.bucket.tasks.download", task, log, limit_s, environment=environment)
        return result if result["status"] == "ok" else {**result, "reason": f"download: {result['reason']}"}

    def _artifact(self, transport: Transport, spec: TrialSpec, own: Path) -> Artifact:
        """Return the artifact as the loader finds it: downloaded to `own`, or in the bucket with its cache in `own`."""
        if transport == "download":
            return replace(spec.artifact, path=str(own))
        bound_mib = self.settings.cache_mib if transport == "bounded" else None
        url = f"{self.location / _name(spec)}files"
        cache_bytes = None if bound_mib is None else int(bound_mib * _MIB)
        return replace(spec.artifact, path=url, cache=str(own), cache_bytes=cache_bytes)


def _name(spec: TrialSpec) -> str:
    """Return the name of a trial's format in the cache; it has the same in a bucket."""
    return Path(spec.artifact.path).parent.name


def check(campaign: Campaign, artifacts: str | None) -> None:
    """Raise S3Error, before anything is prepared, if the bucket on loopback needs a program that is missing."""
    if artifacts is None and any(campaign.transports.values()):
        for name in ("setpriv", "rclone", "openssl"):
            rclone.program(name)


@contextmanager
def place(
    campaign: Campaign, prepared: Prepared, artifacts: str | None, folder: Path, display: Display
) -> Iterator[Place | None]:
    """Give a bucket with the formats that the campaign reads from one, until the block ends; None if it reads none.

    `artifacts`: URL below which they are published; None: start a server on loopback and fill it. `folder`: the
    campaign's. Raises S3Error.
    """
    wanted = {name for names in campaign.transports.values() for name in names}
    formats = {c.format for c in campaign.contestants if c.name in wanted} & prepared.artifacts.keys()
    folders = [Path(prepared.artifacts[name].path).parent for name in sorted(formats)]
    if campaign.stream is None or not folders:
        yield None
        return
    clear(folder)
    scratch = folder / _SCRATCH
    scratch.mkdir(mode=0o700)  # the images may be private
    try:
        if artifacts:
            yield _published(campaign.stream, artifacts, folders, scratch)
        else:
            with _served(campaign.stream, folders, scratch, display) as here:
                yield here
    finally:
        clear(folder)


def clear(folder: Path) -> None:
    """Remove the files of `place` from a campaign's folder, where a kill leaves them."""
    shutil.rmtree(folder / _SCRATCH, ignore_errors=True)


def _published(settings: Stream, artifacts: str, folders: Sequence[Path], scratch: Path) -> Place:
    repository = Repository(artifacts)
    if not repository.endpoint.startswith("https://"):
        raise S3Error(
            f"{repository.endpoint} is plain http: not every loader reads it, and its bytes cannot be counted. "
            "Omit --artifacts: the harness then starts a server on loopback that speaks https"
        )
    if lacking := [folder.name for folder in folders if not repository.has(folder.name)]:
        raise S3Error(repository.lacks(lacking[0]))
    return Place(settings, repository.location, scratch)


@contextmanager
def _served(settings: Stream, folders: Sequence[Path], scratch: Path, display: Display) -> Iterator[Place]:
    """Serve the formats on loopback, after publishing them there."""
    sizes_bytes = [size_bytes(folder) for folder in folders]
    what = "the bucket on loopback and what one trial fetches"
    disk.need(sum(sizes_bytes) + max(sizes_bytes), scratch, what, "use --results for another disk, or --artifacts")
    buckets, certificates = scratch / "buckets", scratch / "certificates"
    (buckets / _BUCKET).mkdir(parents=True)
    certificates.mkdir()
    loopback.certify(certificates)
    with loopback.serve(buckets, certificates=certificates) as endpoint:
        location, filling = Location(_BUCKET, ""), loopback.environment(endpoint, certificates)
        spec = {"folders": list(map(str, folders)), "to": str(location)}
        with display.stage("filling a bucket on loopback", None):
            done = process.run_child(
                "loaderbench.bucket.tasks.publish", spec, scratch / "publish.log", environment=filling
            )
        if done["status"] != "ok":
            raise S3Error(f"the bucket on loopback could not be filled: {done['reason']}")
    with loopback.serve(buckets, certificates=certificates, read_only=True) as endpoint:
        metered = loopback.environment(loopback.metered(endpoint), certificates)
        yield Place(settings, location, scratch, metered)


def network_s(settings: Stream, transport: Transport, size_bytes: int) -> float:
    """Return how long the network takes at its limit for all that a trial fetches of a format.

    With a bounded cache a trial may fetch all of it in each epoch.
    """
    fetches = settings.epochs if transport == "bounded" else 1
    return fetches * size_bytes / (settings.rate_mib_per_s * _MIB) if settings.rate_mib_per_s else 0.0


def limits(settings: Stream, transport: Transport) -> dict[str, Any]:
    """Return the columns of `Record` with the limits of a trial's network and cache."""
    return {
        "transport": transport,
        "network_rate_mib_per_s": settings.rate_mib_per_s,
        "network_latency_ms": settings.latency_ms,
        "cache_mib": settings.cache_mib if transport == "bounded" else None,
    }


def _epochs(link: metered_network.Link, times: Path, begun_ns: int) -> dict[str, Any]:
    """Return the columns of `Record` on the first two epochs and the time before them.

    `times`: the trial's raw times. `begun_ns`: when it began, by `perf_counter_ns`, a clock that all processes share.
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
    """Give a function that returns the largest size of a folder so far.

    `meanwhile`: look at it repeatedly until the block ends. Not for a download: its folder does not grow, and looking
    at many files would slow the trial.
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
