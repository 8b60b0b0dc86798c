"""Which trials, in which order? Pure functions of the campaign and of the rows that are there."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from loaderbench.campaign import tuning
from loaderbench.campaign.disturbances import disturbances

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loaderbench.campaign.campaign import Campaign
    from loaderbench.campaign.schema import Contestant
    from loaderbench.campaign.tuning import Settings
    from loaderbench.records.record import Cache, Consumer, Record, Track, Transport


@dataclass(frozen=True)
class Trial:
    """One contestant, once."""

    block: int
    """0: in the search for its best settings, which comes before the first block."""
    attempt: int
    position: int
    contestant: Contestant
    cache: Cache = "warm"
    track: Track = "same"
    consumer: Consumer = "hungry"
    settings: Settings | None = field(default_factory=dict)
    """What is put in place of the contestant's own. None: at its best, and nothing tried kept to the memory budget."""
    transport: Transport = ""
    """How the data comes from a bucket; empty if it is on this machine."""

    @property
    def name(self) -> str:
        """Unique in the campaign."""
        if not self.block:
            return tuning.trial_name(self.contestant.name, self.position)
        endings = [self.cache, self.track, self.consumer, self.transport]
        other = [ending for ending in endings if ending not in {"warm", "same", "hungry", ""}]
        return "/".join([prefix(self.block, self.attempt), self.contestant.name, *other])


def prefix(block: int, attempt: int) -> str:
    """Return what the names of an attempt's rows begin with: the block, and which attempt if not the first."""
    return str(block) if attempt == 1 else f"{block}.{attempt}"


def trials(campaign: Campaign, block: int, attempt: int = 1) -> tuple[Trial, ...]:
    """Every contestant once per cache state, once more at its best if that is searched for, once for each other
    consumer that it feeds, and once for each way in which its data comes from a bucket, in an order drawn anew for each
    attempt, so that drift hits all alike.
    """
    order: list[dict[str, Any]] = [
        {"contestant": contestant, "cache": cache}
        for contestant in campaign.contestants
        for cache in campaign.caches_of(contestant)
    ]
    order += [{"contestant": c, "track": "best"} for c in campaign.contestants if c.name in campaign.best]
    order += [
        {"contestant": c, "consumer": consumer}
        for consumer, feeding in campaign.feedings.items()
        for c in campaign.contestants
        if c.name in feeding.contestants
    ]
    order += [
        {"contestant": c, "transport": transport}
        for transport, names in campaign.transports.items()
        for c in campaign.contestants
        if c.name in names
    ]
    random.Random(f"{campaign.timing.seed}/{prefix(block, attempt)}").shuffle(order)
    return tuple(Trial(block, attempt, place, **which) for place, which in enumerate(order, 1))


def missing(campaign: Campaign, measured: Mapping[str, Record]) -> tuple[Trial, ...]:
    """Return what is to be measured now; nothing if all is done. `measured`: rows by trial.

    First come the searches for best settings, trial by trial, for each depends on those before it. Then it is what the
    first unfinished block lacks. A block is done when an attempt at it was quiet, or when it has been run again as
    often as the campaign allows.
    """
    searches = _searches(campaign, measured)
    for contestant, search in searches:
        if search.ended is None:
            return (Trial(0, 1, len(search.asked), contestant, settings=search.asked[-1]),)
    best = {contestant.name: search.settings for contestant, search in searches}
    for block in range(1, campaign.timing.blocks + 1):
        for attempt in range(1, campaign.timing.reruns + 2):
            planned = trials(campaign, block, attempt)
            if lacking := tuple(trial for trial in planned if trial.name not in measured):
                return tuple(
                    replace(trial, settings=best[trial.contestant.name]) if trial.track == "best" else trial
                    for trial in lacking
                )
            if not any(disturbances(measured[trial.name]) for trial in planned):
                break
    return ()


def searching(campaign: Campaign, measured: Mapping[str, Record]) -> tuple[int, int]:
    """Return how many trials the searches for best settings still take: likely, and at most."""
    going_on = [(c, search) for c, search in _searches(campaign, measured) if search.ended is None]
    likely = [tuning.likely_trials(campaign.best[c.name], campaign.tuning) for c, _ in going_on]
    left = [len(search.asked) - 1 for _, search in going_on]
    most = len(going_on) * campaign.tuning.trials - sum(left)
    return sum(max(1, trials - done) for trials, done in zip(likely, left, strict=True)), most


def _searches(campaign: Campaign, measured: Mapping[str, Record]) -> list[tuple[Contestant, tuning.Search]]:
    return [
        (contestant, tuning.replay(contestant.name, campaign.best[contestant.name], campaign.tuning, measured))
        for contestant in campaign.contestants
        if contestant.name in campaign.best
    ]
