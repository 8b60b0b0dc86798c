"""A report claims what was measured, names what is missing, and survives odd text, old files and crashes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from loaderbench.findings import check, raw_times
from loaderbench.report import plots, report
from loaderbench.report.markdown import anchor
from tests import fabricate
from tests.fabricate import CAST
from tests.reports import rows_of, tables, written

ALL_PICTURES = plots.PLOTS
pytestmark = pytest.mark.usefixtures("one_picture")


def test_report_shows_every_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "PLOTS", ALL_PICTURES)
    monkeypatch.setattr(raw_times, "gpu_uses", lambda *_: fabricate.gpu_uses(fabricate.CAST))
    text = written(tmp_path)
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    made = {path.name for path in (tmp_path / "reports" / "quick").iterdir()}
    of_other_campaigns = {"keeping-busy.png", "scaling.png", "from-disk.png"}
    assert sorted(shown) == sorted({plot.file for plot in ALL_PICTURES} - of_other_campaigns)
    assert made == {"report.md", *shown}


def test_headline_names_the_fastest_contestant_and_its_ratio(tmp_path: Path) -> None:
    rows = [
        fabricate.load(actor, block, images_per_s=speed)
        for actor, speed in zip(CAST[:3], (3000.0, 1500.0, 1000.0), strict=True)
        for block in range(1, 7)
    ]
    text = written(tmp_path, rows, cast=CAST[:3], blocks=6)
    assert "**FFCV raw, os_cache on is fastest: 3,000 images/s**" in text
    assert "2.00 times the reference, FFCV raw, os_cache off" in text
    assert "descriptive" not in text
    assert "Preliminary" not in text
    place, title, speed, ratio, *_ = next(row for row in rows_of(text, "FFCV JPEG, os_cache on") if len(row) == 9)
    assert (place, title, speed) == ("3", "FFCV JPEG, os_cache on", "1,000 [1,000\N{EN DASH}1,000]")
    assert ratio == "0.667\N{MULTIPLICATION SIGN} [0.667\N{EN DASH}0.667]"
    [tested] = [row for row in rows_of(text, "slower (p 0.0312)") if row[0] == title]
    assert tested[1] == "6"


def test_tables_are_complete_and_links_have_targets(tmp_path: Path) -> None:
    text = written(tmp_path)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    anchors = {anchor(heading) for heading in re.findall(r"^##+ (.*)$", text, re.MULTILINE)}
    links = set(re.findall(r"\(#([^)]*)\)", text))
    assert links
    assert links <= anchors


def test_a_report_of_few_blocks_claims_no_rank(tmp_path: Path) -> None:
    text = written(tmp_path, blocks=3)
    assert "- **Confidence:** descriptive only. No contestant has a speed in more than 3 blocks;" in text
    assert "is fastest" not in text
    assert "| Rank |" not in text


def test_headline_names_rivals_that_no_test_separates(tmp_path: Path) -> None:
    rows = [
        fabricate.load(actor, block, images_per_s=1000.0 + 10 * block + offset)
        for actor, offset in zip(CAST[:2], (0, 5), strict=True)
        for block in range(1, 7)
    ]
    text = written(tmp_path, rows, cast=CAST[:2], blocks=6)
    assert "**FFCV raw, os_cache off has the highest median: " in text
    assert "no test separates it from FFCV raw, os_cache on." in text


@pytest.mark.parametrize("status", ["failed", "timeout", "invalid", "unavailable"])
def test_failed_trials_are_listed_with_their_reason(tmp_path: Path, status: str) -> None:
    bad = [fabricate.failed(CAST[1], block, status, "it broke") for block in (1, 2, 3)]
    good = [fabricate.load(CAST[0], block) for block in (1, 2, 3)]
    text = written(tmp_path, good + bad, cast=CAST[:2])
    rows = rows_of(text, CAST[1].title)
    assert [CAST[1].title, status, "3", "1\N{EN DASH}3", "it broke"] in rows
    assert any(cells[2] == f"{status}: it broke" for cells in rows)
    assert "There is no ratio" not in text  # CAST[0] is the reference


def test_report_of_an_unfinished_campaign_is_preliminary(tmp_path: Path) -> None:
    text = written(tmp_path, [fabricate.load(CAST[0], 1)], cast=CAST[:3])
    assert "- **Preliminary:** after 0 of 3 blocks, 1 of 9 trials. Every figure can still change." in text
    assert f"{CAST[2].title} (not run yet)" in text


def test_report_after_the_first_block_is_preliminary(tmp_path: Path) -> None:
    text = written(tmp_path, [fabricate.load(actor, 1) for actor in CAST[:3]], cast=CAST[:3])
    screen = text[: text.index("![")]
    assert "FFCV raw, os_cache on has the highest median so far: " in screen
    assert "(from one block)" in screen
    assert "- **Preliminary:** after 1 of 3 blocks, 3 of 9 trials." in screen
    assert "No contestant has a speed in more than 1 block; ranking needs at least 6." in screen
    assert "No speed" not in screen


def test_report_of_no_rows_says_so(tmp_path: Path) -> None:
    text = written(tmp_path, [])
    assert "**Nothing has been compared yet**: no trial of a block has been recorded." in text
    assert "![" not in text
    assert "## How can this be repeated?" in text


def test_report_of_failed_rows_ranks_nobody(tmp_path: Path) -> None:
    text = written(tmp_path, [fabricate.failed(actor, 1) for actor in CAST])
    assert "**No contestant can be ranked**: none has a speed." in text
    assert text.count("![") == 1


def test_report_of_a_single_contestant_makes_no_comparison(tmp_path: Path) -> None:
    text = written(tmp_path, cast=CAST[:1], blocks=1)
    assert "**FFCV raw, os_cache on delivers " in text


NASTY = ("a|b", "`code", "two\nlines", "**bold**", "[link](x)", "<b>", "$x$ and $y$", "\\", "_a_")


def test_foreign_text_breaks_no_table(tmp_path: Path) -> None:
    cast = [
        fabricate.Actor(f"n{number}", f"{nasty} {number}", "ffcv", "ffcv-raw", 1000 + number)
        for number, nasty in enumerate(NASTY)
    ]
    rows = [fabricate.load(actor, 1) for actor in cast[:5]]
    rows += [fabricate.failed(actor, 1, reason=actor.title) for actor in cast[5:]]
    rows += [fabricate.write("ffcv-raw", title=NASTY[0], status="failed", reason=NASTY[1])]
    text = written(tmp_path, rows, cast=cast, blocks=1, unreadable=[(nasty, nasty) for nasty in NASTY])
    rendered = tables(text)
    for actor in cast:
        title = " ".join(actor.title.split())
        assert [row for row in rendered if row[1:2] == [title]], title  # in the results
    for nasty in NASTY:
        flat = " ".join(nasty.split())
        assert [flat, flat] in rendered  # among the unreadable images
    what = ["Converting: a|b", "failed", "1", "\N{EN DASH}", "`code"]
    assert what in rendered


def test_missing_figures_are_dashes(tmp_path: Path) -> None:
    bare = fabricate.failed(CAST[0], 1, status="ok", reason="")
    text = written(tmp_path, [fabricate.load(CAST[0], 1, cores_used=None), bare], cast=CAST)
    assert "None" not in text
    assert "nan" not in text.lower()


def test_command_repeats_the_campaign_on_the_same_images(tmp_path: Path) -> None:
    env = fabricate.environment(CAST, 3, CAST[0].name)
    text = written(tmp_path, data=env["data"] | {"origin": "/my photos"})
    command = "loaderbench bench quick --data '/my photos' --samples 4096 --batch-size 128 --blocks 3"
    assert f"```\n{command}\n```" in text


def test_command_names_split_and_data_called_synthetic(tmp_path: Path) -> None:
    env = fabricate.environment(CAST, 3, CAST[0].name)
    env["campaign"]["data"]["split"] = "val"
    data = env["data"] | {"origin": "synthetic_faces, split val"}
    text = written(tmp_path, cast=CAST, campaign=env["campaign"], data=data)
    assert "loaderbench bench quick --data synthetic_faces --split val --samples" in text


def test_error_for_another_schema_names_the_version_that_reads_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"schema 9 instead of 1; use loaderbench 0\.1\.0"):
        written(tmp_path, schema=9)


EARLIER = ("cold", "best", "tuning", "consumers", "stream", "published", "changes")
"""Keys of a campaign that the first versions lacked."""


@pytest.mark.parametrize("lacking", [EARLIER, ("cold",), ("best",)])
def test_a_campaign_of_an_earlier_version_that_lacks_keys_is_read(tmp_path: Path, lacking: tuple[str, ...]) -> None:
    env = fabricate.environment(CAST[:2], 1, CAST[0].name)["campaign"]
    rows = [fabricate.load(actor, 1) for actor in CAST[:2]]
    text = written(tmp_path, rows, campaign={name: value for name, value in env.items() if name not in lacking})
    assert "**FFCV raw, os_cache on has the highest median" in text
    assert check.check(tmp_path / "results" / "quick")


def test_error_names_the_missing_key_of_env_json(tmp_path: Path) -> None:
    folder = fabricate.campaign(tmp_path / "quick")
    env = json.loads((folder / "env.json").read_text())
    del env["host"], env["gpu"]
    (folder / "env.json").write_text(json.dumps(env))
    with pytest.raises(ValueError, match=r"env\.json lacks host, gpu; restore it, or measure again"):
        report.write(folder, tmp_path / "out")


def test_equal_titles_are_distinguished_in_every_section(tmp_path: Path) -> None:
    cast = [replace(actor, title="The same") for actor in CAST[:2]]
    text = written(tmp_path, [fabricate.load(actor, 1) for actor in cast], cast=cast, blocks=1)
    assert rows_of(text, "The same") == []
    assert len(rows_of(text, f"The same ({cast[0].name})")) == len(rows_of(text, f"The same ({cast[1].name})")) > 3


def test_a_new_report_replaces_only_the_old_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    report.write(fabricate.campaign(tmp_path / "whole"), out)
    (out / "notes.txt").write_text("mine")
    report.write(fabricate.campaign(tmp_path / "empty", []), out)
    assert {path.name for path in out.iterdir()} == {"report.md", "notes.txt"}


def test_a_crash_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    report.write(fabricate.campaign(tmp_path / "old"), out)
    old = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(report, "_publish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(fabricate.campaign(tmp_path / "new", blocks=2), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == old
