"""Text from data, adapters, servers and campaign files is shown as text, and does nothing where it is shown."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from loaderbench import cli
from loaderbench.campaign import plan
from loaderbench.findings import check
from loaderbench.machine.progress import Display
from loaderbench.machine.text import cell, one_line, printable, printable_lines
from loaderbench.records import trials_csv
from loaderbench.report import plots, report
from loaderbench.run import runner, trial_table
from tests import fabricate
from tests.campaigns import campaign
from tests.fabricate import CAST, Actor

ESCAPE, TURNED = "\x1b]0;owned\x07", "\N{RIGHT-TO-LEFT OVERRIDE}"
NASTY = f"{ESCAPE}{TURNED}[/b] [red] :skull: caf\udce9 \ud800 $x$"
SHOWN = r"\x1b]0;owned\x07\u202e[/b] [red] :skull: caf\udce9 \ud800 $x$"


@pytest.mark.parametrize("shown", [printable, printable_lines, one_line, cell])
def test_no_control_or_formatting_character_is_shown_as_it_is(shown) -> None:
    for number in range(0x110000):
        if unicodedata.category(character := chr(number)) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character != "\n":
            assert shown(f"a{character}b").isprintable(), hex(number)


def test_names_of_any_script_stay_as_they_are() -> None:
    for name in ("Größe", "猫", "кот", "قطة", "🐈"):
        assert printable(name) == one_line(name) == name
    assert printable("caf\udce9") == r"caf\xe9"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a display writes to a terminal."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200, color_system=None, legacy_windows=False)
    monkeypatch.setattr("loaderbench.machine.progress.Console", lambda **_: console)
    return file


def test_a_display_shows_text_as_text(terminal: io.StringIO) -> None:
    display = Display()
    display.say(f"{NASTY}\nsecond line")
    assert terminal.getvalue() == f"{SHOWN}\nsecond line\n"
    with display.stage(NASTY, 1), display.transfer(NASTY):
        pass
    assert "owned" in terminal.getvalue()
    assert "\x1b]" not in terminal.getvalue()
    assert TURNED not in terminal.getvalue()


def test_the_command_line_shows_text_as_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    judged = [check.Judgement("campaign", "valid", (NASTY, "second\nvalid: line"))]
    monkeypatch.setattr(check, "check", lambda _: judged)
    (tmp_path / "env.json").touch()
    assert CliRunner().invoke(cli.app, ["check", str(tmp_path)]).stdout == (
        f"valid: campaign: {SHOWN}; second valid: line\n"
    )


def test_the_live_table_shows_titles_as_text(terminal: io.StringIO) -> None:
    one = campaign({"a": {"loader": "imagefolder"}}, blocks=1)
    [contestant] = one.contestants
    titled = one.model_copy(update={"contestants": (contestant.model_copy(update={"title": NASTY}),)})
    with trial_table.trial_table(Display(), titled, []) as show:
        show(plan.trials(titled, 1)[0])
    assert SHOWN in terminal.getvalue()
    assert "\x1b]" not in terminal.getvalue()


def test_no_cell_of_a_csv_file_is_a_formula_or_holds_control_characters(tmp_path: Path) -> None:
    formula = f'=HYPERLINK("http://x"){ESCAPE}{TURNED}'
    row = fabricate.failed(Actor("a", formula, "ffcv", "ffcv-raw", 1), 1, reason=f"@{formula}")
    trials_csv.append(tmp_path / "trials.csv", row)
    [kept] = trials_csv.read(tmp_path / "trials.csv")
    assert kept.title == r"""'=HYPERLINK("http://x")\x1b]0;owned\x07\u202e"""
    assert kept.reason.startswith("'@=")


@pytest.mark.parametrize("path", ["=1+1/a.jpg", "+a", "-a", "@a"])
def test_paths_of_unreadable_images_are_no_formulas(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_continues", lambda *_: False)
    prepared = SimpleNamespace(rejected=[SimpleNamespace(path=path, reason=f"={ESCAPE}")], records=[])
    runner._begin(campaign({"a": {"loader": "imagefolder"}}, blocks=1), tmp_path, {}, prepared, Display())
    with (tmp_path / "unreadable.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["path", "reason"], [f"'{path}", r"'=\x1b]0;owned\x07"]]


def test_a_report_and_its_pictures_show_any_text_of_the_folder(tmp_path: Path) -> None:
    cast = (CAST[0], Actor("b", NASTY, "ffcv", "ffcv-raw", 900))
    data = fabricate.environment(cast, 1, "b")["data"]
    rows = [fabricate.load(cast[0], 1), fabricate.failed(cast[1], 1, reason=NASTY)]
    folder = fabricate.campaign(tmp_path / "quick", rows, cast=cast, data={**data, "origin": f"/data/{NASTY}"})
    report.write(folder, tmp_path / "report")
    text = (tmp_path / "report" / report.REPORT).read_text()
    assert text.replace("\n", "").isprintable()
    assert r"caf\\udce9" in text
    assert (tmp_path / "report" / plots.PLOTS[0].file).exists()
