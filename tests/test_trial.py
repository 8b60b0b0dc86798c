"""Wrong work has no speed; the figures of correct work follow from the batch times."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from loaderbench.api import Artifact, Work
from loaderbench.campaign import registry
from loaderbench.machine.counters import Memory
from loaderbench.machine.gpu import Gpu, GpuLoad
from loaderbench.trial import file_barrier, meter, trial
from loaderbench.trial.checks import InvalidWorkError
from loaderbench.trial.consumers import drain
from loaderbench.trial.file_barrier import FileBarrier
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import Peers, TrialSpec, Window
from tests.cuda import Cuda
from tests.metered import ARTIFACT, AT_ONCE, LABELS, WORK, consume, right

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent


def test_correct_work_is_measured() -> None:
    columns = consume(right()).columns()
    assert columns["memory_format"] == "contiguous"
    assert columns["images_per_s"] > 0


def test_memory_excludes_the_raw_times_of_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch has three numbers of eight bytes: after the first batch almost nothing, at the end 1 MiB."""
    monkeypatch.setattr(meter, "tree_memory", lambda _: Memory(300.0, 200.0))
    batches = 2**20 // 24
    large = replace(ARTIFACT, samples=8 * batches, label_counts=())
    timed = Meter(repeat(right()[0]), large, WORK, Window(0, 0, batches, None, whole_epoch_s=0), Gpu())
    drain.take_all(WORK, timed)
    first, closed = timed.memory
    assert first.total_mib == pytest.approx(300, abs=0.001)
    assert closed == Memory(pytest.approx(299, abs=0.001), pytest.approx(199, abs=0.001))


def test_memory_is_that_of_the_larger_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference of both figures is the file-backed memory at one moment."""
    readings = iter([Memory(300.0, 250.0), Memory(900.0, 200.0)])
    monkeypatch.setattr(meter, "tree_memory", lambda _: next(readings))
    columns = consume(right(), Window(0, 0, 2, None, whole_epoch_s=0)).columns()
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


@pytest.mark.parametrize("before", [0, 1])
def test_complete_epochs_are_measured_from_first_to_last_batch(before: int) -> None:
    class Counted:
        begun = 0

        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            self.begun += 1
            return iter(right())

    batches = Counted()
    columns = consume(batches, Window(60, 60, 60, pause_s=60, epochs=3, epochs_before=before)).columns()
    assert batches.begun == 3
    assert columns["window_images"] == ((3 - before) * len(LABELS) * WORK.passes) - WORK.batch_size
    assert columns["window_epochs"] == 2 - before


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


@pytest.mark.parametrize(("whole_epoch_s", "images", "speed"), [(7.5, 60 + 8, 60 / 8), (7, 4 * 8, None)])
def test_the_first_epoch_is_finished_only_if_it_ends_in_time(
    whole_epoch_s: float, images: int, speed: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window closes with the fourth of eight batches, one per second; the last batch is half as long as the others.

    By the speed so far it counts half a second.
    """
    timed = consume(Steady(monkeypatch), Window(1, 2, 1, None, whole_epoch_s=whole_epoch_s))
    assert (sum(timed.timeline.images), timed.columns()["epoch1_images_per_s"]) == (images, speed)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 0, 1] * 10 + [0, 2, 2], "epoch 1 delivered 21 images of class 0 before its end, but there are 20"),
        ([2, 1, 0] * 21, "epoch 1 delivered 63 images, more than its 60, and goes on"),
        ([2, 1, 0] * 20, ""),
    ],
)
def test_an_epoch_that_does_not_end_delivers_no_image_more_than_once(labels: list[int], said: str) -> None:
    batches = [
        (images[:3], torch.tensor(part)) for images, part in zip(repeat(right()[0][0]), _parts(labels), strict=False)
    ]
    never_ending = Window(0, 0, len(batches) - 1, None, whole_epoch_s=0)
    with pytest.raises(InvalidWorkError, match=said) if said else nullcontext():
        consume(batches, never_ending)


def _parts(labels: list[int]) -> list[list[int]]:
    return [labels[begin : begin + 3] for begin in range(0, len(labels), 3)]


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


def test_copies_in_flight_are_credited_to_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader hands over a batch each millisecond, and copies it to a simulated GPU on its own stream in ten."""
    cuda = Cuda()
    own = cuda.Stream()

    def copying() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in right():
            cuda.host_ms += 1
            own.do(10)
            yield batch

    monkeypatch.setattr(meter, "perf_counter_ns", lambda: round(cuda.host_ms * 1e6))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", cuda.synchronize)
    columns = consume(copying(), Window(0, 0, 6, None, whole_epoch_s=0)).columns()
    assert columns["first_batch_s"] == pytest.approx(0.011)
    assert columns["window_s"] == pytest.approx(0.061)  # nothing is in flight when it opens
    assert columns["wait_max_ms"] == pytest.approx(1)  # nobody waits for the loader while the copies end


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
