"""Find the contestants that no other one beats in both speed and stored bytes, for images of each size."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from loaderbench.findings.findings import Analysis, ContestantSummary
from loaderbench.findings.replication import stored_bytes_by_format
from loaderbench.records.record import Record


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """What is worth its bytes among the contestants that crop images of one size."""

    images: str
    """Which images, for example `up to 256 px`."""
    contestants: tuple[ContestantSummary, ...]
    """From the fewest bytes and the lowest speed up."""


def bytes_per_image(analysis: Analysis) -> dict[str, float]:
    """Return the mean stored bytes of an image by contestant: without index and padding, where that is known."""
    stored = stored_bytes_by_format(analysis.writes)
    known = ((s.name, stored.get(s.format, s.medians.get("bytes_per_image"))) for s in analysis.measured)
    return {name: size for name, size in known if size is not None}


def frontiers(analysis: Analysis) -> tuple[Frontier, ...]:
    """Return the frontier of each size of images that at least two contestants crop, the fewest bytes first.

    Contestants count that do the requested work on images of any size and quality, within the machine limit.
    """
    sizes, images = bytes_per_image(analysis), {w.format: _images(w) for w in analysis.writes}
    groups: dict[str, list[ContestantSummary]] = defaultdict(list)
    for s in analysis.measured:
        if s.name in sizes and s.format in images and not s.apart and not s.beyond_limit:
            groups[images[s.format]].append(s)
    found = [Frontier(images=name, contestants=_unbeaten(among, sizes)) for name, among in groups.items() if among[1:]]
    return tuple(sorted(found, key=lambda one: sizes[one.contestants[0].name]))


def _images(written: Record) -> str:
    encoding = json.loads(written.options)
    if encoding["mode"] == "original":
        return "originals"
    return f"up to {encoding['max_side']} px" if encoding["max_side"] else "of full size"


def _unbeaten(among: list[ContestantSummary], sizes: Mapping[str, float]) -> tuple[ContestantSummary, ...]:
    found: list[ContestantSummary] = []
    for s in sorted(among, key=lambda s: (sizes[s.name], -s.median)):
        if not found or s.median > found[-1].median:
            found.append(s)
    return tuple(found)
