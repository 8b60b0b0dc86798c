"""Which trials, in which order? Pure functions of the campaign and of the rows that are there."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import noise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.config import Campaign, Contestant
    from bench.records import Cache, Record


@dataclass(frozen=True)
class Trial:
    """One contestant, once."""

    block: int
    attempt: int
    position: int
    contestant: Contestant
    cache: Cache

    @property
    def name(self) -> str:
        """Unique in the campaign."""
        return f"{prefix(self.block, self.attempt)}/{self.contestant.name}{'/cold' if self.cache == 'cold' else ''}"


def prefix(block: int, attempt: int) -> str:
    """Return what the names of an attempt's rows begin with: the block, and which attempt if not the first."""
    return str(block) if attempt == 1 else f"{block}.{attempt}"


def trials(campaign: Campaign, block: int, attempt: int = 1) -> tuple[Trial, ...]:
    """Every contestant once per cache state, in an order drawn anew for each attempt, so that drift hits all alike."""
    order = [(contestant, cache) for contestant in campaign.contestants for cache in campaign.caches_of(contestant)]
    random.Random(f"{campaign.timing.seed}/{prefix(block, attempt)}").shuffle(order)
    return tuple(Trial(block, attempt, place, *pair) for place, pair in enumerate(order, 1))


def missing(campaign: Campaign, measured: Mapping[str, Record]) -> tuple[Trial, ...]:
    """Return what the first unfinished block lacks; nothing if all blocks are done. `measured`: rows by trial.

    A block is done when an attempt at it was quiet, or when it has been run again as often as the campaign allows.
    """
    for block in range(1, campaign.timing.blocks + 1):
        for attempt in range(1, campaign.timing.reruns + 2):
            planned = trials(campaign, block, attempt)
            if lacking := tuple(trial for trial in planned if trial.name not in measured):
                return lacking
            if not any(noise.disturbances(measured[trial.name]) for trial in planned):
                break
    return ()
