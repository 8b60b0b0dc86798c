"""The search finds the best settings of a loader of known speeds, keeps to its bounds, and resumes from its rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from loaderbench.campaign import tuning
from loaderbench.campaign.schema import Best, Tuning
from loaderbench.campaign.tuning import Search, Settings
from loaderbench.findings import check
from loaderbench.machine import process
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.records.record import Record
from loaderbench.run import runner
from loaderbench.trial import TrialSpec
from tests import fabricate
from tests.campaigns import Ready, campaign

pytestmark = pytest.mark.usefixtures("forked")

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


@pytest.fixture
def interrupted_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Return a function that interrupts the harness after a number of trials."""
    run = process.run_child

    def arm(trials: int) -> None:
        left = iter(range(trials))

        def until(task: str, *args: Any, **named: Any) -> Any:
            if task == "loaderbench.trial.trial.run" and next(left, None) is None:
                raise KeyboardInterrupt
            return run(task, *args, **named)

        monkeypatch.setattr(process, "run_child", until)

    yield arm
    monkeypatch.undo()


def test_a_real_search_resumes_and_precedes_tuned_trials(
    ready: Ready, tmp_path: Path, interrupted_after: Callable[[int], None]
) -> None:
    chosen = campaign(
        {"a": {"loader": "pace", "options": {"images_per_s": 200.0}}},
        best={"a": {"title": "A", "settings": {"images_per_s": [1e9]}}},
        tuning={"trials": 4, "warmup_s": 0.05, "window_s": 0.2},
        blocks=1,
    )
    prepared = ready(chosen)
    interrupted_after(3)
    with pytest.raises(KeyboardInterrupt):
        runner.run(chosen, prepared, tmp_path / "results", Display())
    path = tmp_path / "results" / "small" / "trials.csv"
    before = path.read_text()
    interrupted_after(100)
    folder = runner.run(chosen, prepared, tmp_path / "results", Display())
    assert path.read_text().startswith(before)
    rows = {row.trial: row for row in trials_csv.read(path) if row.kind != "write"}
    settings = [json.loads(row.options) for row in rows.values() if row.kind == "tune"]
    slow, fast = {"images_per_s": 200.0}, {"images_per_s": 1e9}
    assert settings == [slow, fast, fast, slow]
    assert list(rows)[:4] == [f"tune/a/{number}" for number in range(1, 5)]
    assert set(list(rows)[4:]) == {"1/a", "1/a/best"}
    assert (rows["1/a"].track, json.loads(rows["1/a"].options)) == ("same", slow)
    assert (rows["1/a/best"].track, json.loads(rows["1/a/best"].options)) == ("best", fast)
    assert {judgement.state for judgement in check.check(folder)} <= {"valid", "valid with caveats"}


def faked(monkeypatch: pytest.MonkeyPatch, **columns: Any) -> None:
    """Replace trials: each worker delivers 100 images/s in a window of the requested length."""

    def run(task: str, spec: TrialSpec, *_: Any, **__: Any) -> dict[str, Any]:
        spec.times.touch()
        window_s, images_per_s = spec.window.window_s, 100.0 * spec.work.workers
        return {"status": "ok", "reason": "", "images_per_s": images_per_s, "window_s": window_s, **columns}

    monkeypatch.setattr(process, "run_child", run)


def measured(ready: Ready, folder: Path, monkeypatch: pytest.MonkeyPatch, loader: str = "planted") -> dict[str, Record]:
    """The rows of a campaign with a search for 2 or 4 workers, by trial."""
    chosen = campaign(
        {"a": {"loader": loader}},
        best={"a": {"title": "A at its best", "settings": {"workers": [4]}}},
        tuning={"memory_mib": 1000, "window_s": 0.1},
    )
    prepared = ready(chosen)
    with monkeypatch.context() as patch:
        faked(patch, anon_memory_mib=500.0 if folder.name == "modest" else 1500.0)
        results = runner.run(chosen, prepared, folder / "results", Display())
    return {row.trial: row for row in trials_csv.read(results / "trials.csv") if row.kind != "write"}


@pytest.mark.usefixtures("planted")
def test_every_block_has_a_trial_with_the_best_settings(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measured(ready, tmp_path / "modest", monkeypatch)
    ran = {name: (row.kind, row.track, row.title, row.workers, row.window_s) for name, row in rows.items()}
    assert ran == {
        **{f"tune/a/{n}": ("tune", "", "A at its best", w, 0.1) for n, w in enumerate((2, 4, 4, 2), 1)},
        **{f"{block}/a": ("load", "same", "a", 2, 0.2) for block in (1, 2)},
        **{f"{block}/a/best": ("load", "best", "A at its best", 4, 0.2) for block in (1, 2)},
    }


@pytest.mark.usefixtures("planted")
def test_tuned_row_says_that_no_settings_fit_the_budget(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measured(ready, tmp_path / "greedy", monkeypatch)
    assert rows["1/a"].status == "ok"
    assert (rows["1/a/best"].status, rows["1/a/best"].images_per_s) == ("unavailable", None)
    assert rows["1/a/best"].reason == "none of the tried settings fits the limit of 1000 MiB of memory"


@pytest.mark.usefixtures("planted")
def test_an_unavailable_contestant_is_searched_for_two_trials_only(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measured(ready, tmp_path / "modest", monkeypatch, loader="absent")
    assert rows.keys() == {"tune/a/1", "tune/a/2", "1/a", "1/a/best", "2/a", "2/a/best"}
    assert {(row.status, row.reason) for row in rows.values()} == {("unavailable", rows["1/a"].reason)}
