"""Certificates report each deviation from the requested work in plain words, and blame no honest loader."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from loaderbench.api import Artifact, Work
from loaderbench.campaign import registry
from loaderbench.certify import certification, certify, observe, pixels, probe
from loaderbench.certify.judge import judge
from loaderbench.formats import Prepared, prepare
from loaderbench.images import CanonicalImages
from loaderbench.loaders import nvjpeg
from loaderbench.machine.progress import Display
from loaderbench.records.certificates import Certificate
from loaderbench.trial.spec import ObserveSpec
from tests.campaigns import campaign

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAMPLES = 300
ASKED = campaign(
    {"a": {"loader": "imagefolder"}}, {"files": {"writer": "imagefolder", "mode": "jpeg", "max_side": 128}}
)
CHEATS = {
    "repeats a batch": "the same 16 samples come again and again",
    "drops samples": "in epoch 1, 3 of 300 samples never come",
    "exchanges samples": "in epoch 1, 5 of 300 samples never come, 5 come more than once",
    "pads the last batch": "the last batch is filled up with 4 samples that came before",
    "ignores shuffle": "samples come in the order in which they are stored: not shuffled",
    "shuffles in windows": "shuffled only within windows of about",
    "shuffles once": "every epoch comes in the same order",
    "cuts the middle": "every image is cut at the same place, its middle, instead of at random",
    "never flips": "no image is flipped",
    "has one epoch": "epoch 2 delivers no images",
    "has huge labels": "in epoch 1, 300 of 300 samples never come, 300 labels name no sample",
    "has negative labels": "in epoch 1, 300 of 300 samples never come, 300 labels name no sample",
    "halves images": "crops are made of the canonical JPEG at half their resolution",
    "shifts labels": "labels are shifted: an image comes with the label of the sample 1 after it",
    "delivers floats": "images are (3, 64, 64), float32 instead of (3, 64, 64), uint8",
    "delivers channels last": "images are (64, 64, 3), uint8 instead of (3, 64, 64), uint8",
    "overwrites batches": "a batch is overwritten while it is still in use, before the next one is requested",
    "decodes once": "images still come when their files are empty: they are held in memory",
}
"""Cheats of the planted loader, and how the fault that reports each begins."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A small probe set as JPEG files."""
    tree = tmp_path_factory.mktemp("probe")
    probe.write(tree, SAMPLES, lambda _: None)
    return prepare(ASKED, tree, tmp_path_factory.mktemp("cache"), Display(), strict=True)


@pytest.fixture
def certified(
    prepared: Prepared, tmp_path: Path, planted: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Certificate]:
    """Certify the planted loader with one of its cheats."""

    def use(_: float) -> None:
        for act in registry.loader("cheater").IN_USE:  # type: ignore[attr-defined]
            act()

    monkeypatch.setattr(observe, "time", SimpleNamespace(sleep=use))

    def certify(cheat: str, ranks: int = 1) -> Certificate:
        work = replace(ASKED.work_on(SAMPLES, 1), image_size=64, passes=1, ranks=ranks)
        spec = ObserveSpec("cheater", prepared.artifacts["files"], work, {"cheat": cheat}, tmp_path, tmp_path)
        for rank in range(ranks):
            with suppress(ValueError):  # of the files that are emptied in the end
                observe.run(replace(spec, work=replace(work, rank=rank)))
        return judge(tmp_path, CanonicalImages(prepared.canonicals["files"]), work, "jpeg")

    return certify


def test_an_honest_loader_has_no_faults(certified: Callable[[str], Certificate]) -> None:
    certificate = certified("")
    assert certificate.faults == ()
    assert certificate.traits["crops of"] == "canonical JPEG"
    assert certificate.traits["resampling"] == "area"


@pytest.mark.parametrize(("cheat", "said"), CHEATS.items())
def test_certificate_names_each_cheat(cheat: str, said: str, certified: Callable[[str], Certificate]) -> None:
    certificate = certified(cheat)
    assert certificate.state == "different work"
    assert [fault for fault in certificate.faults if fault.startswith(said)], certificate.faults


def test_nvjpeg_loader_does_the_requested_work_on_a_cpu(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(artifact: Artifact, work: Work) -> AbstractContextManager[nvjpeg.Batches]:
        return nullcontext(nvjpeg.Batches(artifact, work, 2, torch.device("cpu")))

    monkeypatch.setattr(registry, "loader", lambda _: SimpleNamespace(requires=(), stream=stream))
    asked = ASKED.work_on(SAMPLES, 1)
    work = replace(asked, image_size=64, passes=1, dtype="float16", normalised=True)
    with suppress(RuntimeError):  # of the files that are emptied in the end
        observe.run(ObserveSpec("nvjpeg", prepared.artifacts["files"], work, {}, tmp_path, tmp_path))
    certificate = judge(tmp_path, CanonicalImages(prepared.canonicals["files"]), work, "jpeg")
    assert certificate.faults == ()
    assert certificate.traits["batches"] == "(3, 64, 64), float16; contiguous; cpu"
    assert certificate.traits["resampling"] == "bilinear, antialiased"
    assert certificate.figures["own_psnr_db"] > 40


@pytest.mark.parametrize(
    ("cheat", "said"),
    [
        ("", ""),
        ("gives every rank all", "in epoch 1, 300 come more than once"),
        ("draws alike in all ranks", "of the crops repeat those of another batch: workers or ranks draw the same"),
    ],
)
def test_ranks_are_judged_together(cheat: str, said: str, certified: Callable[[str, int], Certificate]) -> None:
    faults = certified(cheat, 2).faults
    assert [fault for fault in faults if said in fault] if said else not faults, faults


def test_a_uniform_image_has_no_shift() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert pixels._shift_px(grey + 9, grey) == 0


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
    certificates = certify(small, prepared, tmp_path, Display())
    assert certificates["honest"].state == "as requested"
    assert certificates["honest"].traits["stored"] == "canonical JPEG bytes"
    assert certificates["never-flips"].faults == ("no image is flipped",)
    assert "stores JPEG of quality about 60 where 90 was requested" in certificates["lossy"].faults
    assert certificates["absent"].failure.startswith("not installed: no_such_library")
    assert "the planted | fault" in certificates["crashing"].failure
    lacking = []
    monkeypatch.setattr(certification, "_certificate", lambda job: lacking.append(job) or Certificate())
    again = certify(small, prepared, tmp_path, Display())
    assert [job.spec.options for job in lacking] == [{"end": "crash"}], "a failure may pass; it is tried again"
    assert again["never-flips"] == certificates["never-flips"]


def test_an_unreadable_observation_fails_the_certificate(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: str, spec: ObserveSpec, *__: object) -> dict[str, str]:
        (spec.scratch / "rank0").mkdir()
        (spec.scratch / "rank0" / "seen.npz").write_bytes(b"no observation")
        return {"status": "ok", "reason": ""}

    monkeypatch.setattr(certification.processes, "run", run)
    spec = ObserveSpec("cheater", prepared.artifacts["files"], ASKED.work_on(SAMPLES, 1), {})
    job = certification._Job(spec, prepared.canonicals["files"], "jpeg", tmp_path / "log")
    assert certification._certificate(job).failure.startswith("what it delivers cannot be judged: ")
