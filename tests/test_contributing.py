"""The example of docs/adding-a-loader.md is installed as a third party's package, and measured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loaderbench.records import certificates, trials_csv

ROOT = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-m", "loaderbench.cli"]
SHORT = """
[data]
probe = 120

[work]
epoch_images = 96

[timing]
blocks = 1
warmup_s = 0.2
window_s = 0.2
window_batches = 1
pause_s = 0.1
limit_s = 600.0
stage_s = 0

"""
"""The timing of the example's campaign in this test."""


def example(folder: Path) -> None:
    """Write every file that the page shows, under its name."""
    text = (ROOT / "docs" / "adding-a-loader.md").read_text()
    for name, content in re.findall(r"(?ms)^`(\S+)`\n```\w+\n(.*?)^```", text):
        (folder / name).write_text(content)


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment in which the example is installed."""
    (tmp_path / "package").mkdir()
    example(tmp_path / "package")
    uv = Path(sys.executable).parent / "uv"
    command = [uv, "pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*command, "--target", tmp_path / "site", tmp_path / "package"], check=True, capture_output=True)
    return os.environ | {"PYTHONPATH": str(tmp_path / "site")}


def test_an_installed_example_loader_is_found(installed: dict[str, str]) -> None:
    command = [*PROGRAM, "adapters"]
    listed = subprocess.run(command, env=installed, capture_output=True, text=True, check=True, cwd=ROOT)
    assert re.search(r"^loader\s+opencv\s+available", listed.stdout, re.MULTILINE)


@pytest.mark.slow
def test_an_installed_example_loader_is_certified_and_measured(
    installed: dict[str, str], tree: Path, tmp_path: Path
) -> None:
    campaign = tmp_path / "package" / "opencv.toml"
    campaign.write_text(re.sub(r"(?s)\[timing\]\n.*?\n\n", SHORT, campaign.read_text()))
    places = {name: str(tmp_path / name) for name in ("cache", "results", "reports")}
    options = [word for name, path in places.items() for word in (f"--{name}", path)]
    command = [*PROGRAM, "bench", campaign, "--data", tree, "--batch-size", "32", *options]
    subprocess.run(command, env=installed, check=True, cwd=ROOT)
    rows = trials_csv.read(tmp_path / "results" / "opencv" / "trials.csv")
    assert {row.contestant: row.status for row in rows if row.kind == "load"} == {"imagefolder": "ok", "opencv": "ok"}
    certified = certificates.load(tmp_path / "results" / "opencv")
    assert {name: certificate.faults for name, certificate in certified.items()} == {"imagefolder": (), "opencv": ()}
    assert {row.certificate for row in rows if row.contestant == "opencv"} == {certified["opencv"].digest}
    assert (tmp_path / "reports" / "opencv" / "report.md").exists()
