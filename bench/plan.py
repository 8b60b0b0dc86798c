"""Which trials, in which order? A pure function of the campaign."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.config import Campaign, Contestant


@dataclass(frozen=True)
class Trial:
    """One contestant, once."""

    block: int
    position: int
    contestant: Contestant

    @property
    def name(self) -> str:
        """Unique in the campaign."""
        return f"{self.block}/{self.contestant.name}"


def trials(campaign: Campaign) -> tuple[Trial, ...]:
    """Every contestant once per block, in an order drawn anew for each block, so that drift hits all alike."""
    planned: list[Trial] = []
    for block in range(1, campaign.timing.blocks + 1):
        order = list(campaign.contestants)
        random.Random(f"{campaign.timing.seed}/{block}").shuffle(order)
        planned += [Trial(block, len(planned) + place, contestant) for place, contestant in enumerate(order, 1)]
    return tuple(planned)
