"""The command that a report prints repeats its campaign, and the same images are the same by any name."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loaderbench.cli import app
from tests import campaigns
from tests.archives import image, tar

pytestmark = pytest.mark.usefixtures("planted", "forked", "one_picture")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the user, with a campaign of two trials in a folder with spaces in its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOADERBENCH_CACHE", raising=False)
    Path("my  campaigns").mkdir()
    text = campaigns.TOML.replace('loader = "imagefolder"', 'loader = "planted"').replace("blocks = 1", "blocks = 2")
    campaigns.file(Path("my  campaigns"), text.replace("probe = 0", "probe = 0, samples = 1000"))
    return tmp_path


CAMPAIGN = str(Path("my  campaigns", "small.toml"))


def run(*words: str) -> str:
    """Run the command line here and return its output."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def printed() -> list[str]:
    """The words of the command in the report."""
    text = Path("reports", "small", "report.md").read_text()
    return shlex.split(text.partition("## How can this be repeated?")[2].split("```")[1])


def forget_the_last_trial() -> None:
    rows = Path("results", "small", "trials.csv")
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))


def shards(folder: Path) -> None:
    folder.mkdir()
    for number, split in enumerate(["train", "val"]):
        members = [
            (f"{n}.{kind}", part) for n in range(8) for kind, part in (("jpg", image(n + number)), ("cls", b"1"))
        ]
        tar(folder / f"{split}-0.tar", members)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        'it\'s "mine", split  val',
        pytest.param("synthetic  faces", marks=slow),
        pytest.param("synthetic, seed 0", marks=slow),
    ],
)
def test_the_printed_command_continues_the_campaign(tree: Path, name: str) -> None:
    Path(name).symlink_to(tree)
    run("bench", CAMPAIGN, "--data", name, "--workers", "2", "--batch-size", "16", "--samples", "40")
    forget_the_last_trial()
    loaderbench, *words = printed()
    assert loaderbench == "loaderbench"
    assert "resuming" in run(*words)
    assert [path.name for path in Path("results").glob("small*")] == ["small"]
    assert json.loads(Path("results/small/env.json").read_text())["campaign"]["data"]["samples"] == 40


@slow
def test_the_printed_command_names_the_split(here: Path) -> None:
    shards(here / "my shards")
    run("bench", CAMPAIGN, "--data", "my shards", "--split", "val", "--batch-size", "4")
    forget_the_last_trial()
    assert "resuming" in run(*printed()[1:])
    assert [path.name for path in Path("results").glob("small*")] == ["small"]


@slow
def test_a_folder_named_in_another_way_is_the_same_data(tree: Path, here: Path) -> None:
    Path("pictures").symlink_to(tree)
    Path("photos").symlink_to("pictures")
    for number, name in enumerate(["photos", "./photos/", str(here / "photos"), "data/../pictures"]):
        assert ("resuming" in run("bench", CAMPAIGN, "--data", name)) == bool(number), name
        forget_the_last_trial()
    assert [path.name for path in Path("results").glob("small*")] == ["small"]
    assert [len(list(Path("data", kind).iterdir())) for kind in ("canonical", "artifacts")] == [1, 1]


@pytest.mark.slow
def test_other_images_in_the_same_folder_are_other_data(tree: Path) -> None:
    Path("photos").mkdir()
    for folder in ("class0", "class1"):
        Path("photos", folder).symlink_to(tree / folder)
    run("bench", CAMPAIGN, "--data", "photos")
    forget_the_last_trial()
    Path("photos", "class2").symlink_to(tree / "class2")
    assert "was measured under other conditions (data)" in run("bench", CAMPAIGN, "--data", "photos")
