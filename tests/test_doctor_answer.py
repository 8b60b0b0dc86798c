"""The answer on a loader of the user's own is one page, in the terminal and in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loaderbench import cli
from loaderbench import doctor as examining
from loaderbench.doctor import answer
from loaderbench.doctor.case import AS_IS, Cure, Diagnosis, Trial
from loaderbench.doctor.changes import Change
from tests.test_doctor_verdict import PLAIN

EN_DASH, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
TARGET = "my_project.data:make_loader"
CURES = (
    Cure("256 px copies of the files", 4.0, Change(reader="256 px copies")),
    Cure("no lock", None),
    Cure("a third", 1.2, Change(as_bytes=True)),
)
TRIALS = (
    Trial(AS_IS, Change(), PLAIN, ""),
    Trial("transform <Blur|*> at no cost", Change(), None, "ValueError: a | b\n\x1b[31m$x"),
)
DIAGNOSIS = Diagnosis("decoder", "Decoding takes most of the time.", ("90% of it",), CURES, 50.0, 0.4, TRIALS)


def cells(page: str) -> list[list[str]]:
    """Return the cells of each row of a page's tables."""
    rows = [line for line in page.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]


def test_page_holds_the_verdict_the_first_two_cures_and_all_experiments() -> None:
    page = answer.text(DIAGNOSIS, TARGET)
    assert page.startswith(
        "# What holds back my_project.data:make_loader?\n\n"
        "**Decoding takes most of the time.** (bottleneck: decoder)\n\n- 90% of it\n\n"
        "Training waits for data 40% of the time.\n\n## What would help\n\n|"
    )
    assert ["1. 256 px copies of the files", f"4.00{TIMES}", "measured"] in cells(page)
    assert ["2. no lock", EN_DASH, "not measured"] in cells(page)
    assert ["as it is", "100", f"2.00{TIMES}"] in cells(page)
    assert "a third" not in page


def test_names_and_reasons_are_shown_as_text() -> None:
    page = answer.text(DIAGNOSIS, TARGET)
    assert "\n- Not measured: transform \\<Blur\\|\\*\\> at no cost: ValueError: a \\| b \\$x.\n" in page


@pytest.mark.parametrize(
    ("changed", "heading"),
    [({"cures": ()}, "## What would"), ({"waiting": None}, "Training"), ({"bottleneck": "cannot tell"}, "Training")],
)
def test_what_is_not_known_takes_no_room(changed: dict[str, Any], heading: str) -> None:
    assert heading not in answer.text(replace(DIAGNOSIS, **changed), TARGET)


def test_terminal_and_file_get_the_same_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "examine", lambda *_, **__: DIAGNOSIS)
    file = tmp_path / "new" / "answer.md"
    done = CliRunner().invoke(cli.app, ["doctor", TARGET, "--markdown", str(file)])
    assert done.exit_code == 0
    assert file.read_text() == answer.text(DIAGNOSIS, TARGET)
    assert file.read_text() in done.output


def test_file_that_cannot_be_written_is_refused_before_the_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "examine", lambda *_, **__: pytest.fail("examined"))
    done = CliRunner().invoke(cli.app, ["doctor", TARGET, "--markdown", "/proc/none/answer.md"])
    assert done.exit_code == 1
    assert done.output.startswith("--markdown: /proc/none cannot be written: ")
