"""Every loader delivers the work, measured in a process of its own as in a campaign."""

from __future__ import annotations

from pathlib import Path

import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign.campaign import Campaign
from loaderbench.formats.prepare import Prepared
from loaderbench.loaders import pace
from loaderbench.machine import process
from loaderbench.run import runner

NAMES = (
    "ffcv-raw-mapped",
    "ffcv-jpeg-slots",
    "litdata-raw",
    "litdata-jpeg",
    "imagefolder-original-pil",
    "imagefolder-256-torchvision",
)
"""Each loader with each of its formats and each of its options."""


@pytest.mark.parametrize("name", NAMES)
def test_contestant(
    name: str, quick: Campaign, everything: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_OPT", "0")  # FFCV does the same work more slowly, but compiles it in half the time
    [contestant] = [contestant for contestant in quick.contestants if contestant.name == name]
    artifact = everything.artifacts[contestant.format]
    spec = runner.trial_spec(quick, contestant, artifact, tmp_path / "times.npz")
    log = tmp_path / "log"
    result = process.run("loaderbench.trial.trial.run", spec, log, 90)
    assert result["status"] == "ok", log.read_text()
    assert result["images_per_s"] > 0
    assert result["batch_memory"] == ("private" if contestant.loader == "ffcv" else "shared")  # by worker processes
    assert result["cpu_s"] > 0
    assert result["peak_memory_mib"] >= result["peak_anon_memory_mib"] > 0
    phases = ("import_s", "construct_s", "first_batch_s", "window_s", "epoch_end_s", "teardown_s")
    assert all(result[phase] > 0 for phase in phases)


@pytest.mark.parametrize("label_sum", [0, 95, 96, 100, 191])
def test_labels_of_pace_are_classes_and_have_the_epochs_sum(label_sum: int, tmp_path: Path) -> None:
    artifact = Artifact("any", str(tmp_path), 96, label_sum, 0, 0, Encoding("raw"), classes=3)
    with pace.stream(artifact, Work(batch_size=25, workers=1, image_size=2, passes=2)) as batches:
        epoch = [batch.tolist() for _, batch in batches]
        assert len(epoch) == len(batches)
    labels = [label for batch in epoch for label in batch]
    assert len(labels) == 2 * 96
    assert sum(labels) == 2 * label_sum
    assert max(labels) < artifact.classes
