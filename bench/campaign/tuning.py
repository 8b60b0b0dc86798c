"""Which settings suit a loader best on this machine? A bounded search; what it does next follows from its rows alone.

Coordinate descent from the contestant's own settings: option by option in the order written, each other value is held
against the best settings so far; round after round, until one changes nothing. The two are measured in pairs, one right
after the other, each time in a fresh process. A candidate is taken if it is faster by more than `MARGIN` in two pairs,
of which the second runs in reverse order, so that drift favours neither; one that is not in the first needs no second.
No settings are tried twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loaderbench.campaign.disturbances import disturbances
from loaderbench.campaign.schema import Best, Tuning

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from loaderbench.records.record import Record

MARGIN = 0.03
"""A candidate must be faster by more than this share: about what single short trials leave open."""
PAIRS = 2
"""So often, to be taken."""
_ARROW, _TIMES = "\N{RIGHTWARDS ARROW}", "\N{MULTIPLICATION SIGN}"

Settings = dict[str, Any]
"""Values of the options that are searched, and of `workers` if that is."""


@dataclass(frozen=True)
class Step:
    """One candidate, held against the best settings so far, from which it differs in one option."""

    option: str
    before: Any
    after: Any
    ratio: float | None
    """The candidate's speed over theirs, geometric mean over pairs; None if one of the two has none."""
    taken: bool
    confirmed: bool
    """Whether the second pair said the same as the first, if there was one."""
    trouble: str
    """Why one of them has no speed that counts, or nothing."""

    def __str__(self) -> str:
        """Say it in a few words."""
        what = f"{self.option} {self.before} {_ARROW} {self.after}: "
        if self.ratio is None:
            return f"{what}{'taken, for before it ' if self.taken else 'out, '}{self.trouble}"
        verdict = "" if self.taken else "no gain, " if self.confirmed else "not confirmed, "
        return f"{what}{verdict}{self.ratio:.2f}{_TIMES}"


@dataclass(frozen=True)
class Search:
    """What one contestant's search has come to."""

    asked: tuple[Settings, ...]
    """The settings of each of its trials; the last has no row yet if the search is not over."""
    rows: tuple[Record, ...]
    steps: tuple[Step, ...]
    ended: str | None
    """How it ended, in a few words; None if it is not over."""
    settings: Settings | None
    """The best so far. None: nothing that was tried kept to the memory budget."""

    @property
    def gains(self) -> tuple[Step, ...]:
        """The steps that were taken."""
        return tuple(step for step in self.steps if step.taken)

    @property
    def disturbed(self) -> int:
        """How many of its trials show signs of disturbance; none is run again, for two pairs must agree."""
        return sum(bool(disturbances(row)) for row in self.rows)


def trial_name(contestant: str, number: int) -> str:
    """Return the name of a search's trial, numbered from 1."""
    return f"tune/{contestant}/{number}"


def own(best: Best) -> Settings:
    """Return the contestant's own settings, where its search begins."""
    return {option: values[0] for option, values in best.settings.items()}


def likely_trials(best: Best, tuning: Tuning) -> int:
    """Return how many trials a search takes that finds nothing better."""
    return min(tuning.trials, 2 * sum(len(values) - 1 for values in best.settings.values()))


def searches(records: Sequence[Record], campaign: Mapping[str, Any]) -> dict[str, Search]:
    """Return what came of each search of a campaign, which is given as `env.json` keeps it, by contestant."""
    measured = {record.trial: record for record in records if record.kind == "tune"}
    tuning = Tuning(**campaign["tuning"])
    return {name: replay(name, Best(**best), tuning, measured) for name, best in campaign["best"].items()}


