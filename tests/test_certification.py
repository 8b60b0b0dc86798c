"""Certificates of a campaign are made in separate processes, kept in the cache, and decide the exit status."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from loaderbench.api import random_crop
from loaderbench.campaign import pixel_values
from loaderbench.certify import certification, certify
from loaderbench.certify.judge import judge
from loaderbench.cli import app
from loaderbench.formats import modes, prepare
from loaderbench.machine.progress import Display
from loaderbench.records.certificates import Certificate
from loaderbench.trial import device
from tests import campaigns
from tests.campaigns import campaign

if TYPE_CHECKING:
    from pathlib import Path

MISSING = "unavailable: not installed: ffcv; install with: make setup"


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_certificates_are_kept_and_failed_ones_made_again(
    tree: Path, tmp_path: Path, planted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    contestants = {
        "honest": {"loader": "cheater"},
        "never flips": {"loader": "cheater", "options": {"cheat": "never flips"}},
        "absent": {"loader": "absent"},
        "lossy": {"loader": "cheater", "format": "lossy"},
        "crashing": {"loader": "doomed", "options": {"end": "crash"}},
    }
    formats = {"files": {"writer": "imagefolder", "mode": "jpeg"}, "lossy": {"writer": "planted-lossy", "mode": "jpeg"}}
    small = campaign({name.replace(" ", "-"): keys for name, keys in contestants.items()}, formats)
    small = small.model_copy(update={"data": small.data.model_copy(update={"probe": 120})})
    prepared = prepare(small, tree, tmp_path, Display(), strict=True)
    monkeypatch.setattr(certification, "map_processes", lambda make, _: nullcontext(lambda jobs: map(make, jobs)))
    tuned = {"honest": {"cheat": "shuffles once", "workers": 3}, "absent": None, "crashing": {"end": "segfault"}}
    certificates = certify(small, prepared, tmp_path, Display(), tuned)
    assert certificates["honest"].state == "as requested"
    assert certificates["honest"].traits["stored"] == "canonical JPEG bytes"
    assert certificates["never-flips"].faults == ("no image is flipped",)
    assert "stores JPEG of quality about 60 where 90 was requested" in certificates["lossy"].faults
    assert certificates["honest/best"].faults == ("every epoch comes in the same order",)
    assert "3 workers" in certificates["honest/best"].seen_on
    assert certificates["crashing/best"].failure.startswith("failed: the process was ended by SIGSEGV")
    assert "absent/best" not in certificates
    assert str(certificates["absent"]).startswith("unavailable: not installed: no_such_library; install with: ")
    assert "the planted | fault" in certificates["crashing"].failure
    assert certificates["crashing"].state == "unknown"
    lacking = []
    monkeypatch.setattr(certification, "_certificate", lambda job: lacking.append(job) or Certificate())
    again = certify(small, prepared, tmp_path, Display())
    assert [job.spec.options for job in lacking] == [{"end": "crash"}], "a failure may pass; it is tried again"
    assert again["never-flips"] == certificates["never-flips"]


def test_certificate_key_covers_all_code_that_it_depends_on() -> None:
    needed = {inspect.getsourcefile(each) for each in (random_crop, pixel_values, device, modes, judge, Certificate)}
    assert needed <= set(map(str, certification._CODE))


@pytest.mark.usefixtures("forked", "planted")
def test_a_cached_certificate_of_another_version_is_ignored(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = campaign({"a": {"loader": "cheater"}})
    small = small.model_copy(update={"data": small.data.model_copy(update={"probe": 20})})
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "0123456789abcdef.json").write_text('{"unknown": 1}')
    monkeypatch.setattr(certification, "map_processes", lambda *_: nullcontext(lambda jobs: [Certificate()]))
    prepared = prepare(small, tree, tmp_path, Display(), strict=True)
    assert certify(small, prepared, tmp_path, Display())["a"].state == "as requested"


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        ([Certificate()], 0, "a: as requested"),
        ([Certificate(), Certificate(failure=MISSING)], 3, f"b: {MISSING}"),
        ([Certificate(faults=("never flips",)), Certificate(failure=MISSING)], 1, "NOT AS REQUESTED: never flips"),
        ([Certificate(failure="timeout: killed after 1 s")], 1, "a: unknown: timeout: killed after 1 s"),
    ],
)
def test_exit_status_separates_different_work_from_a_missing_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[Certificate], status: int, said: str
) -> None:
    text = campaigns.TOML
    _, contestant = text.split("[[contestants]]")
    path = campaigns.file(tmp_path, text + "[[contestants]]" + contestant.replace('"a"', '"b"'))
    certificates = dict(zip("ab", [*found, Certificate()], strict=False))
    monkeypatch.setattr("loaderbench.certify.certify", lambda *_: certificates)
    monkeypatch.setattr("loaderbench.formats.prepare", lambda *_, **__: None)
    done = CliRunner().invoke(app, ["certify", str(path), "--cache", str(tmp_path)])
    assert done.exit_code == status
    assert said in done.output
