"""Wrong work has no speed; the figures of correct work follow from the batch times."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign import registry
from loaderbench.machine.counters import Memory
from loaderbench.machine.gpu import Gpu, GpuLoad
from loaderbench.trial import checks, file_barrier, meter, trial
from loaderbench.trial.checks import EpochTotals, Glimpses, InvalidWorkError
from loaderbench.trial.consumers import drain
from loaderbench.trial.file_barrier import FileBarrier
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import Peers, TrialSpec, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AT_ONCE = Window(0, 0, 1, pause_s=0)
LABELS = [0] * 10 + [1] * 10 + [2] * 10
ROOT = Path(__file__).parent.parent
WORK = Work(batch_size=8, workers=2, image_size=16, dtype="uint8", passes=2, seed=0)
ARTIFACT = Artifact(
    "f", "/nowhere", len(LABELS), sum(LABELS), 1, 1, Encoding("jpeg"), classes=3, label_counts=(10, 10, 10)
)
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def right() -> Batches:
    """One epoch of right work."""
    labels = torch.tensor(LABELS * WORK.passes)
    return [(torch.zeros(len(part), 3, 16, 16, dtype=torch.uint8), part) for part in labels.split(WORK.batch_size)]


def consume(batches: Any, window: Window = AT_ONCE, work: Work = WORK, gpu: Gpu | None = None) -> Meter:
    timed = Meter(batches, ARTIFACT, work, window, gpu or Gpu())
    drain.take_all(work, timed)
    return timed


def test_correct_work_is_measured() -> None:
    columns = consume(right()).columns()
    assert columns["memory_format"] == "contiguous"
    assert columns["images_per_s"] > 0


def test_memory_excludes_the_raw_times_of_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch has three numbers of eight bytes: after the first batch almost nothing, at the end 1 MiB."""
    monkeypatch.setattr(meter, "tree_memory", lambda _: Memory(300.0, 200.0))
    batches = 2**20 // 24
    timed = Meter(repeat(right()[0]), ARTIFACT, WORK, Window(0, 0, batches, None, whole_epoch=False), Gpu())
    drain.take_all(WORK, timed)
    first, closed = timed.memory
    assert first.total_mib == pytest.approx(300, abs=0.001)
    assert closed == Memory(pytest.approx(299, abs=0.001), pytest.approx(199, abs=0.001))


def test_memory_is_that_of_the_larger_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference of both figures is the file-backed memory at one moment."""
    readings = iter([Memory(300.0, 250.0), Memory(900.0, 200.0)])
    monkeypatch.setattr(meter, "tree_memory", lambda _: next(readings))
    columns = consume(right(), Window(0, 0, 2, None, whole_epoch=False)).columns()
    assert columns["memory_mib"] == pytest.approx(300, abs=0.01)
    assert columns["anon_memory_mib"] == pytest.approx(250, abs=0.01)


@pytest.mark.parametrize(("window_s", "paused"), [(9, 11), (10, 12), (11, 17), (14, 17)])
def test_harness_pauses_halfway_through_a_short_epoch(
    window_s: int, paused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs of 8 batches, one per second; the window opens with the second batch and ends in the second epoch."""
    monkeypatch.setattr(meter.time, "sleep", lambda _: None)
    timed = consume(Steady(monkeypatch), Window(1, window_s, 1, pause_s=60))
    assert timed.timeline.paused == paused


def test_channels_last_memory_is_valid_and_recorded() -> None:
    batches = [(images.to(memory_format=torch.channels_last), labels) for images, labels in right()]
    assert consume(batches).columns()["memory_format"] == "channels_last"


def test_complete_epochs_are_measured_from_first_to_last_batch() -> None:
    class Counted:
        begun = 0

        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            self.begun += 1
            return iter(right())

    batches = Counted()
    columns = consume(batches, Window(60, 60, 60, pause_s=60, epochs=3)).columns()
    assert batches.begun == 3
    assert columns["window_images"] == (3 * len(LABELS) * WORK.passes) - WORK.batch_size
    assert columns["window_epochs"] == 2


def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Batches:
    return [(change(images), labels) for images, labels in right()]


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (right()[:-1], "epoch 1 delivered 56 images instead of 60"),
        (right() + right()[:1], "epoch 1 delivered 68 images instead of 60"),
        ([], "epoch 1 delivered 0 images"),
        (each(lambda images: images.float()), "dtype float32 instead of uint8"),
        (each(lambda images: images.permute(0, 2, 3, 1)), r"shape \(8, 16, 16, 3\)"),
        (each(lambda images: images[..., ::2, ::2]), r"shape \(8, 3, 8, 8\)"),
        (each(lambda images: images.permute(0, 1, 3, 2)), "strides"),
        (each(lambda images: images[:1].expand(len(images), -1, -1, -1)), "strides"),
        (
            [(images, labels.roll(1) * 0) for images, labels in right()],
            "epoch 1 delivered 0 images of class 1 instead of 20",
        ),
        ([(images, labels.float()) for images, labels in right()], "labels of shape"),
        ([(images, labels[:, None]) for images, labels in right()], "labels of shape"),
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
def test_labels_that_are_no_classes_are_refused(label: int) -> None:
    with pytest.raises(InvalidWorkError, match="but the classes are 0 to 2"):
        consume([(images, torch.full_like(labels, label)) for images, labels in right()])


