"""GPU use is read from NVML's samples in the raw times of the trials that count."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loaderbench.findings.analysis import analyse
from loaderbench.findings.raw_times import analyse_folder, gpu_uses
from loaderbench.records import trials_csv
from loaderbench.records.folder import CampaignFolder
from loaderbench.records.timeline import Timeline
from tests import fabricate
from tests.fabricate import CAST, fed, load

if TYPE_CHECKING:
    from pathlib import Path

    from loaderbench.findings.findings import GpuUse
    from loaderbench.records.record import Record

FAST, SLOW = CAST[0], CAST[8]


def told(row: Record, folder: Path, *busy_pct: float) -> Record:
    """Return a row with NVML samples every half second."""
    name = row.trial.replace("/", "+") + ".npz"
    times = Timeline([0, 1], [1, 2], [8, 8], [0], 0, 1)
    times.gpu_util_pct = [(7_000_000 + 500_000 * number, pct) for number, pct in enumerate(busy_pct)]
    (folder / "times").mkdir(exist_ok=True)
    times.save(folder / "times" / name)
    return replace(row, times=name, gpu_util_pct=sum(busy_pct) / max(1, len(busy_pct)))


def found(folder: Path, *rows: Record) -> tuple[GpuUse, ...]:
    environment = fabricate.environment((FAST, SLOW), 2, SLOW.name, feeding=[FAST.name, SLOW.name])
    files = CampaignFolder(folder)
    vars(files)["rows"] = list(rows)
    return gpu_uses(files, analyse(files.rows, environment["campaign"]))


def test_gpu_use_is_that_of_training_in_the_first_block(tmp_path: Path) -> None:
    hungry = [told(load(actor, 1), tmp_path, 1.0) for actor in (SLOW, FAST)]
    trained = [
        told(fed(actor, block, "train"), tmp_path, 10.0 * block, 90.0) for actor in (SLOW, FAST) for block in (2, 1)
    ]
    seen = found(tmp_path, *hungry, *trained)
    assert [(use.title, use.consumer) for use in seen] == [(FAST.title, "train"), (SLOW.title, "train")]
    assert seen[0].samples == ((0.0, 10.0), (0.5, 90.0))


def test_gpu_use_without_training_is_that_of_the_drain(tmp_path: Path) -> None:
    [use] = found(tmp_path, told(load(FAST, 1), tmp_path, 40.0), load(SLOW, 1))
    assert (use.title, use.consumer, use.samples) == (FAST.title, "hungry", ((0.0, 40.0),))


def test_earlier_rows_show_figures_recomputed_from_raw_times(tmp_path: Path) -> None:
    """In the reference results one row said 3,980 images/s where 5,326 is right: it counted the harness's own pause."""
    s = 10**9
    exits = [s, 2 * s, 3 * s, 4 * s, 5 * s, 15 * s, 16 * s]
    times = Timeline(
        [0, *exits[:4], 14 * s, 15 * s], exits, [10] * 7, [0, 2, 4, 6], opened=1, closed=4, paused=5, complete=3
    )
    folder = fabricate.campaign(tmp_path / "made", [], cast=[FAST, SLOW], blocks=1)
    (folder / "times").mkdir()
    for actor in (FAST, SLOW):
        times.save(folder / "times" / f"{actor.name}.npz")
        earlier = load(actor, 1, schema=5, times=f"{actor.name}.npz", later_epochs_images_per_s=3.0)
        trials_csv.append(folder / "trials.csv", earlier)
    (folder / "times" / f"{SLOW.name}.npz").unlink()
    medians = {s.name: s.medians for s in analyse_folder(CampaignFolder(folder)).summaries}
    assert medians[FAST.name]["later_epochs_images_per_s"] == 10.0
    assert "later_epochs_images_per_s" not in medians[SLOW.name]


def test_rows_without_samples_or_raw_times_are_excluded(tmp_path: Path) -> None:
    empty = replace(told(load(FAST, 1), tmp_path), gpu_util_pct=40.0)
    lost = replace(load(SLOW, 1), times="nowhere.npz", gpu_util_pct=40.0)
    assert found(tmp_path, empty, lost) == ()


def test_raw_times_are_not_read_without_a_gpu(tmp_path: Path) -> None:
    assert found(tmp_path, replace(load(FAST, 1), times="nowhere.npz")) == ()
