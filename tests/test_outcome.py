"""A command that does not give what was asked for says so, and exits with a status other than 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loaderbench.cli import app
from loaderbench.formats import writing
from loaderbench.records import trials_csv
from loaderbench.run import outcome
from tests import campaigns, fabricate

NAMES = [actor.name for actor in fabricate.CAST[:4]]
CAMPAIGN = campaigns.campaign({name: {"loader": "imagefolder"} for name in NAMES})


def failure(folder: Path, failed: Sequence[str]) -> str:
    """Why a campaign has no answer in whose two blocks these contestants failed; the first is the reference."""
    for block in (1, 2):
        for actor in fabricate.CAST[:4]:
            row = fabricate.load(actor, block)
            broken = replace(row, status="failed", reason="it broke", images_per_s=None)
            trials_csv.append(folder / "trials.csv", broken if actor.name in failed else row)
    return outcome.failure(CAMPAIGN, folder)


@pytest.mark.parametrize("failed", [[], NAMES[1:2], NAMES[2:4]])
def test_campaign_with_its_reference_and_half_of_the_contestants_has_an_answer(
    tmp_path: Path, failed: list[str]
) -> None:
    assert failure(tmp_path, failed) == ""


@pytest.mark.parametrize(("failed", "told"), [(NAMES[:1], "the reference has"), (NAMES[1:], "most contestants have")])
def test_campaign_without_reference_or_most_contestants_says_which_failed(
    tmp_path: Path, failed: list[str], told: str
) -> None:
    first, *others = failure(tmp_path, failed).splitlines()
    assert first == f"{told} no speed; {len(failed)} of 4 have none:"
    assert others == [f"  {name}: failed, it broke" for name in failed]


def run(tmp_path: Path, tree: Path, *words: object) -> Any:
    """Run a command on a small campaign in this process."""
    file = campaigns.file(tmp_path, campaigns.TOML.replace("limit_s = 600", "limit_s = 0.01"))
    return CliRunner().invoke(
        app, [*map(str, [*words[:1], file, "--data", tree, "--cache", tmp_path / "cache", *words[1:]])]
    )


def test_bench_exits_with_1_if_the_reference_failed(tmp_path: Path, tree: Path) -> None:
    done = run(tmp_path, tree, "bench", "--results", tmp_path / "results", "--reports", tmp_path / "reports")
    assert done.exit_code == 1, done.output
    assert "the reference has no speed; 1 of 1 have none:\n  a: " in done.output
    assert (tmp_path / "reports" / "small" / "report.md").exists()


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("unavailable", 3)])
def test_prepare_names_a_format_that_is_missing_and_exits(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    monkeypatch.setattr(writing.Forks, "run", lambda *_: {"status": status, "reason": "it broke"})
    done = run(tmp_path, tree, "prepare")
    assert done.exit_code == code, done.output
    assert f"files: {status}: it broke" in done.output
