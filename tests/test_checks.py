"""Wrong work is refused with the reason: batches, epochs, labels and images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from loaderbench.api import Work
from loaderbench.machine.gpu import Gpu
from loaderbench.trial import checks, meter
from loaderbench.trial.checks import EpochTotals, Glimpses, InvalidWorkError
from loaderbench.trial.consumers import drain
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import Window
from tests.metered import ARTIFACT, LABELS, WORK, Batches, consume, right

if TYPE_CHECKING:
    from collections.abc import Callable


def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Batches:
    return [(change(images), labels) for images, labels in right()]


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (right()[:-1], "epoch 1 delivered 56 images instead of 60"),
        (right() + right()[:1], "epoch 1 delivered 68 images instead of 60"),
        ([], "epoch 1 delivered 0 images"),
        (
            each(lambda images: images.float()),
            r"float32 \(8, 3, 16, 16\), on cpu instead of uint8 \(n, 3, 16, 16\), on",
        ),
        (each(lambda images: images.permute(0, 2, 3, 1)), r"images are uint8 \(8, 16, 16, 3\)"),
        (each(lambda images: images[..., ::2, ::2]), r"images are uint8 \(8, 3, 8, 8\)"),
        (each(lambda images: images.permute(0, 1, 3, 2)), "strides"),
        (each(lambda images: images[:1].expand(len(images), -1, -1, -1)), "strides"),
        (
            [(images, labels.roll(1) * 0) for images, labels in right()],
            "epoch 1 delivered 0 images of class 1 instead of 20",
        ),
        ([(images, labels.float()) for images, labels in right()], r"float32 \(8,\)"),
        ([(images, labels[:, None]) for images, labels in right()], r"labels are int64 \(8, 1\)"),
        ([(images, labels > 0) for images, labels in right()], r"labels are bool \(8,\)"),
        (
            [(images, labels[1:]) for images, labels in right()],
            r"labels are int64 \(7,\), on cpu instead of integer \(8,",
        ),
        ([(images[0, 0, 0, 0], labels) for images, labels in right()], r"images are uint8 \(\), on cpu"),
        ([(images[:0], labels) for images, labels in right()], r"images are uint8 \(0, 3, 16, 16\), on cpu"),
        ([images for images, _ in right()], r"a batch is uint8 \(8, 3, 16, 16\) instead of a pair of tensors"),
        (
            [(*batch, 7) for batch in right()],
            r"a tuple of uint8 \(8, 3, 16, 16\), int64 \(8,\), an object of type int instead",
        ),
        (
            [dict(zip("ab", batch, strict=True)) for batch in right()],
            r"a dict of 'a': uint8 \(8, 3, 16, 16\), 'b': int64",
        ),
        ([[t.numpy() for t in batch] for batch in right()], r"a list of ndarray uint8 \(8, 3, 16, 16\), ndarray "),
        (
            [(list(images), labels) for images, labels in right()],
            r"uint8 \(3, 16, 16\) and 4 more, int64 \(8,\) instead of",
        ),
        ([None], "a batch is an object of type NoneType instead of a pair of tensors"),
        (
            [(images[i : i + 1], labels[i : i + 1]) for images, labels in right() for i in range(len(labels))],
            "60 batches, expected at most 10",
        ),
        ([(torch.cat([i, i]), torch.cat([n, n])) for i, n in right()], "with 1 to 8 images"),
    ],
)
def test_wrong_work_is_refused_with_the_reason(batches: Batches, said: str) -> None:
    with pytest.raises(InvalidWorkError, match=said):
        consume(batches)


@pytest.mark.parametrize(
    ("low", "high", "right"),
    [(0.0, 1.0, True), (0.0, 255.0, False), (-2.1, 2.6, False)],
    ids=["scaled", "not", "normal"],
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floats_must_be_scaled(low: float, high: float, right: bool, dtype: str) -> None:  # noqa: FBT001
    images = torch.full((8, 3, 16, 16), low, dtype=getattr(torch, dtype))
    images[..., 8:] = high
    labels = torch.tensor(LABELS * WORK.passes)
    batches = [(images[: len(part)], part) for part in labels.split(WORK.batch_size)]
    floats = replace(WORK, dtype=dtype)
    if right:
        consume(batches, work=floats)
        return
    with pytest.raises(InvalidWorkError, match=r"values from .* to .* instead of 0 to 1"):
        consume(batches, work=floats)


def test_labels_of_the_right_sum_but_other_classes_are_refused() -> None:
    swapped = [(images, torch.ones_like(labels)) for images, labels in right()]
    assert sum(int(labels.sum()) for _, labels in swapped) == ARTIFACT.label_sum * WORK.passes
    with pytest.raises(InvalidWorkError, match="epoch 1 delivered 0 images of class 0 instead of 20"):
        consume(swapped)


@pytest.mark.parametrize("label", [-1, 3, 10**15])
def test_labels_outside_the_classes_are_refused(label: int) -> None:
    with pytest.raises(InvalidWorkError, match="but the classes are 0 to 2"):
        consume([(images, torch.full_like(labels, label)) for images, labels in right()])


def test_padding_samples_can_be_of_any_class() -> None:
    work = replace(WORK, passes=1, ranks=4)
    artifact = replace(ARTIFACT, samples=30, label_counts=(10, 10, 10))
    parts = [EpochTotals(8, 1, np.array(counts)) for counts in ([8, 0, 0], [2, 6, 0], [0, 4, 4], [2, 0, 6])]
    EpochTotals.of_all(parts).check(1, artifact, work)
    parts[-1] = EpochTotals(8, 1, np.array([3, 0, 5]))
    with pytest.raises(InvalidWorkError, match="epoch 1 delivered 9 images of class 2 instead of 10"):
        EpochTotals.of_all(parts).check(1, artifact, work)


def test_ranks_that_stop_within_an_epoch_share_it() -> None:
    work = replace(WORK, passes=1, ranks=2)
    parts = [EpochTotals(15, 2, np.array([9, 6, 0])), EpochTotals(3, 1, np.array([1, 1, 1]), over=False)]
    EpochTotals.of_all(parts).check(1, ARTIFACT, work)
    parts[1] = EpochTotals(3, 1, np.array([2, 1, 0]), over=False)
    with pytest.raises(InvalidWorkError, match="epoch 1 delivered 11 images of class 0 before its end"):
        EpochTotals.of_all(parts).check(1, ARTIFACT, work)


def pictures(dtype: torch.dtype = torch.uint8) -> Batches:
    """One epoch of right work with images that differ."""
    random = torch.Generator().manual_seed(0)
    return [(torch.randint(2, images.shape, generator=random).to(dtype), labels.clone()) for images, labels in right()]


THREE = Window(0, 0, 3, None)
"""A window of three batches."""


def glimpsed(batches: Batches, window: Window = THREE, work: Work = WORK) -> Meter:
    glimpses = Glimpses()
    timed = Meter(batches, ARTIFACT, work, window, Gpu(), glimpses=glimpses)
    drain.take_all(work, timed)
    glimpses.check()
    return timed


@pytest.mark.parametrize("window", [Window(0, 0, 3, None), Window(0, 0, 0, None, epochs=2)])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda batches: [(images * 0 + 7, labels) for images, labels in batches], "has one colour only"),
        (lambda batches: [(batches[0][0][: len(labels)], labels) for _, labels in batches], "differ from each other"),
        (lambda batches: [(images * 0 + images[:1], labels) for images, labels in batches], "differ from each other"),
    ],
    ids=["constant", "one_batch", "one_image"],
)
def test_constant_and_repeated_images_are_invalid(change: Any, said: str, window: Window) -> None:
    glimpsed(pictures(), replace(window, epochs=1) if window.epochs else window)
    with pytest.raises(InvalidWorkError, match=said):
        glimpsed(change(pictures()), window)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
def test_different_images_are_valid_in_every_dtype(dtype: torch.dtype) -> None:
    glimpsed(pictures(dtype), work=replace(WORK, dtype=str(dtype).removeprefix("torch.")))


def test_images_are_not_checked_while_the_window_is_open() -> None:
    seen: list[int] = []

    class Counting(Glimpses):
        def look(self, images: torch.Tensor) -> None:
            seen.append(len(timed.timeline.exits_ns) - 1)

    timed = Meter(pictures(), ARTIFACT, WORK, Window(0, 0, 5, None), Gpu(), glimpses=Counting())
    drain.take_all(WORK, timed)
    assert (timed.timeline.opened, timed.timeline.closed) == (0, 5)
    assert seen == [0, 5, 6, 7, 8]


def test_wrong_work_in_a_later_epoch_is_refused() -> None:
    class Tiring:
        epoch = 0

        def __iter__(self) -> object:
            self.epoch += 1
            return iter(right() if self.epoch < 3 else right()[:-1])

    with pytest.raises(InvalidWorkError, match="epoch 3 delivered 56"):
        consume(Tiring(), Window(0, 10, 1, pause_s=0))


def test_each_shape_of_batch_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check would wait for a GPU."""
    looked_at: list[int] = []
    check = checks.check_batch

    def counted(images: torch.Tensor, labels: torch.Tensor, work: Work) -> str:
        looked_at.append(len(images))
        return check(images, labels, work)

    monkeypatch.setattr(meter, "check_batch", counted)
    consume(right(), Window(0, 0, 20, pause_s=None))
    assert looked_at == [8, 4]


def test_batches_split_for_synchronous_ranks_are_valid() -> None:
    """60 images in batches of 8 may come in ten batches, because each worker may have a partial one."""
    parts = [(images, labels) for batch in right() for images, labels in zip(*(t.split(4) for t in batch), strict=True)]
    timed = Meter(parts, ARTIFACT, WORK, Window(60, 60, 60, pause_s=60), Gpu(), cut=len(parts) - 10)
    assert sum(len(labels) for _, labels in timed) == len(LABELS) * WORK.passes
    timed.cut -= 1
    with pytest.raises(InvalidWorkError, match="smaller than the batch size"):
        list(timed)
