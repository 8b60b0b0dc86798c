"""The committed reference campaigns of earlier versions are still read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loaderbench.campaign.campaign import Campaign
from loaderbench.findings.check import check
from loaderbench.report import report

ROOT = Path(__file__).parent.parent
REFERENCES = sorted((ROOT / "results").glob("reference-*"))


def test_reference_campaigns_exist() -> None:
    assert len(REFERENCES) >= 5


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda folder: folder.name)
def test_every_row_of_a_reference_campaign_is_valid(folder: Path) -> None:
    states = {judgement.state.lower() for judgement in check(folder)}
    assert "invalid" not in states


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda folder: folder.name)
def test_the_campaign_of_a_reference_can_be_loaded(folder: Path) -> None:
    stored = json.loads((folder / "env.json").read_text())["campaign"]
    names = [contestant.name for contestant in Campaign.model_validate(stored).contestants]
    assert names == [contestant["name"] for contestant in stored["contestants"]]


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda folder: folder.name)
def test_the_report_of_a_reference_names_every_contestant(folder: Path, tmp_path: Path, one_picture: None) -> None:
    text = report.write(folder, tmp_path).read_text()
    contestants = json.loads((folder / "env.json").read_text())["campaign"]["contestants"]
    titles = {contestant["title"] for contestant in contestants if not contestant["control"]}
    assert {title for title in titles if title not in text.replace("\\", "")} == set()
