"""Ranks and jobs are measured in the overlap of their windows, and the first to fail is named."""

from __future__ import annotations

import os
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.machine.gpu import Gpu
from loaderbench.records.timeline import Timeline, fairness
from loaderbench.trial import combined, several
from loaderbench.trial.file_barrier import FileBarrier
from loaderbench.trial.meter import LEAD, Meter
from loaderbench.trial.spec import Peers, Several, TrialSpec, Window
from tests.metered import ARTIFACT, WORK, consume, right

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(("speeds", "index"), [([5, 5, 5], 1), ([4, 0, 0, 0], 0.25), ([3, 1], 0.8)])
def test_fairness_is_jains_index(speeds: list[float], index: float) -> None:
    assert fairness(np.array(speeds)) == pytest.approx(index)


class Ended:
    """A child that has ended; `reported_s`: the time of its failure report, or 0 without one."""

    def __init__(self, reported_s: float) -> None:
        self._descriptor, theirs = os.pipe()
        os.close(theirs)  # so that it is readable
        self._reported_s = reported_s

    def fileno(self) -> int:
        return self._descriptor

    def reported_s(self) -> float:
        return self._reported_s

    def report(self) -> dict[str, Any] | None:
        os.close(self._descriptor)  # as a real child does: its report can be read once
        return {"status": "failed", "reason": f"at {self._reported_s:g}"} if self._reported_s else None

    def death(self, who: str) -> dict[str, Any]:
        return {"status": "failed", "reason": f"{who} died"}


@pytest.mark.parametrize(
    ("reported_s", "blamed"), [([2, 1], "rank 1: at 1"), ([2, 0, 1], "rank 1 died"), ([1, 2], "rank 0: at 1")]
)
def test_the_first_rank_to_fail_is_named(reported_s: list[float], blamed: str, tmp_path: Path) -> None:
    artifact = Artifact("f", "/nowhere", 10**6, 0, 1, 1, Encoding("jpeg"))
    work = Work(batch_size=8, workers=1, image_size=32, ranks=len(reported_s))
    spec = TrialSpec("any", artifact, work, Window(0, 0, 1, None), tmp_path / "times.npz")
    [report] = several._reports(Several("task", spec, tmp_path), [*map(Ended, reported_s)]).values()  # type: ignore[list-item]
    assert report == {"status": "failed", "reason": blamed}


def _two_meters(folder: Path, *, in_step: bool) -> list[Meter]:
    """Meters of two ranks. Rank 0 has the shorter window and one endless epoch, rank 1 many short epochs."""
    artifact = Artifact("f", "/nowhere", 10**6, 0, 1, 1, Encoding("jpeg"))
    batch = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    meters = []
    for rank, window_batches in enumerate([3, 7]):
        work = Work(batch_size=2, workers=1, image_size=8, dtype="uint8", passes=1, seed=0, rank=rank, ranks=2)
        window = Window(0, 0, window_batches, None, whole_epoch_s=0)
        milestones = [FileBarrier(name, Peers(folder, rank, 2)) for name in ("begun", "opened", "closed")]
        batches = [batch] * 2 if rank else repeat(batch)
        meters.append(Meter(batches, artifact, work, window, Gpu(), *milestones, in_step=in_step))
    return meters


def _taken(meter: Meter) -> Iterator[object]:
    while not meter.done:
        yield from meter


def test_a_window_stays_open_until_all_windows_are_open(tmp_path: Path) -> None:
    """Rank 1 stalls after its first batch, before its window opens."""
    meters = _two_meters(tmp_path, in_step=False)
    first, second = map(_taken, meters)
    assert len([*islice(second, 2)]) == 2
    assert len([*islice(first, 50)]) == 50
    assert meters[0].timeline.opened is not None
    assert meters[0].timeline.closed is None
    for _ in zip(second, first, strict=False):
        pass
    edges = [[m.timeline.exits_ns[m.timeline.opened or 0], m.timeline.exits_ns[m.timeline.closed or 0]] for m in meters]
    opened, closed = zip(*edges, strict=True)
    assert max(opened) < min(closed)


@pytest.mark.parametrize("ahead", range(LEAD))
def test_synchronous_ranks_stop_after_the_same_batch(ahead: int, tmp_path: Path) -> None:
    """Rank 0's window closes first. Rank 0 leads by `ahead` batches, and by one more when it requests first."""
    meters = _two_meters(tmp_path, in_step=True)
    first, second = map(_taken, meters)
    for _ in islice(first, ahead):
        pass
    for _ in zip(first, second, strict=False):
        pass
    for _ in second:
        pass
    assert len(meters[0].timeline.exits_ns) == len(meters[1].timeline.exits_ns)


def test_the_joint_window_is_the_overlap_of_all_windows() -> None:
    second = 10**9
    # One rank's clock starts 2 s after the other's. Batches come every second; windows are open from 2 to 8 s of each.
    both = [
        Timeline(
            asked_ns=[n * second for n in range(10)],
            exits_ns=[(n + 1) * second for n in range(10)],
            images=[images] * 10,
            epochs=[0],
            opened=1,
            closed=7,
            workers=3,
        )
        for images in (8, 4)
    ]
    together = Timeline.together(both, [0, 2 * second])
    assert together.workers == 6
    columns = together.columns()
    # From the later opening, at 4 s, to the earlier closing, at 8 s.
    assert columns["window_s"] == 4
    assert columns["images_per_s"] == pytest.approx(8 + 4, rel=0.1)
    assert columns["slowest_rank_images_per_s"] == pytest.approx(4, rel=0.1)
    assert columns["fairness"] == pytest.approx(0.9, rel=0.05)
    assert columns["epoch1_s"] is columns["window_epochs"] is None
    with pytest.raises(ValueError, match="never all open"):
        Timeline.together(both, [0, 7 * second])


def test_every_column_has_a_rule_for_combining_ranks_or_jobs(tmp_path: Path) -> None:
    """A new column of `Record` that has none is refused, instead of being that of the first."""

    def reports(**more: Any) -> list[dict[str, Any]]:
        for index in range(2):
            one.timeline.save(several_jobs.times(index))
        return [{"status": "ok", "reason": "", **one.columns(), **one.for_peers(), **more} for _ in range(2)]

    one = consume(right(), Window(0, 0, 6, None))
    spec = TrialSpec("any", ARTIFACT, WORK, Window(0, 0, 6, None), tmp_path / "times.npz", jobs=2)
    several_jobs = Several("task", spec, tmp_path)
    together = combined.columns(several_jobs, reports(read_bytes=5))
    assert (together["status"], together["read_bytes"], together["memory_format"]) == ("ok", 10, "contiguous")
    with pytest.raises(TypeError, match="declare over_ranks in Record for bound_ips"):
        combined.columns(several_jobs, reports(bound_ips=5.0))
