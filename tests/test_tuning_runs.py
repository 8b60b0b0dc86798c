"""A real search resumes from its rows, and tuned trials follow it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loaderbench.findings import check
from loaderbench.machine import process
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.records.certificates import Certificate
from loaderbench.records.record import Record
from loaderbench.run import runner
from loaderbench.trial import TrialSpec
from tests.campaigns import Ready, campaign

pytestmark = pytest.mark.usefixtures("forked")


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


@pytest.mark.slow
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
    asked: list[Any] = []
    certified = {"a": Certificate(seen_on="its own settings"), "a/best": Certificate(seen_on="its best settings")}
    folder = runner.run(
        chosen, prepared, tmp_path / "results", Display(), certify=lambda tuned: asked.append(tuned) or certified
    )
    assert asked == [{"a": {"images_per_s": 1e9}}]
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
    digests = {name: row.certificate for name, row in rows.items()}
    assert (digests["1/a"], digests["1/a/best"]) == (certified["a"].digest, certified["a/best"].digest)
    assert not any(digests[f"tune/a/{number}"] for number in range(1, 5))


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
