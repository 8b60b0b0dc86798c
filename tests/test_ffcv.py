"""FFCV in each order of samples, with more threads than cores, and with images larger than its page."""

from __future__ import annotations

import os
import re
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from ffcv.loader import loader as ffcv_loader

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.formats.conversion import Conversion
from loaderbench.images import CanonicalImages
from loaderbench.images.class_folders import scan
from loaderbench.loaders import ffcv
from loaderbench.machine import process
from loaderbench.trial import measure
from loaderbench.trial.spec import TrialSpec, Window
from tests.canonical import built

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

slow = pytest.mark.slow
WORK = Work(batch_size=16, workers=1, image_size=32, passes=2)
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def artifact(everything: Any) -> Artifact:
    """The tree as FFCV stores it: 96 images in one page."""
    stored: Artifact = everything.artifacts["ffcv-jpeg"]
    return stored


@slow  # FFCV compiles this order
@pytest.mark.parametrize("os_cache", [True, False])
def test_quasi_random_order_visits_each_sample_in_each_pass_differently(artifact: Artifact, *, os_cache: bool) -> None:
    with ffcv.stream(artifact, WORK, order="quasi_random", os_cache=os_cache) as batches:
        assert len(batches) == 12
        orders = []
        for batches.next_epoch in range(2):
            orders += np.split(batches.next_traversal_order(), WORK.passes)
    assert all(sorted(order) == list(range(96)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@slow
def test_quasi_random_order_is_told_for_its_certificate(artifact: Artifact) -> None:
    work = replace(WORK, passes=1)
    assert ffcv.partial_order(artifact, work, order="random", os_cache=False) is None
    assert ffcv.partial_order(artifact, replace(work, shuffle=False), order="quasi_random") is None
    told = ffcv.partial_order(artifact, work, order="quasi_random", os_cache=False)
    assert told is not None
    with ffcv.stream(artifact, work, order="quasi_random", os_cache=False) as batches:
        for batches.next_epoch in range(2):
            assert next(told).tolist() == batches.next_traversal_order().tolist()


@pytest.mark.parametrize(("order", "shuffle"), [("sequential", True), ("quasi_random", False)])
def test_sequential_order_is_the_stored_one_as_is_all_work_that_is_not_shuffled(
    artifact: Artifact, order: str, *, shuffle: bool
) -> None:
    with ffcv.stream(artifact, replace(WORK, shuffle=shuffle), order=order) as batches:
        assert batches.next_traversal_order().tolist() == list(range(96)) * 2


@pytest.mark.parametrize(
    ("changes", "order", "error", "message"),
    [
        ({"ranks": 2}, "quasi_random", NotImplementedError, "no quasi-random order in distributed training"),
        ({}, "alphabetical", ValueError, "order is random, quasi_random or sequential, not alphabetical"),
        (
            {"workers": 99},
            "random",
            NotImplementedError,
            "99 workers .* set .* NUMBA_NUM_THREADS=99",
        ),
    ],
)
def test_ffcv_refuses_what_it_cannot_do(
    artifact: Artifact, changes: dict[str, Any], order: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message), ffcv.stream(artifact, replace(WORK, **changes), order=order):
        pass


def test_buffers_on_a_gpu_outlive_their_epoch_until_the_next_has_its_own(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training may still read them, and FFCV copies into new ones without waiting for it."""
    buffers: list[Callable[[], object]] = []
    alive: list[int] = []
    copied: list[int] = []

    class Epoch:
        """What FFCV makes for an epoch, without its thread."""

        is_alive, close = (lambda _: False), (lambda _: None)

        def __init__(self, *_: object) -> None:
            alive.append(sum(buffer() is not None for buffer in buffers))
            on_gpu = torch.zeros(1)
            buffers.append(weakref.ref(on_gpu))
            self.memory_allocations = {"operation": {1: np.zeros(1), 2: [on_gpu], 3: None}}
            self.cuda_streams = [SimpleNamespace(synchronize=lambda: copied.append(len(buffers)))]

        def __iter__(self) -> Iterator[Any]:
            return iter(())

    monkeypatch.setattr(ffcv_loader, "EpochIterator", Epoch)
    with ffcv.stream(artifact, WORK) as batches:
        for _ in range(3):
            assert list(batches) == []
    assert alive == [0, 1, 1]
    assert copied == [1, 2, 3]


def trial(artifact: Artifact, work: Work, folder: Path, **options: Any) -> dict[str, Any]:
    """Run a short trial in a fresh process."""
    spec = TrialSpec("ffcv", artifact, work, Window(0, 0.1, 2, None), folder / "times.npz", options)
    return measure(spec, folder / "log", 600)


@slow
@pytest.mark.parametrize(("workers", "variable"), [(CORES + 1, None), (2, "1")], ids=["more than cores", "variable"])
def test_ffcv_has_as_many_threads_as_workers(
    artifact: Artifact, workers: int, variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("NUMBA_NUM_THREADS", variable)
    result = trial(artifact, replace(WORK, workers=workers), tmp_path, order="quasi_random", os_cache=False)
    assert result["status"] == "ok", result["reason"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> CanonicalImages:
    """Three canonical images; the pixels of one take 9 MB."""
    folder = tmp_path_factory.mktemp("large")
    for number, (width, height) in enumerate([(60, 40), (2000, 1500), (50, 70)]):
        path = folder / "tree" / f"class{number}" / "image.jpg"
        path.parent.mkdir(parents=True)
        assert cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8))
    return built(scan(folder / "tree"), folder / "canonical", max_side=None)


def written(images: CanonicalImages, out: Path) -> Artifact:
    """Write images as FFCV's raw format, which is read back and compared."""
    out.mkdir()
    encoding = Encoding("raw", max_side=None)
    stored = process.run_child(
        "loaderbench.formats.conversion.run", Conversion("ffcv", images, encoding, 1, out), out.with_suffix(".log")
    )
    assert (stored["status"], stored.get("stored")) == ("ok", "canonical pixels"), stored["reason"]
    return Artifact("raw", str(out), 3, 3, stored["size_bytes"], stored["payload_bytes"], encoding, classes=3)


@pytest.mark.usefixtures("forked")
def test_images_larger_than_ffcvs_page_are_stored_and_those_larger_than_the_memory_refused(
    large: CanonicalImages, tmp_path: Path
) -> None:
    artifact = written(large, tmp_path / "out")
    huge = replace(WORK, batch_size=10**6)
    with ffcv.stream(artifact, WORK):
        pass
    needed = re.escape("FFCV needs 41,909.5 GiB for decoding, and this machine has ")
    with (
        pytest.raises(NotImplementedError, match=rf"{needed}.* 2000 x 1500 pixels, .* use smaller batches"),
        ffcv.stream(artifact, huge),
    ):
        pass


@slow
@pytest.mark.parametrize("os_cache", [True, False])
def test_images_larger_than_ffcvs_usual_page_are_delivered(
    large: CanonicalImages, tmp_path: Path, *, os_cache: bool
) -> None:
    artifact = replace(written(large, tmp_path / "out"), label_counts=(1, 1, 1))
    result = trial(artifact, replace(WORK, batch_size=2, passes=8), tmp_path, os_cache=os_cache)
    assert result["status"] == "ok", result["reason"]