def replay(contestant: str, best: Best, tuning: Tuning, measured: Mapping[str, Record]) -> Search:
    """Go through a contestant's search as far as its rows go. `measured`: rows by trial."""
    steps: list[Step] = []
    asked: list[Settings] = []
    rows: list[Record] = []
    descent = _descend(best, tuning, steps)
    ended = None
    try:
        asked.append(next(descent))
        while (row := measured.get(trial_name(contestant, len(asked)))) is not None:
            rows.append(row)
            asked.append(descent.send(row))
    except StopIteration as end:
        ended = end.value
    found = own(best) | {step.option: step.after for step in steps if step.taken}
    measured_with = [row for row, settings in zip(rows, asked, strict=False) if settings == found]
    beyond = bool(measured_with) and all(_beyond(row, tuning) for row in measured_with)
    return Search(tuple(asked), tuple(rows), tuple(steps), ended, None if beyond else found)


def _descend(best: Best, tuning: Tuning, steps: list[Step]) -> Generator[Settings, Record, str]:
    """Yield the settings to be measured next and take their row; add to `steps`; return how it ended."""
    incumbent, left, changed = own(best), tuning.trials, True
    tried = [incumbent]
    while changed:
        before = incumbent
        for option, value in [(option, value) for option, values in best.settings.items() for value in values]:
            candidate = incumbent | {option: value}
            if candidate in tried:
                continue
            if left < 2 * PAIRS:
                return f"stopped at its bound of {tuning.trials} trials"
            tried.append(candidate)
            pairs = yield from _hold_against(incumbent, candidate, tuning)
            left -= 2 * len(pairs)
            steps.append(_step(option, incumbent[option], value, pairs))
            if all(row.status != "ok" for row in pairs[0].rows):
                return "stopped, for nothing ran"
            if steps[-1].taken:
                incumbent = candidate
        changed = incumbent is not before
    return "tried all that it may"


@dataclass(frozen=True)
class _Pair:
    """Two trials, one right after the other."""

    incumbent: Record
    candidate: Record
    tuning: Tuning

    @property
    def rows(self) -> tuple[Record, Record]:
        return self.candidate, self.incumbent

    @property
    def ratio(self) -> float | None:
        """The candidate's speed over the incumbent's; None if one of the two has none that counts."""
        if any(_trouble(row, self.tuning) for row in self.rows):
            return None
        assert self.candidate.images_per_s
        assert self.incumbent.images_per_s
        return self.candidate.images_per_s / self.incumbent.images_per_s

    @property
    def faster(self) -> bool:
        """Whether the candidate is faster by the margin, or has a speed where the incumbent has none."""
        return not _trouble(self.candidate, self.tuning) and (self.ratio is None or self.ratio > 1 + MARGIN)


def _hold_against(incumbent: Settings, candidate: Settings, tuning: Tuning) -> Generator[Settings, Record, list[_Pair]]:
    """Measure one pair, and if it speaks for the candidate a second, in reverse."""
    first = yield incumbent
    pairs = [_Pair(first, (yield candidate), tuning)]
    if pairs[0].faster:
        again = yield candidate
        pairs.append(_Pair((yield incumbent), again, tuning))
    return pairs


def _step(option: str, before: Any, after: Any, pairs: list[_Pair]) -> Step:
    ratios = [pair.ratio for pair in pairs if pair.ratio]
    troubles = [trouble for pair in pairs for row in pair.rows if (trouble := _trouble(row, pair.tuning))]
    return Step(
        option,
        before,
        after,
        ratio=math.prod(ratios) ** (1 / len(ratios)) if len(ratios) == len(pairs) else None,
        taken=len(pairs) == PAIRS and all(pair.faster for pair in pairs),
        confirmed=len({pair.faster for pair in pairs}) == 1,
        trouble=troubles[0] if troubles else "",
    )


def _trouble(row: Record, tuning: Tuning) -> str:
    """Say why a row's speed does not count, or nothing."""
    if row.status != "ok" or not row.images_per_s:
        return f"{row.status}: {row.reason}"
    if _beyond(row, tuning):
        return f"{row.peak_anon_memory_mib:,.0f} MiB, more than the budget"
    return ""


def _beyond(row: Record, tuning: Tuning) -> bool:
    return tuning.memory_mib is not None and (row.peak_anon_memory_mib or 0) > tuning.memory_mib
