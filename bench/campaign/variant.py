"""The variants in which a contestant runs in each block: page cache, settings, consumer, transport."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

from loaderbench.records.record import STREAM_TABLES, TRANSPORTS, Cache, Consumer, Record, Track, Transport

_LABELS = {
    "cold": "cold cache",
    "best": "tuned",
    "paced": "emulated accelerator",
    "train": "training",
    "lightning": "training under Lightning",
    **TRANSPORTS,
}


@dataclass(frozen=True)
class Variant:
    """One way to run a contestant."""

    cache: Cache = "warm"
    track: Track = "same"
    """`best`: at the best settings that the search found. `scaling`: with another number of workers."""
    consumer: Consumer = "hungry"
    transport: Transport = ""
    """How the data comes from a bucket; empty if it is on this machine."""
    workers: int = 0
    """On the track `scaling`: the number of workers. 0: the campaign's."""

    @classmethod
    def of(cls, record: Record) -> Variant:
        """Return the variant of a row. Rows leave values empty that do not apply, or that earlier versions lacked."""
        values = {
            "cache": "" if record.cache == "limited" else record.cache,  # so are all trials of its campaign
            "track": record.track,
            "consumer": record.consumer,
            "transport": record.transport,
        }
        workers = (record.workers or 0) if record.track == "scaling" else 0
        return cls(**{name: value for name, value in values.items() if value}, workers=workers)  # type: ignore[arg-type]

    @property
    def key(self) -> str:
        """The values that differ from the main variant's, separated by `/`: the end of a trial's name."""
        return "/".join(str(value) for value, main in zip(astuple(self), astuple(MAIN), strict=True) if value != main)

    @property
    def label(self) -> str:
        """The same in words; empty for the main variant."""
        if self.workers:
            number = f"{self.workers} worker{'' if self.workers == 1 else 's'}"
            return ", ".join(filter(None, [_LABELS.get(self.consumer), number]))
        return ", ".join(_LABELS.get(value, value) for value in self.key.split("/") if value)

    def titled(self, title: str) -> str:
        """Return a contestant's title followed by the label."""
        return ", ".join(filter(None, [title, self.label]))


MAIN = Variant()
"""Warm page cache, the campaign's settings, drained as fast as possible, data on this machine: what is ranked."""


def variants(campaign: Mapping[str, Any]) -> dict[Variant, list[str]]:
    """Return the contestants that run in each variant, once in every block, in the order of the campaign.

    `campaign`: as `env.json` keeps it, also of an earlier version.
    """
    names = [contestant["name"] for contestant in campaign["contestants"]]
    stream, scaling = campaign.get("stream") or {}, campaign.get("scaling") or {}
    by_workers = Variant(track="scaling", consumer=scaling.get("consumer", MAIN.consumer))  # the key came in schema 7
    chosen: dict[Variant, Collection[str]] = {
        MAIN: names,
        Variant(cache="cold"): campaign["cold"],
        Variant(track="best"): campaign["best"],
        **{Variant(consumer=c): f["contestants"] for c, f in campaign.get("consumers", {}).items() if f},
        **{replace(by_workers, workers=n): scaling["contestants"] for n in scaling.get("workers", ())},
        **{Variant(transport=t): stream.get(table, ()) for t, table in STREAM_TABLES.items()},
    }
    return {variant: [name for name in names if name in among] for variant, among in chosen.items() if among}
