"""The search finds the best settings of a loader of known speeds, and keeps its limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from loaderbench.campaign import tuning
from loaderbench.campaign.schema import Best, Tuning
from loaderbench.campaign.tuning import Search, Settings
from loaderbench.records.record import Record
from tests import fabricate

BEST = Best(title="A", settings={"cache": ("on", "off"), "workers": (2, 1, 3), "ahead": (3, 6)})
OWN = {"cache": "on", "workers": 2, "ahead": 3}
BOUNDS = Tuning(trials=40, memory_mib=1000)
ROW = fabricate.load(fabricate.CAST[0], 1, kind="tune", anon_memory_mib=500.0)
Measure = Callable[[Settings], Record]


def at(images_per_s: float, **changes: Any) -> Record:
    return replace(ROW, images_per_s=images_per_s, **changes)


def failed(reason: str = "it broke") -> Record:
    return replace(ROW, status="failed", reason=reason, images_per_s=None)


def searched(measure: Measure, best: Best = BEST, bounds: Tuning = BOUNDS) -> tuple[Search, dict[str, Record]]:
    """Search to the end; `measure` returns the row for given settings."""
    rows: dict[str, Record] = {}
    while (search := tuning.replay("a", best, bounds, rows)).ended is None:
        rows[f"tune/a/{len(search.asked)}"] = measure(search.asked[-1])
    return search, rows


def speeds(known: dict[tuple[str, Any], float]) -> Measure:
    """A loader of 1,000 images/s, multiplied by the factor of each of its settings."""

    def measure(settings: Settings) -> Record:
        images_per_s = 1000.0
        for pair in settings.items():
            images_per_s *= known.get(pair, 1)
        return at(images_per_s)

    return measure


@pytest.mark.parametrize("fastest", [dict(zip(OWN, s, strict=True)) for s in product(*BEST.settings.values())])
def test_search_finds_the_fastest_settings(fastest: Settings) -> None:
    search, _ = searched(speeds(dict.fromkeys(fastest.items(), 1.1)))
    assert search.settings == fastest
    assert search.ended == "tried everything"


def test_steps_report_the_gain_of_each_setting() -> None:
    search, _ = searched(speeds({("workers", 3): 1.25, ("workers", 1): 0.5}))
    said = [str(step) for step in search.steps]
    times = "\N{MULTIPLICATION SIGN}"
    assert said == [
        f"cache on → off: no gain, 1.00{times}",
        f"workers 2 → 1: no gain, 0.50{times}",
        f"workers 2 → 3: 1.25{times}",
        f"ahead 3 → 6: no gain, 1.00{times}",
        f"cache on → off: no gain, 1.00{times}",
    ]
    assert [(step.before, step.after) for step in search.gains] == [(2, 3)]


def test_a_second_round_finds_settings_that_help_only_together() -> None:
    def measure(settings: Settings) -> Record:
        bonus = 1.2 if settings["workers"] == 3 else 1.0
        return at(1000 * bonus * (1.2 if settings["cache"] == "off" and bonus > 1 else 1))

    search, _ = searched(measure)
    assert search.settings == OWN | {"workers": 3, "cache": "off"}


@pytest.mark.parametrize(("ratio", "taken"), [(1.029, False), (1.031, True)])
def test_a_candidate_must_be_faster_by_the_margin(ratio: float, taken: bool) -> None:  # noqa: FBT001
    search, _ = searched(speeds({("cache", "off"): ratio}))
    assert (search.settings == OWN | {"cache": "off"}) is taken


def test_a_candidate_that_was_fast_once_is_rejected() -> None:
    lucky = iter([1300.0])

    def measure(settings: Settings) -> Record:
        return at(next(lucky, 1000.0) if settings == OWN | {"cache": "off"} else 1000.0)

    search, _ = searched(measure)
    assert search.settings == OWN
    assert str(search.steps[0]).startswith("cache on → off: not confirmed, 1.14")


def test_a_machine_that_speeds_up_does_not_favour_a_candidate() -> None:
    now = iter(range(1000))
    search, _ = searched(lambda _: at(1000 * 1.04 ** next(now)))
    assert search.settings == OWN


def test_the_second_pair_runs_in_reverse_order() -> None:
    search, _ = searched(speeds({("cache", "off"): 2}), Best(title="A", settings={"cache": ("on", "off")}))
    assert [settings["cache"] for settings in search.asked] == ["on", "off", "off", "on"]


def test_search_tries_no_settings_twice() -> None:
    search, _ = searched(speeds({("workers", 3): 1.1, ("ahead", 6): 1.1}))
    lengths = [4 if step.taken else 2 for step in search.steps]
    candidates = [search.asked[sum(lengths[:place]) + 1] for place in range(len(lengths))]
    assert sum(lengths) == len(search.asked)
    assert len({json.dumps(settings) for settings in [OWN, *candidates]}) == 1 + len(candidates)


@pytest.mark.parametrize("trials", range(4, 20))
def test_search_stops_at_its_trial_limit(trials: int) -> None:
    measure = speeds({("workers", 3): 1.1, ("ahead", 6): 1.1, ("cache", "off"): 1.1})
    _, all_rows = searched(measure)
    search, rows = searched(measure, bounds=replace_bounds(trials=trials))
    assert len(rows) <= trials
    ended = "tried everything" if trials >= len(all_rows) else f"stopped at its limit of {trials} trials"
    assert search.ended == ended
    assert search.settings is not None


def replace_bounds(**changes: Any) -> Tuning:
    return BOUNDS.model_copy(update=changes)


def test_fast_settings_above_the_memory_budget_are_rejected() -> None:
    def measure(settings: Settings) -> Record:
        return at(1000 * settings["workers"], anon_memory_mib=400.0 * settings["workers"])

    search, _ = searched(measure)
    assert search.settings == OWN
    assert "workers 2 → 3: rejected, 1,200 MiB, above the limit" in map(str, search.steps)
    assert searched(measure, bounds=replace_bounds(memory_mib=None))[0].settings == OWN | {"workers": 3}


def test_settings_within_the_budget_replace_settings_above_it() -> None:
    def measure(settings: Settings) -> Record:
        return at(1000 * settings["workers"], anon_memory_mib=700.0 * settings["workers"])

    search, _ = searched(measure)
    assert search.settings == OWN | {"workers": 1}
    assert "workers 2 → 1: accepted, because before it 1,400 MiB, above the limit" in map(str, search.steps)


def test_search_finds_no_settings_if_all_exceed_the_budget() -> None:
    search, _ = searched(lambda _: at(1000, anon_memory_mib=1001.0))
    assert search.ended
    assert search.settings is None


def test_unknown_memory_excludes_no_settings() -> None:
    search, _ = searched(lambda s: at(1000 * s["workers"], anon_memory_mib=None))
    assert search.settings == OWN | {"workers": 3}


def test_a_failing_candidate_is_rejected_and_the_search_continues() -> None:
    search, _ = searched(lambda s: failed() if s["cache"] == "off" else at(1000 * s["workers"]))
    assert search.settings == OWN | {"workers": 3}
    assert str(search.steps[0]) == "cache on → off: rejected, failed: it broke"


def test_search_ends_if_the_first_two_trials_fail() -> None:
    search, rows = searched(lambda _: failed())
    assert len(rows) == 2
    assert (search.ended, search.settings) == ("stopped, because nothing ran", OWN)


def test_an_interrupted_search_resumes_with_the_same_trials() -> None:
    measure = speeds({("workers", 3): 1.1, ("cache", "off"): 1.1})
    whole, rows = searched(measure)
    for kept in range(len(rows)):
        part = tuning.replay("a", BEST, BOUNDS, dict(list(rows.items())[:kept]))
        assert part.ended is None
        assert part.asked == whole.asked[: kept + 1]


def test_disturbed_trials_of_a_search_are_counted() -> None:
    search, _ = searched(lambda s: at(1000, steal_pct=9.0 if s["workers"] == 1 else 0.0))
    assert search.disturbed == 1


def test_a_contestant_without_alternatives_is_tuned_without_trials() -> None:
    search, rows = searched(speeds({}), Best(title="A", settings={"workers": (2,)}))
    assert (search.settings, rows) == ({"workers": 2}, {})