def test_samples_that_come_once_more_to_share_an_epoch_evenly_may_be_of_any_class() -> None:
    work = replace(WORK, passes=1, ranks=4)
    artifact = replace(ARTIFACT, samples=30, label_counts=(10, 10, 10))
    parts = [EpochTotals(8, 1, np.array(counts)) for counts in ([8, 0, 0], [2, 6, 0], [0, 4, 4], [2, 0, 6])]
    EpochTotals.of_all(parts).check(1, artifact, work)
    parts[-1] = EpochTotals(8, 1, np.array([3, 0, 5]))
    with pytest.raises(InvalidWorkError, match="epoch 1 delivered 9 images of class 2 instead of 10"):
        EpochTotals.of_all(parts).check(1, artifact, work)


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
def test_images_that_differ_are_right_in_any_type(dtype: torch.dtype) -> None:
    glimpsed(pictures(dtype), work=replace(WORK, dtype=str(dtype).removeprefix("torch.")))


def test_nobody_looks_at_images_while_the_window_is_open() -> None:
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


class Steady:
    """Batches of 8, 8, 8, 8, 8, 8, 8, 4 images, one per second; an epoch starts right after the last batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0
        monkeypatch.setattr(meter, "perf_counter_ns", lambda: self.now_s * 10**9)

    def __iter__(self) -> object:
        for batch in right():
            self.now_s += 1
            yield batch


def test_figures_follow_from_the_batch_times(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = consume(Steady(monkeypatch), Window(3, 10, 1, pause_s=0)).columns()
    # The first batch ends at 1 s, so the window runs from 4 s to 14 s: batches 5 to 8 and 1 to 6 of the next epoch.
    assert columns["window_s"] == 10
    assert columns["window_images"] == 8 + 8 + 8 + 4 + 6 * 8
    assert columns["images_per_s"] == columns["window_images"] / 10
    assert columns["epoch1_images_per_s"] == 60 / 8
    assert columns["first_batch_s"] == 1
    assert columns["window_epochs"] == 1
    assert columns["epoch_gap_s"] == 1


def test_preparing_an_epoch_in_advance_does_not_raise_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All batches of an epoch are returned at once, after 8 s."""

    class AtOnce(Steady):
        def __iter__(self) -> object:
            self.now_s += 8
            return iter(right())

    columns = consume(AtOnce(monkeypatch), Window(20, 80, 1, pause_s=None)).columns()
    assert columns["images_per_s"] == 60 / 8


def test_trial_reports_the_cost_of_its_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading takes 0.05 CPU-seconds at each edge of a window of 10 s."""
    now_s = iter([1.0, 1.05, 2.0, 2.05])
    loader = Steady(monkeypatch)
    monkeypatch.setattr(meter.time, "thread_time", lambda: next(now_s))
    assert consume(loader, Window(3, 10, 1, pause_s=0)).columns()["monitor_cpu_pct"] == pytest.approx(1)


def test_gpu_is_read_only_at_the_edges_of_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    loader, asked = Steady(monkeypatch), []

    class Watched(Gpu):
        def open_window(self) -> Any:
            asked.append(loader.now_s)
            return "opened"

        def close_window(self, opened: Any, window_s: float) -> GpuLoad:
            asked.append(loader.now_s)
            return GpuLoad(gpu_power_w=window_s, gpu_reason=opened)

    columns = consume(loader, Window(3, 10, 1, pause_s=0), gpu=Watched()).columns()
    assert asked == [4, 14]
    assert (columns["gpu_power_w"], columns["gpu_reason"], columns["gpu_util_pct"]) == (10, "opened", None)


def test_touching_a_large_batch_starts_no_thread() -> None:
    program = """
import os, torch
from loaderbench.machine.touch import touch
batch = torch.empty(256, 3, 224, 224)
before = len(os.listdir("/proc/self/task"))
touch(batch)
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) == 0


def test_jobs_open_their_loaders_after_all_are_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Stub:
        """A loader that records what work is requested, and when."""

        requires, reads, streams = (), (), False

        def stream(self, _: Artifact, work: Work) -> None:
            seen.append(work)
            raise NotImplementedError

    def sleep(_: float) -> None:
        seen.append("waited")
        FileBarrier("ready", Peers(tmp_path, 1, 2)).reached(0)

    monkeypatch.setattr(file_barrier.time, "sleep", sleep)
    monkeypatch.setattr(registry, "loader", lambda _: Stub())
    spec = TrialSpec("stub", ARTIFACT, WORK, AT_ONCE, tmp_path / "times.npz", peers=Peers(tmp_path, 0, 2))
    with pytest.raises(NotImplementedError):
        trial.run(spec)
    assert seen == ["waited", WORK]


def test_batches_split_for_synchronous_ranks_are_valid() -> None:
    """60 images in batches of 8 may come in ten batches, because each worker may have a partial one."""
    parts = [(images, labels) for batch in right() for images, labels in zip(*(t.split(4) for t in batch), strict=True)]
    timed = Meter(parts, ARTIFACT, WORK, Window(60, 60, 60, pause_s=60), Gpu(), cut=len(parts) - 10)
    assert sum(len(labels) for _, labels in timed) == len(LABELS) * WORK.passes
    timed.cut -= 1
    with pytest.raises(InvalidWorkError, match="smaller than the batch size"):
        list(timed)
