"""Every figure of a trial can be worked out by hand from its batch times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loaderbench.records.timeline import MOST_BANKED, Timeline

S = 10**9


def timeline(waits_s: list[float], images: int = 10, epochs: tuple[int, ...] = (0, 8)) -> Timeline:
    """Batches that are asked for as soon as the one before is there, and come after these waits."""
    exits = np.cumsum([round(wait * S) for wait in waits_s]).tolist()
    complete = len(epochs) - 1
    return Timeline([0, *exits[:-1]], exits, [images] * len(exits), list(epochs), 3, 13, complete=complete)


def test_an_epoch_that_was_not_over_has_no_figures() -> None:
    columns = timeline([0.5] * 20, epochs=(0,)).columns()
    assert (columns["epoch1_images_per_s"], columns["epoch1_s"]) == (None, None)
    assert columns["images_per_s"] == 20


def test_a_steady_loader_has_one_speed_everywhere() -> None:
    columns = timeline([0.5] * 20).columns()
    assert columns["images_per_s"] == 20
    assert columns["window_s"] == 5
    assert columns["window_images"] == 100
    assert columns["half_drift_pct"] == 0
    assert columns["epoch1_images_per_s"] == 20
    assert columns["first_batch_s"] == columns["epoch_end_s"] == 0.5
    assert columns["window_epochs"] == 1


def test_a_loader_that_halves_its_speed_drifts() -> None:
    columns = timeline([0.5] * 9 + [1.0] * 11).columns()
    assert columns["half_drift_pct"] == pytest.approx(-40, abs=15)


def test_sustained_speed_counts_whole_epochs_after_the_first_with_the_waits_between_them() -> None:
    waits = [1.0] * 4 + [3.0, 1.0, 1.0, 1.0] * 3 + [3.0, 1.0, 1.0, 1.0]
    columns = timeline(waits, epochs=(0, 4, 8, 12, 16)).columns()
    assert columns["sustained_images_per_s"] == pytest.approx(40 / 6)
    assert columns["epoch_end_s"] == 3


def test_without_a_second_whole_epoch_there_is_no_sustained_speed() -> None:
    assert timeline([0.5] * 20).columns()["sustained_images_per_s"] is None


def test_waits_are_those_of_the_window() -> None:
    columns = timeline([100.0] * 4 + [0.1] * 9 + [1.1] + [100.0] * 6).columns()
    assert columns["wait_p50_ms"] == pytest.approx(100)
    assert columns["wait_max_ms"] == pytest.approx(1100)


def test_batches_that_are_ready_after_a_pause_are_the_bank() -> None:
    times = timeline([0.5] * 14 + [0.001, 0.1, 0.2] + [0.5])
    times.paused = 14
    columns = times.columns()
    assert columns["bank_images"] == 30
    assert columns["bank_bias_bound_pct"] == 30


def test_a_bank_that_does_not_come_to_an_end_is_not_known() -> None:
    times = timeline([0.5] * 14 + [0.001] * 6)
    times.paused = 14
    assert times.columns()["bank_images"] is None
    assert not times.bank_is_known()
    times.paused = len(times.exits_ns) - MOST_BANKED
    assert times.bank_is_known()


def test_the_raw_times_are_kept(tmp_path: Path) -> None:
    times = timeline([0.5] * 20)
    times.save(tmp_path / "times.npz")
    with np.load(tmp_path / "times.npz") as kept:
        assert kept["interval_ns"].cumsum().tolist() == times.exits_ns
        assert kept["wait_ns"].tolist() == (np.array(times.exits_ns) - times.asked_ns).tolist()
        assert kept["window"].tolist() == [3, 13]
        assert kept["epochs"].tolist() == [0, 8]
        assert kept["images"].sum() == 200
