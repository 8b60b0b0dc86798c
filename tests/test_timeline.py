"""The figures of a trial follow from its batch times."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loaderbench.campaign import disturbances
from loaderbench.records import earlier
from loaderbench.records.timeline import MOST_AFTER_PAUSE, Timeline
from tests import fabricate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

S = 10**9


def timeline(waits_s: list[float], images: int = 10, epochs: tuple[int, ...] = (0, 8), **changes: Any) -> Timeline:
    """Batches that are asked for as soon as the one before is there, and come after these waits."""
    exits = np.cumsum([round(wait * S) for wait in waits_s]).tolist()
    made = Timeline([0, *exits[:-1]], exits, [images] * len(exits), list(epochs), 3, 13, complete=len(epochs) - 1)
    return replace(made, **changes)


def after_pause(waits_s: list[float], pause_s: float = 3.0, epochs: tuple[int, ...] = (0, 8)) -> Timeline:
    """A batch every 0.5 s until the window ends with the 14th, a pause, and batches that come after these waits."""
    times = timeline([0.5] * 14 + waits_s, epochs=epochs, paused=14)
    for batch in range(14, 14 + len(waits_s)):
        times.asked_ns[batch] += round(pause_s * S)
        times.exits_ns[batch] += round(pause_s * S)
    times.asked_ns[14] = times.exits_ns[13] + round(pause_s * S)
    return times


def test_an_unfinished_epoch_has_no_figures() -> None:
    columns = timeline([0.5] * 20, epochs=(0,)).columns()
    assert (columns["epoch1_images_per_s"], columns["epoch1_s"]) == (None, None)
    assert columns["images_per_s"] == 20


def test_a_steady_loader_has_equal_speed_in_every_figure() -> None:
    columns = timeline([0.5] * 20).columns()
    assert columns["images_per_s"] == 20
    assert columns["window_s"] == 5
    assert columns["window_images"] == 100
    assert columns["window_drift_pct"] == columns["window_drift_error_pct"] == 0
    assert columns["epoch1_images_per_s"] == 20
    assert columns["first_batch_s"] == columns["epoch_gap_s"] == 0.5
    assert columns["window_epochs"] == 1


def drift_of(intervals_s: Sequence[float], workers: int, epochs: tuple[int, ...] = (0,)) -> tuple[Any, Any]:
    """How the speed of a window over all but the first of these batches changed, and the error."""
    times = timeline([0.5, *intervals_s], opened=0, closed=len(intervals_s), workers=workers, epochs=epochs)
    columns = times.columns()
    return columns["window_drift_pct"], columns["window_drift_error_pct"]


def bursts(workers: int, batches: int, slower: float = 1.0) -> list[float]:
    """Intervals of workers that all end a batch together every second, and later than that in the second half."""
    seconds = [slower if number >= batches // 2 else 1.0 for number in range(0, batches, workers)]
    return [interval for second in seconds for interval in [second, *[0.0] * (workers - 1)]][:batches]


@pytest.mark.parametrize("workers", [1, 2, 32])
@pytest.mark.parametrize("shift", [0, 1, 7, 20])
def test_bursts_of_as_many_batches_as_workers_are_no_drift(workers: int, shift: int) -> None:
    """Wherever the window of 80 batches opens."""
    drift_pct, error_pct = drift_of(bursts(workers, 120)[shift : shift + 80], workers)
    assert drift_pct == pytest.approx(0, abs=1e-9)
    assert error_pct == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("workers", [1, 2, 32])
def test_a_loader_that_becomes_a_fifth_slower_is_flagged_with_any_number_of_workers(workers: int) -> None:
    drift_pct, error_pct = drift_of(bursts(workers, 128, slower=1.2), workers)
    assert drift_pct == pytest.approx(100 * (1 / 1.2 - 1), abs=3)
    row = fabricate.load(fabricate.CAST[0], 1, window_drift_pct=drift_pct, window_drift_error_pct=error_pct)
    assert "halves of the window" in disturbances.flags(row)[0]


@pytest.mark.parametrize("workers", [1, 2, 32])
def test_random_batch_times_are_rarely_flagged(workers: int) -> None:
    """Each takes 1 s with a standard deviation of 10 %, in 100 windows of 160 batches, which are delivered in order."""
    flagged, random = 0, np.random.default_rng(0)
    for _ in range(100):
        done = random.random(workers) + np.cumsum(random.normal(1, 0.1, (160 // workers + 2, workers)), axis=0)
        exits = np.maximum.accumulate(done.ravel())
        drift_pct, error_pct = drift_of(np.diff(exits[-161:]).tolist(), workers)
        row = fabricate.load(fabricate.CAST[0], 1, window_drift_pct=drift_pct, window_drift_error_pct=error_pct)
        flagged += bool(disturbances.flags(row))
    assert flagged < 10


def test_an_epoch_end_is_no_drift() -> None:
    intervals = bursts(2, 80)
    intervals[60] += 5
    assert drift_of(intervals, 2, epochs=(0, 61))[0] == pytest.approx(0, abs=1e-9)


def test_a_window_too_short_for_its_workers_has_no_drift() -> None:
    assert drift_of([1.0] * 64, 32) == (None, None)
    assert drift_of([1.0] * 66, 32)[0] == 0


def test_sustained_speed_covers_complete_later_epochs_and_the_waits_between() -> None:
    waits = [1.0] * 4 + [3.0, 1.0, 1.0, 1.0] * 3 + [3.0, 1.0, 1.0, 1.0]
    columns = timeline(waits, epochs=(0, 4, 8, 12, 16)).columns()
    assert columns["later_epochs_images_per_s"] == pytest.approx(40 / 6)
    assert columns["epoch_gap_s"] == 3


def test_the_last_epoch_counts_if_the_trial_ends_with_it() -> None:
    columns = timeline([1.0] * 16, epochs=(0, 8), complete=2).columns()
    assert columns["later_epochs_images_per_s"] == 10


@pytest.mark.parametrize("paused", [13, 14, 15, 16])
def test_epoch_figures_exclude_the_pause_of_the_harness(paused: int) -> None:
    """Epochs of 4 batches, 2 s from one to the next, and a pause of 100 s before batch `paused`."""
    waits = ([2.0, 1.0, 1.0, 1.0] * 6)[:22]
    waits[paused] += 100
    columns = timeline(waits, epochs=(0, 4, 8, 12, 16, 20), paused=paused).columns()
    assert columns["epoch1_s"] == 5
    assert columns["later_epochs_images_per_s"] == 8
    assert columns["epoch_gap_s"] == 2


def test_an_interrupted_epoch_has_no_figures() -> None:
    columns = timeline([0.5] * 20, epochs=(0, 16), paused=14).columns()
    assert (columns["epoch1_s"], columns["later_epochs_images_per_s"], columns["epoch_gap_s"]) == (None, None, None)


def test_sustained_speed_needs_a_second_complete_epoch() -> None:
    assert timeline([0.5] * 20).columns()["later_epochs_images_per_s"] is None


def test_waits_cover_the_window_only() -> None:
    columns = timeline([100.0] * 4 + [0.1] * 9 + [1.1] + [100.0] * 6).columns()
    assert columns["wait_p50_ms"] == pytest.approx(100)
    assert columns["wait_max_ms"] == pytest.approx(1100)


@pytest.mark.parametrize(
    "waits_s",
    [
        [0.0] * 3 + [0.5] * 2,
        [0.0, 0.1, 0.0, 0.4, 0.5, 0.5],  # the third comes late, and meanwhile the loader prefetches more
        [0.0, 0.5, 0.0, 0.0, 0.5, 0.5],
    ],
    ids=["ready", "a_little_late", "late"],
)
def test_images_ahead_of_the_usual_speed_after_a_pause_count_as_prefetched(waits_s: list[float]) -> None:
    """At 20 images/s."""
    columns = after_pause(waits_s).columns()
    assert columns["prefetched_images"] == pytest.approx(30, abs=2)
    assert columns["prefetch_bias_bound_pct"] == columns["prefetched_images"]


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_end_together_have_prefetched_what_was_ready(workers: int) -> None:
    burst = [0.5 * workers] + [0.0] * (workers - 1)
    times = replace(after_pause([0.0] * 3 + 2 * burst), workers=workers)
    assert times.columns()["prefetched_images"] == 30
    assert times.prefetch_is_known()


def test_a_loader_that_prefetches_nothing_has_a_bound_of_zero() -> None:
    assert after_pause([0.5, 0.5]).columns()["prefetch_bias_bound_pct"] == 0


def test_prefetching_without_an_end_is_unknown() -> None:
    times = after_pause([0.001] * 6)
    assert times.columns()["prefetched_images"] is None
    assert not times.prefetch_is_known()
    times = after_pause([0.001] * MOST_AFTER_PAUSE)
    assert times.columns()["prefetched_images"] is None
    assert times.prefetch_is_known()


@pytest.mark.parametrize("epoch", [14, 16, 17, 18])
def test_prefetch_bound_is_empty_if_the_epoch_ends_first(epoch: int) -> None:
    """Of more prefetched batches, a pause would have shown the rest of the epoch only."""
    times = after_pause([0.0, 0.0, 0.0, 0.0, 0.5], epochs=(0, 8, epoch))
    assert times.columns()["prefetched_images"] is None
    assert times.columns()["prefetch_bias_bound_pct"] is None
    assert times.prefetch_is_known()


def test_prefetch_bound_does_not_depend_on_later_epochs() -> None:
    assert after_pause([0.0, 0.0, 0.0, 0.5, 0.5], epochs=(0, 8, 18)).columns()["prefetched_images"] == 30


def test_prefetch_bound_is_empty_after_too_short_a_pause() -> None:
    """At 20 images/s, 30 images take 1.5 s."""
    assert after_pause([0.0, 0.0, 0.0, 0.5, 0.5], pause_s=1.5).columns()["prefetched_images"] is None


def test_columns_of_earlier_schemas_are_computed_as_they_were() -> None:
    times = after_pause([0.001, 0.1, 0.2, 0.5] + [0.5] * 4, epochs=(0, 4, 8, 16))
    old = earlier.columns(times)
    assert old["bank_images"] == 30
    assert old["bank_bias_bound_pct"] == 30
    assert old["half_drift_pct"] == 0
    assert old["sustained_images_per_s"] == pytest.approx(120 / (5 + 3 + 0.101))
    assert old["epoch_end_s"] == pytest.approx((0.5 + 0.5 + 0.2) / 3)


def test_raw_times_are_saved(tmp_path: Path) -> None:
    times = timeline([0.5] * 20)
    times.save(tmp_path / "times.npz")
    with np.load(tmp_path / "times.npz") as kept:
        assert kept["interval_ns"].cumsum().tolist() == times.exits_ns
        assert kept["wait_ns"].tolist() == (np.array(times.exits_ns) - times.asked_ns).tolist()
        assert kept["window"].tolist() == [3, 13]
        assert kept["epochs"].tolist() == [0, 8]
        assert kept["images"].sum() == 200
    assert Timeline.load(tmp_path / "times.npz") == replace(times, asked_ns=[0, *times.exits_ns[:-1]])
