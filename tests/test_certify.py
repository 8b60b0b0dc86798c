"""A certificate names each deviation from the requested work; an honest loader has none."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from loaderbench.api import Artifact, Work
from loaderbench.campaign import registry
from loaderbench.certify import augmentation, certification, delivery, observe, pixels, probe, shuffle
from loaderbench.certify.identity import Shown
from loaderbench.certify.judge import judge
from loaderbench.certify.observation import limit_s
from loaderbench.formats import Prepared, prepare
from loaderbench.images import CanonicalImages
from loaderbench.loaders import nvjpeg
from loaderbench.machine.progress import Display
from loaderbench.records.certificates import Certificate
from loaderbench.trial.spec import ObserveSpec
from tests.campaigns import campaign
from tests.cuda import Cuda

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
    "delivers nothing": "epoch 1 delivers no images",
    "delivers one batch": "in epoch 1, 284 of 300 samples never come",
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

    def certify(cheat: str, ranks: int = 1, batch_size: int = 16) -> Certificate:
        work = replace(ASKED.work_on(SAMPLES, 1), image_size=64, passes=1, ranks=ranks, batch_size=batch_size)
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


def test_prefetching_over_the_end_of_an_epoch_is_not_taken_for_caching(
    certified: Callable[[str], Certificate],
) -> None:
    faults = certified("prefetches over the end of the epoch").faults
    assert not [fault for fault in faults if "held in memory" in fault]


def test_an_order_without_a_second_stream_is_not_called_reproduced(
    certified: Callable[[str], Certificate],
) -> None:
    assert "order by seed" not in certified("delivers nothing").traits


@pytest.mark.parametrize(("count", "said"), [(8, []), (40, ["no image is flipped"])])
def test_a_few_unflipped_images_can_be_chance(count: int, said: list[str]) -> None:
    label = np.arange(count)
    seen: Any = SimpleNamespace(
        edges=np.random.default_rng(0).random((count, 4)),
        flipped=np.zeros(count, bool),
        image_label=label,
        image_epoch=label % 2,
        image_batch=label // 4,
    )
    assert [fault for fault in augmentation.examine(seen)[1] if "flipped" in fault] == said


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

    Cuda().replace_torchs(monkeypatch)
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


def test_a_loader_that_hangs_is_ended_before_the_next_one_that_waits_for_its_turn(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: None
) -> None:
    limits_s: list[float] = []
    monkeypatch.setattr(
        certification.processes, "run", lambda *told: limits_s.append(told[-1]) or {"status": "failed", "reason": ""}
    )
    work = replace(ASKED.work_on(SAMPLES, 1), image_size=32)
    spec = ObserveSpec("cheater", prepared.artifacts["files"], work, {"cheat": "never ends"}, tmp_path, tmp_path)
    certification._certificate(certification.Job(spec, prepared.canonicals["files"], "jpeg", tmp_path / "log"))
    assert limits_s[0] > 2 * limit_s(SAMPLES)
    monkeypatch.setattr(observe, "limit_s", lambda _: 0.2)
    with pytest.raises(TimeoutError, match="the probe takes longer than 0 s"):
        observe.run(spec)


def test_crops_of_another_filter_are_not_taken_for_other_images(
    certified: Callable[[str], Certificate],
) -> None:
    certificate = certified("takes the nearest pixels")
    assert certificate.faults == ()
    assert certificate.figures["common_psnr_db"] >= pixels.LEAST_DB
    assert certificate.traits["resampling"].startswith("closest to ")


@pytest.mark.parametrize(
    ("crops", "wrong", "said"), [(40, 2, []), (40, 4, ["10 %"]), (1400, 28, []), (1400, 29, ["2 %"])]
)
def test_a_few_mistaken_crops_are_not_taken_for_wrong_labels(crops: int, wrong: int, said: list[str]) -> None:
    none = np.empty(0, int)
    faults = list(delivery._labels(Shown(np.arange(crops) >= wrong, none, none)))
    assert faults == [f"{share} of the images are not what their labels say" for share in said]


def test_pixels_far_from_common_resampling_are_different_work() -> None:
    near, far = (pixels.Making(pixels.PIXELS, "", "nearest", 99.0, 0, common_db, 0.0) for common_db in (30.0, 29.0))
    assert list(near.faults("raw")) == []
    assert list(far.faults("raw")) == ["resampling (nearest) has a PSNR of 29 dB against the common way"]


def test_a_uniform_image_has_no_shift() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert pixels._shift_px(grey + 9, grey) == 0


def test_an_unreadable_observation_fails_the_certificate(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: str, spec: ObserveSpec, *__: object) -> dict[str, str]:
        (spec.scratch / "rank0").mkdir()
        (spec.scratch / "rank0" / "seen.npz").write_bytes(b"no observation")
        return {"status": "ok", "reason": ""}

    monkeypatch.setattr(certification.processes, "run", run)
    spec = ObserveSpec("cheater", prepared.artifacts["files"], ASKED.work_on(SAMPLES, 1), {})
    job = certification.Job(spec, prepared.canonicals["files"], "jpeg", tmp_path / "log")
    assert certification._certificate(job).failure.startswith("failed: what it delivers cannot be judged: ")


@pytest.mark.parametrize(("batch_size", "ranks"), [(16, 1), (64, 4), (128, 1), (256, 1), (256, 2), (1024, 1)])
def test_the_probe_has_several_batches_of_the_trials_size(batch_size: int, ranks: int) -> None:
    trial = ASKED.model_copy(
        update={
            "data": ASKED.data.model_copy(update={"probe": 700}),
            "work": ASKED.work.model_copy(update={"batch_size": batch_size, "ranks": ranks}),
        }
    )
    probing = certification._probing(trial)
    assert probing.work.batch_size == batch_size
    whole, rest = divmod(probing.work.epoch_images / ranks, batch_size)
    assert whole >= 5
    assert rest
    assert probing.work.epoch_images == 700 or batch_size * ranks > 128


LOADER = SimpleNamespace(requires=(), code_digest=lambda: "its other code")


def _forge(text: str) -> Callable[..., str]:
    return lambda *_, **__: text


@pytest.mark.parametrize(
    ("changes", "patched"),
    [
        ({"batch_size": 17}, {}),
        ({"dtype": "float32"}, {}),
        ({"device": "cuda"}, {}),
        ({}, {"libraries": SimpleNamespace(distributions=list, with_dependencies=lambda _: {"simplejpeg": "0"})}),
        ({}, {"code_digest": _forge("the code of certify and of what it uses")}),
        ({}, {"gpu": SimpleNamespace(describe=lambda: {"gpu_driver": "another one"})}),
        ({}, {"registry": SimpleNamespace(adapters=lambda _: {"cheater": LOADER})}),
    ],
    ids=["batch size", "dtype", "device", "libraries", "code", "GPU", "loader"],
)
@pytest.mark.usefixtures("planted")
def test_a_certificate_is_not_reused_after_a_change(
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    patched: dict[str, Any],
) -> None:
    def key(**changes: Any) -> str:
        work = replace(ASKED.work_on(SAMPLES, 1), **changes)
        spec = ObserveSpec("cheater", prepared.artifacts["files"], work, {})
        return certification.Job(spec, prepared.canonicals["files"], "jpeg", tmp_path / "log").key

    before = key()
    assert key() == before
    for name, forged in patched.items():
        monkeypatch.setattr(certification, name, forged)
    assert key(**changes) != before


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_honest_order_in_small_batches_has_no_faults(batch_size: int) -> None:
    for seed in range(200):
        order = np.random.default_rng(seed)
        seen: Any = SimpleNamespace(
            image_epoch=np.repeat([0, 1], SAMPLES),
            image_label=np.concatenate([order.permutation(SAMPLES), order.permutation(SAMPLES)]),
            image_batch=np.tile(np.arange(SAMPLES) // batch_size, 2),
        )
        figures = shuffle.figures(seen, SAMPLES)
        assert list(shuffle.faults(seen, ASKED.work_on(SAMPLES, 1), figures, SAMPLES)) == []


@pytest.mark.parametrize(("batch_size", "said"), [(16, "its own"), (64, "its own while 4 further ones come")])
def test_batch_memory_counts_as_own_only_for_observed_batches(
    certified: Callable[..., Certificate], batch_size: int, said: str
) -> None:
    assert certified("", batch_size=batch_size).traits["memory of a batch"] == said
