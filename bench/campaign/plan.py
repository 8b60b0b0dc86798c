"""The trials of a campaign, their order, and those that its rows still lack. Pure functions."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from loaderbench.campaign import tuning
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.disturbances import disturbances
from loaderbench.campaign.schema import Contestant
from loaderbench.campaign.tuning import Settings
from loaderbench.campaign.variant import MAIN, Variant, variants
from loaderbench.records.record import Record


@dataclass(frozen=True)
class Trial:
    """One run of one contestant."""

    block: int
    """0 in the search for its best settings, which precedes the first block."""
    attempt: int
    position: int
    contestant: Contestant
    variant: Variant = MAIN
    settings: Settings | None = field(default_factory=dict)
    """Settings that replace the contestant's own. None: tuned, but no settings that were tried fit the memory limit."""

    @property
    def name(self) -> str:
        """Unique in the campaign."""
        if not self.block:
            return tuning.trial_name(self.contestant.name, self.position)
        return "/".join(filter(None, [prefix(self.block, self.attempt), self.contestant.name, self.variant.key]))


def prefix(block: int, attempt: int) -> str:
    """Return how the names of an attempt's rows begin: with the block, and the attempt if it is not the first."""
    return str(block) if attempt == 1 else f"{block}.{attempt}"


def trials(campaign: Campaign, block: int, attempt: int = 1) -> tuple[Trial, ...]:
    """Return the trials of an attempt at a block: every selected contestant in each of its variants.

    The order is random and differs between attempts, so that drift affects all contestants alike. A selection leaves
    the positions of its trials as they are in the whole campaign.
    """
    contestants = {contestant.name: contestant for contestant in campaign.contestants}
    selected = {contestant.name for contestant in campaign.selected}
    planned = variants(campaign.model_dump(mode="json"))
    order = [(contestants[name], variant) for variant, names in planned.items() for name in names]
    random.Random(f"{campaign.timing.seed}/{prefix(block, attempt)}").shuffle(order)
    return tuple(
        Trial(block, attempt, position, contestant, variant)
        for position, (contestant, variant) in enumerate(order, 1)
        if contestant.name in selected
    )


def missing(campaign: Campaign, measured: Mapping[str, Record]) -> tuple[Trial, ...]:
    """Return the trials to measure now, or none if all selected ones are there. `measured`: rows by trial.

    The searches for best settings come first, one trial at a time, because each trial depends on those before it. Then
    it is what the first incomplete block lacks. A block is complete when an attempt at it was not disturbed from
    outside, or when the campaign allows no further attempt.
    """
    searches = _searches(campaign, measured)
    for contestant, search in searches:
        if search.ended is None:
            return (Trial(0, 1, len(search.asked), contestant, settings=search.asked[-1]),)
    best = tuned(campaign, measured)
    for block in range(1, campaign.timing.blocks + 1):
        for attempt in range(1, campaign.timing.reruns + 2):
            planned = trials(campaign, block, attempt)
            if lacking := tuple(trial for trial in planned if trial.name not in measured):
                return tuple(
                    replace(trial, settings=best[trial.contestant.name]) if trial.variant.track == "best" else trial
                    for trial in lacking
                )
            if not any(disturbances(measured[trial.name]) for trial in planned):
                break
    return ()


def tuned(campaign: Campaign, measured: Mapping[str, Record]) -> dict[str, Settings | None]:
    """Return the best settings that each search found, by contestant; None if none that were tried fit the memory."""
    return {contestant.name: search.settings for contestant, search in _searches(campaign, measured)}


def searching(campaign: Campaign, measured: Mapping[str, Record]) -> tuple[int, int]:
    """Return how many trials the searches for best settings still take: likely, and at most."""
    unfinished = [(c, search) for c, search in _searches(campaign, measured) if search.ended is None]
    likely = [tuning.likely_trials(campaign.best[c.name], campaign.tuning) for c, _ in unfinished]
    done = [len(search.asked) - 1 for _, search in unfinished]
    most = len(unfinished) * campaign.tuning.trials - sum(done)
    return sum(max(1, trials - of_them) for trials, of_them in zip(likely, done, strict=True)), most


def _searches(campaign: Campaign, measured: Mapping[str, Record]) -> list[tuple[Contestant, tuning.Search]]:
    return [
        (contestant, tuning.replay(contestant.name, campaign.best[contestant.name], campaign.tuning, measured))
        for contestant in campaign.selected
        if contestant.name in campaign.best
    ]
