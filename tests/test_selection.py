"""`--only` and `--skip` leave contestants out; what they leave out can be measured later."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from loaderbench.campaign import campaign as config
from loaderbench.campaign import plan, selection
from loaderbench.campaign.campaign import CampaignError
from loaderbench.cli import app
from loaderbench.findings import check
from loaderbench.records import trials_csv
from tests import campaigns

QUICK = config.load("quick")
CONTROLS = ["twin", "ceiling", "pace"]
TWO = (
    campaigns.TOML
    + """
[[contestants]]
name = "b"
title = "b"
loader = "imagefolder"
format = "small-files"
"""
)
TWO = TWO.replace(
    "}]", '}, { name = "small-files", title = "smaller", writer = "imagefolder", mode = "jpeg", max_side = 32 }]'
)


@pytest.mark.parametrize(
    ("only", "skip", "names"),
    [
        (["ffcv-jpeg-slots"], [], ["ffcv-jpeg-slots"]),
        (["litdata"], [], ["litdata-raw", "litdata-jpeg"]),
        (["ffcv-raw"], [], ["ffcv-raw-mapped", "ffcv-raw-slots"]),
        (["ffcv", "litdata-*"], ["*-raw*"], ["ffcv-jpeg-mapped", "ffcv-jpeg-slots", "litdata-jpeg"]),
        (
            [],
            ["ffcv", "imagefolder-original*", "litdata-raw"],
            ["litdata-jpeg", "imagefolder-256-pil", "imagefolder-256-torchvision", "threads"],
        ),
    ],
)
def test_contestants_are_selected_by_name_loader_and_format(only: list[str], skip: list[str], names: list[str]) -> None:
    chosen = selection.select(QUICK, only, skip)
    assert [contestant.name for contestant in chosen.selected] == names
    assert {f.name for f in chosen.selected_formats} == {c.format for c in chosen.selected}


def test_measuring_keeps_the_reference_and_the_controls() -> None:
    chosen = selection.with_yardsticks(selection.select(QUICK, ["litdata-raw"], ["imagefolder"]))
    assert [contestant.name for contestant in chosen.selected] == ["litdata-raw", QUICK.reference, *CONTROLS]


@pytest.mark.parametrize(
    ("only", "skip", "said"),
    [
        (["dali"], [], "--only dali matches nothing in quick; there are\n  contestants: ffcv-raw-mapped, "),
        ([], ["litdata-*", "pace"], "--skip pace matches nothing in quick"),
        (["ffcv"], ["*"], "--only and --skip leave no contestant of quick; there are\n"),
    ],
)
def test_a_selection_of_nothing_is_refused_with_the_names_there_are(
    only: list[str], skip: list[str], said: str
) -> None:
    with pytest.raises(CampaignError) as error:
        selection.select(QUICK, only, skip)
    assert said in str(error.value)
    assert "\n  formats: ffcv-raw, ffcv-jpeg, " in str(error.value)


def test_a_selection_leaves_trials_at_their_positions_in_the_whole_campaign() -> None:
    chosen = selection.with_yardsticks(selection.select(QUICK, ["ffcv"], []))
    whole = {trial.name: trial.position for trial in plan.trials(QUICK, 2)}
    part = {trial.name: trial.position for trial in plan.trials(chosen, 2)}
    assert len(part) == 8
    assert part.items() <= whole.items()


@pytest.mark.slow
def test_what_a_selection_left_out_is_measured_later_in_the_same_campaign(tree: Path, tmp_path: Path) -> None:
    file = campaigns.file(tmp_path, TWO)
    places = ["--results", tmp_path / "results", "--reports", tmp_path / "reports"]

    def bench(*options: str) -> str:
        words = ["bench", file, "--data", tree, "--cache", tmp_path / "cache", *places, *options]
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 0, done.output
        return done.output.replace("\n", " ")

    def measured() -> list[str | None]:
        return [row.contestant for row in trials_csv.read(tmp_path / "results/small/trials.csv") if row.kind == "load"]

    assert "left out: b; the reference and the controls stay" in bench("--only", "a")
    assert measured() == ["a"]
    report = (tmp_path / "reports/small/report.md").read_text()
    assert "**1 of 2 trials**: not run yet; of b, none was." in report
    assert "all selected trials are there" in bench("--skip", "b")
    assert measured() == ["a"]
    bench()
    assert measured() == ["a", "b"]
    assert [path.name for path in (tmp_path / "results").iterdir() if path.name != ".locks"] == ["small"]
    assert not [judged for judged in check.check(tmp_path / "results/small") if judged.state == "invalid"]


def test_preparing_a_selection_writes_its_formats_alone(tree: Path, tmp_path: Path) -> None:
    file = campaigns.file(tmp_path, TWO)
    words = ["prepare", file, "--data", tree, "--cache", tmp_path / "cache", "--only", "b"]
    output = CliRunner().invoke(app, [*map(str, words)]).output
    assert "smaller: " in output
    assert "files: " not in output
