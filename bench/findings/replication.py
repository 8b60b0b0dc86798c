"""Compare published figures with measured ones, and tell what each change of the set-up is worth."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from loaderbench.findings.comparison import Comparison, Ratio
from loaderbench.records.record import Record

Compared = Mapping[tuple[str, str], Comparison]
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Replication:
    """One contestant of a published comparison, beside its own measurement."""

    name: str
    title: str
    adapter: str
    images_per_s: tuple[float, ...]
    """Published, for each epoch; empty if only the size was published."""
    ratios: tuple[float, ...]
    """Published speed over the reference's, for each epoch that both have."""
    bytes_per_image: float | None
    """Published."""
    measured: Ratio | None
    """Measured, over the reference, both set up as published. None for the reference, and without a speed."""
    equal: Ratio | None
    """Measured after all changes to both."""
    stored_bytes: float | None
    """Measured bytes per image in the published format, without index and padding, which are small in a large set."""

    @property
    def ratio(self) -> float | None:
        """Geometric mean of the published ratios; None if no speed was published."""
        return geometric_mean(self.ratios) if self.ratios else None


@dataclass(frozen=True, kw_only=True)
class SetupEffect:
    """The effect of one difference between two contestants."""

    what: str
    before: str
    after: str
    """Titles of the two contestants."""
    comparison: Comparison | None
    """Of `after` with `before` in the same blocks; None without a common block."""
    bytes_before: float | None
    """Stored bytes per image, without index and padding."""
    bytes_after: float | None


def replications(campaign: Mapping[str, Any], compared: Compared, writes: Iterable[Record]) -> tuple[Replication, ...]:
    """Return the published figures beside the measured ones, in the order of the campaign.

    `campaign`: as `env.json` keeps it. `compared`: see `comparison.compare_all`.
    """
    told = campaign["published"]
    if not told:
        return ()
    figures, reference = told["contestants"], campaign["reference"]
    stored, contestants = stored_bytes_by_format(writes), _contestants(campaign)
    return tuple(
        Replication(
            name=name,
            title=contestants[name]["title"],
            adapter=contestants[name]["loader"],
            images_per_s=tuple(one["images_per_s"]),
            ratios=tuple(
                speed / of for speed, of in zip(one["images_per_s"], figures[reference]["images_per_s"], strict=False)
            ),
            bytes_per_image=one["size_gib"] * _GIB / told["images"] if one["size_gib"] else None,
            measured=_ratio(compared, name, reference),
            equal=_ratio(compared, _end(campaign["changes"], name), _end(campaign["changes"], reference)),
            stored_bytes=stored.get(contestants[name]["format"]),
        )
        for name, one in figures.items()
    )


def setup_effects(campaign: Mapping[str, Any], compared: Compared, writes: Iterable[Record]) -> tuple[SetupEffect, ...]:
    """Return the effect of each change of the set-up, in the order of the campaign."""
    stored, contestants = stored_bytes_by_format(writes), _contestants(campaign)
    return tuple(
        SetupEffect(
            what=change["what"],
            before=contestants[before]["title"],
            after=contestants[after]["title"],
            comparison=compared.get((after, before)),
            bytes_before=stored.get(contestants[before]["format"]),
            bytes_after=stored.get(contestants[after]["format"]),
        )
        for change in campaign["changes"]
        for before, after in [(change["from"], change["to"])]
    )


def _contestants(campaign: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {c["name"]: c for c in campaign["contestants"]}


def stored_bytes_by_format(writes: Iterable[Record]) -> dict[str, float]:
    """Return the mean stored bytes of an image in each format, without index and padding."""
    return {w.format: w.payload_bytes / w.samples for w in writes if w.payload_bytes and w.samples}


def _ratio(compared: Compared, one: str, other: str) -> Ratio | None:
    comparison = compared.get((one, other))
    return comparison.ratio if comparison else None


def _end(steps: Sequence[Mapping[str, str]], name: str) -> str:
    """Return the contestant to which the changes lead."""
    after = {step["from"]: step["to"] for step in steps}
    while name in after:
        name = after[name]
    return name
