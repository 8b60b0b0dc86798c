"""Contestants run with several numbers of workers, and the report says where each stops growing, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.campaign import scaling as table
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.variant import Variant
from loaderbench.findings import check
from loaderbench.findings.analysis import analyse
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.records.record import Record
from loaderbench.report import report
from loaderbench.report.markdown import EN_DASH
from loaderbench.run import runner
from tests import fabricate
from tests.analysed import CAST, FAST, REFERENCE, SLOW
from tests.campaigns import Ready, campaign
from tests.reports import rows_of

SCALING = {"contestants": ["fast", "slow"], "workers": [1, 2, 8]}
"""The campaign's own number of workers is 4."""


def at(actor: fabricate.Actor, workers: int, block: int, speed: float, **changes: Any) -> Record:
    """A row with this number of workers."""
    columns: dict[str, Any] = {"workers": workers, "images_per_s": speed, "pct_of_bound": 40.0, "cpu_load_pct": 50.0}
    if workers != 4:
        columns |= {"track": "scaling", "trial": f"{block}/{actor.name}/scaling/{workers}"}
    return fabricate.load(actor, block, **columns | changes)


def growing_until(stop: int, actor: fabricate.Actor = FAST, **changes: Any) -> list[Record]:
    """Rows of a loader that each worker up to a number makes faster by 1,000 images/s."""
    return [
        at(actor, workers, block, 1000.0 * min(workers, stop) + block, **(changes if workers >= stop else {}))
        for block in (1, 2)
        for workers in (1, 2, 4, 8)
    ]


def env() -> dict[str, Any]:
    content = fabricate.environment(CAST, 2, "reference")
    content["campaign"]["scaling"] = SCALING
    return content


def reading(rows: list[Record]) -> str:
    found = analyse([*rows, *(fabricate.load(REFERENCE, block) for block in (1, 2))], env()["campaign"])
    return next(curve.reading for curve in found.scaling if curve.main.name == "fast")


@pytest.mark.parametrize(
    ("stop", "changes", "said"),
    [
        (1, {}, "It does not grow beyond 1 worker; the loader itself holds it back: the cores are 50 % busy, and no"),
        (
            2,
            {"pct_of_bound": 96.0, "bound_by": "crop"},
            "It stops growing at 2 workers: 2,002 images/s, 2.00 times those",
        ),
        (2, {"pct_of_bound": 96.0, "bound_by": "crop"}, "of 1; it reaches 96 % of the machine limit, crop."),
        (
            4,
            {"cpu_load_pct": 98.0},
            "It stops growing at 4 workers: 4,002 images/s, 4.00 times those of 1; the cores are 98 %",
        ),
        (8, {}, "It grows up to 8 workers, the most that were measured: 8,002 images/s, 7.99 times those of 1."),
        (
            4,
            {"cpu_s_per_1k_images": 9.75},
            "limit is near; an image takes 4.98 times the CPU time that it takes with 1.",
        ),
    ],
)
def test_a_loader_that_stops_growing_comes_out_with_its_number_of_workers_and_its_limit(
    stop: int, changes: dict[str, Any], said: str
) -> None:
    assert said in reading(growing_until(stop, **changes))


def test_a_loader_that_too_many_workers_slow_down_is_said_to() -> None:
    rows = [replace(row, images_per_s=1500.0) if row.workers == 8 else row for row in growing_until(2)]
    assert reading(rows).endswith(" With 8 it is 25.1 % slower.")


def test_numbers_of_workers_that_failed_have_no_point() -> None:
    failed = {"status": "failed", "reason": "it broke", "images_per_s": None}
    rows = [replace(row, **failed) if row.workers == 8 else row for row in growing_until(4)]
    assert reading(rows).startswith("It grows up to 4 workers, the most that were measured")


def test_the_report_has_a_section_a_table_and_a_picture_on_scaling(tmp_path: Path) -> None:
    rows = [*growing_until(2), *growing_until(4, SLOW), *(fabricate.load(REFERENCE, block) for block in (1, 2))]
    folder = fabricate.campaign(tmp_path / "results" / "quick", rows, cast=CAST, reference="reference")
    (folder / "env.json").write_text(json.dumps(env()))
    text = report.write(folder, tmp_path / "report").read_text()
    assert "## How many workers does each loader need?" in text
    assert "It stops growing at 2 workers" in next(row[1] for row in rows_of(text, "Fast") if len(row) == 2)
    assert [row[1:4] for row in rows_of(text, "Slow") if len(row) == 7 and row[1] in set("1248")] == [
        ["1", f"1,002 [1,001{EN_DASH}1,002]", "1.00"],
        ["2", f"2,002 [2,001{EN_DASH}2,002]", "2.00"],
        ["4", f"4,002 [4,001{EN_DASH}4,002]", "4.00"],
        ["8", f"4,002 [4,001{EN_DASH}4,002]", "4.00"],
    ]
    assert (tmp_path / "report" / "scaling.png").exists()


@pytest.mark.parametrize(
    ("cores", "workers"), [(1, (1, 2)), (2, (1, 2, 4)), (6, (1, 2, 4, 6, 12)), (8, (1, 2, 4, 8, 16))]
)
def test_workers_double_up_to_the_cores_and_once_beyond(
    cores: int, workers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "core_count", lambda: cores)
    assert table.Scaling(contestants=("a",)).workers == workers


def test_the_campaigns_own_number_of_workers_is_not_run_twice() -> None:
    campaign = config.load("scaling", {"work": {"workers": 2}, "scaling": {"workers": [4, 2, 1]}})
    assert campaign.scaling
    assert campaign.scaling.workers == (1, 4)


@pytest.mark.usefixtures("planted", "forked")
def test_a_contestant_runs_with_each_number_of_workers(ready: Ready, tmp_path: Path) -> None:
    crash = {"loader": "doomed", "options": {"end": "crash"}}
    own = campaign({"a": {}, "crash": crash, "absent": {"loader": "absent"}}, blocks=1)
    chosen = Campaign.model_validate(
        own.model_dump() | {"scaling": {"contestants": ["a", "crash", "absent"], "workers": [1, 3]}}
    )
    folder = runner.run(chosen, ready(chosen), tmp_path, Display())
    rows = {row.trial: row for row in trials_csv.read(folder / "trials.csv") if row.kind == "load"}
    found = {name: (row.workers, row.status) for name, row in rows.items() if row.contestant == "a"}
    assert found == {"1/a": (2, "ok"), "1/a/scaling/1": (1, "ok"), "1/a/scaling/3": (3, "ok")}
    for name in ("a", "crash", "absent"):
        assert Variant.of(rows[f"1/{name}/scaling/3"]) == Variant(track="scaling", workers=3)
    assert not [judged for judged in check.check(folder) if judged.what != "campaign" and judged.state == "invalid"]
