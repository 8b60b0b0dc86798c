"""Search for the best settings of a loader, trial by trial; the next trial follows from the rows alone.

The search is a coordinate descent from the contestant's own settings: it compares every other value of each option, in
the order written, with the best settings so far, and repeats until a round changes nothing. Candidate and incumbent are
measured in pairs, one right after the other, each in a fresh process. A candidate is accepted if it is faster by more
than `MARGIN` in two pairs. The second pair runs in reverse order, so that drift favours neither; it is skipped if the
candidate does not win the first. No settings are tried twice.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loaderbench.campaign.disturbances import disturbances
from loaderbench.campaign.schema import Best, Tuning
from loaderbench.records.record import Record

MARGIN = 0.03
"""Share by which a candidate must be faster: about the uncertainty of single short trials."""
PAIRS = 2
"""Pairs that a candidate must win to be accepted."""
_ARROW, _TIMES = "\N{RIGHTWARDS ARROW}", "\N{MULTIPLICATION SIGN}"

Settings = dict[str, Any]
"""Values of the searched options, and of `workers` if that is searched."""


@dataclass(frozen=True)
class Step:
    """The comparison of one candidate with the best settings so far, from which it differs in one option."""

    option: str
    before: Any
    after: Any
    ratio: float | None
    """Speed of the candidate over theirs, geometric mean over pairs; None if one of the two has no speed."""
    taken: bool
    confirmed: bool
    """Whether the second pair, if there was one, agreed with the first."""
    trouble: str
    """Why the speed of one of them does not count, or an empty string."""

    def __str__(self) -> str:
        what = f"{self.option} {self.before} {_ARROW} {self.after}: "
        if self.ratio is None:
            return f"{what}{'accepted, because before it ' if self.taken else 'rejected, '}{self.trouble}"
        verdict = "" if self.taken else "no gain, " if self.confirmed else "not confirmed, "
        return f"{what}{verdict}{self.ratio:.2f}{_TIMES}"


@dataclass(frozen=True)
class Search:
    """The state of one contestant's search."""

    asked: tuple[Settings, ...]
    """The settings of each of its trials; the last has no row yet if the search has not ended."""
    rows: tuple[Record, ...]
    steps: tuple[Step, ...]
    ended: str | None
    """How it ended, in a few words; None if it has not."""
    settings: Settings | None
    """The best settings so far. None: none of the tried settings fits the memory limit."""

    @property
    def gains(self) -> tuple[Step, ...]:
        """The accepted steps."""
        return tuple(step for step in self.steps if step.taken)

    @property
    def disturbed(self) -> int:
        """Number of disturbed trials. None is run again, because two pairs must agree."""
        return sum(bool(disturbances(row)) for row in self.rows)


def trial_name(contestant: str, number: int) -> str:
    """Return the name of a search's trial, numbered from 1."""
    return f"tune/{contestant}/{number}"


def options_at(options: Mapping[str, Any], settings: Settings | None) -> dict[str, Any]:
    """Return a loader's options at settings that replace its own; `workers` is no option but part of the work."""
    return {**options, **{name: value for name, value in (settings or {}).items() if name != "workers"}}


def own(best: Best) -> Settings:
    """Return the contestant's own settings, with which its search begins."""
    return {option: values[0] for option, values in best.settings.items()}


def likely_trials(best: Best, tuning: Tuning) -> int:
    """Return the number of trials of a search that finds nothing better."""
    return min(tuning.trials, 2 * sum(len(values) - 1 for values in best.settings.values()))


def searches(records: Sequence[Record], campaign: Mapping[str, Any]) -> dict[str, Search]:
    """Return the state of each search by contestant. `campaign`: as `env.json` keeps it."""
    measured = {record.trial: record for record in records if record.kind == "tune"}
    tuning = Tuning(**campaign["tuning"])
    return {name: replay(name, Best(**best), tuning, measured) for name, best in campaign["best"].items()}


def replay(contestant: str, best: Best, tuning: Tuning, measured: Mapping[str, Record]) -> Search:
    """Return the state of a contestant's search after its rows. `measured`: rows by trial."""
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
    """Yield the settings to measure next and receive their row; append to `steps`; return how the search ended."""
    incumbent, left, changed = own(best), tuning.trials, True
    tried = [incumbent]
    while changed:
        before = incumbent
        for option, value in [(option, value) for option, values in best.settings.items() for value in values]:
            candidate = incumbent | {option: value}
            if candidate in tried:
                continue
            if left < 2 * PAIRS:
                return f"stopped at its limit of {tuning.trials} trials"
            tried.append(candidate)
            pairs = yield from _hold_against(incumbent, candidate, tuning)
            left -= 2 * len(pairs)
            steps.append(_step(option, incumbent[option], value, pairs))
            if all(row.status != "ok" for row in pairs[0].rows):
                return "stopped, because nothing ran"
            if steps[-1].taken:
                incumbent = candidate
        changed = incumbent is not before
    return "tried everything"


@dataclass(frozen=True)
class _Pair:
    """Two successive trials."""

    incumbent: Record
    candidate: Record
    tuning: Tuning

    @property
    def rows(self) -> tuple[Record, Record]:
        return self.candidate, self.incumbent

    @property
    def ratio(self) -> float | None:
        """Speed of the candidate over the incumbent's; None if either does not count."""
        if any(_trouble(row, self.tuning) for row in self.rows):
            return None
        assert self.candidate.images_per_s
        assert self.incumbent.images_per_s
        return self.candidate.images_per_s / self.incumbent.images_per_s

    @property
    def faster(self) -> bool:
        """Whether the candidate is faster by the margin, or only the candidate has a speed."""
        return not _trouble(self.candidate, self.tuning) and (self.ratio is None or self.ratio > 1 + MARGIN)


def _hold_against(incumbent: Settings, candidate: Settings, tuning: Tuning) -> Generator[Settings, Record, list[_Pair]]:
    """Yield the settings of one pair, and if the candidate wins it, those of a second pair in reverse order."""
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
    """Return why a row's speed does not count, or an empty string."""
    if row.status != "ok" or not row.images_per_s:
        return f"{row.status}: {row.reason}"
    if _beyond(row, tuning):
        return f"{row.anon_memory_mib:,.0f} MiB, above the limit"
    return ""


def _beyond(row: Record, tuning: Tuning) -> bool:
    return tuning.memory_mib is not None and (row.anon_memory_mib or 0) > tuning.memory_mib
