"""What a trial costs is measured over all its processes, once each: held against a loader of known cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from loaderbench.api import Artifact
from loaderbench.machine import cache_state as cachestate
from loaderbench.machine import page_cache as pagecache
from loaderbench.machine import process

MIB = 1 << 20
WORK = {"batch_size": 16, "workers": 2, "image_size": 64, "dtype": "uint8", "passes": 1, "seed": 0}
pytestmark = pytest.mark.alone
ARTIFACT = {
    "format": "f",
    "path": "/",
    "samples": 320,
    "label_sum": 7,
    "size_bytes": 1,
    "payload_bytes": 1,
    "encoding": {"mode": "jpeg"},
}


def measured(
    folder: Path, window_s: float = 1.5, *, loader: str = "pace", cold: bool = False, **options: Any
) -> dict[str, Any]:
    """The columns of a trial of a loader of known behaviour, over the files in `folder/data`, if any."""
    sizes = {path: path.stat().st_size for path in folder.glob("data/*/*")}
    found = {"path": str(folder / "data"), "samples": len(sizes), "label_sum": 0, "size_bytes": sum(sizes.values())}
    spec = {
        "loader": loader,
        "artifact": {**ARTIFACT, **(found if sizes else {"path": str(folder)})},
        "work": WORK,
        "options": options,
        "consumer": "hungry",
        "consumer_options": {},
        "window": {"warmup_s": 0.2, "window_s": window_s, "window_batches": 4, "pause_s": 0.3, "epochs": int(cold)},
        "times": str(folder / "times.npz"),
    }
    result = process.run("loaderbench.trial.trial.run", spec, folder / "log", 60)
    assert result["status"] == "ok", result
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, planted: None) -> Path:
    """The folder of 32 files of 1 MiB in one class, `data`, which the planted loaders read."""
    folder = tmp_path_factory.mktemp("read")
    (folder / "data" / "class").mkdir(parents=True)
    for number in range(32):
        (folder / "data" / "class" / str(number)).write_bytes(os.urandom(MIB))
    return folder


@pytest.fixture
def on_disk(data: Path) -> Path:
    """The same, if it is really on a disk."""
    pagecache.evict(data / "data")
    if pagecache.resident_pct(data / "data") != 0:
        pytest.skip("these files are kept in memory, and there is no disk to read them from")
    return data


@pytest.fixture(scope="module")
def costly(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The columns of a loader that costs something of everything."""
    burnt = {"own_cores": 0.2, "child_cores": 0.2, "grandchild_cores": 0.2}
    return measured(tmp_path_factory.mktemp("costly"), 4, images_per_s=400.0, **burnt, shared_mib=400, read_mib=32)


@pytest.fixture(scope="module")
def mapped(data: Path) -> dict[str, Any]:
    """The columns of a loader that maps each file once, all of which are in memory."""
    assert cachestate.bring_about(data / "data", "warm") == 100
    return measured(data, 0.2, loader="planted", behaviour="map")


@pytest.mark.parametrize(("images_per_s", "burst"), [(4000.0, 1), (1000.0, 4)])
def test_a_known_speed_is_given_back(tmp_path: Path, images_per_s: float, burst: int) -> None:
    result = measured(tmp_path, images_per_s=images_per_s, burst_batches=burst)
    assert result["images_per_s"] == pytest.approx(images_per_s, rel=0.02)


def test_a_known_speed_is_given_back_whatever_it_costs(costly: dict[str, Any]) -> None:
    assert costly["images_per_s"] == pytest.approx(400, rel=0.02)


def test_who_prepares_a_whole_epoch_before_its_first_batch_gains_nothing(data: Path) -> None:
    """Two batches per epoch, handed over at once after 0.4 s."""
    result = measured(data, loader="planted", behaviour="bank", seconds=0.2)
    assert result["images_per_s"] == pytest.approx(32 / 0.4, rel=0.02)


def test_cpu_is_charged_wherever_it_is_burnt(costly: dict[str, Any]) -> None:
    assert costly["cores_used"] == pytest.approx(0.6, rel=0.03)


@pytest.mark.parametrize("behaviour", ["grandchildren", "orphans"])
def test_cpu_of_processes_that_end_at_once_is_charged(data: Path, behaviour: str) -> None:
    """Each batch burns 0.2 s in a process whose parent may have gone, and less in starting it; the window is of
    batches.
    """
    result = measured(data, 0.2, loader="planted", behaviour=behaviour)
    assert 1 <= result["cpu_s"] / (0.2 * result["window_images"] / WORK["batch_size"]) < 1.9


def test_a_file_that_is_mapped_twice_counts_once(data: Path, mapped: dict[str, Any]) -> None:
    twice = measured(data, 0.2, loader="planted", behaviour="map twice")
    of_files = [result["peak_memory_mib"] - result["peak_anon_memory_mib"] for result in (mapped, twice)]
    assert of_files[0] > 32
    assert of_files[1] == pytest.approx(of_files[0], rel=0.05)


def state(result: dict[str, Any], resident_pct: float, cache: Any) -> str:
    artifact = Artifact.from_dict({**ARTIFACT, "size_bytes": 32 * MIB, "payload_bytes": 32 * MIB})
    return cachestate.judge(cache, artifact, resident_pct, result["read_bytes"], virtual_machine=False)


def test_what_is_read_cold_is_counted_and_proves_it(on_disk: Path) -> None:
    resident_pct = cachestate.bring_about(on_disk / "data", "cold")
    assert resident_pct is not None
    result = measured(on_disk, loader="planted", cold=True, behaviour="map")
    assert result["read_bytes"] == pytest.approx(32 * MIB, rel=0.05)
    assert state(result, resident_pct, "cold") == "cold"
    assert result["window_images"] == 32 - WORK["batch_size"]


def test_a_trial_of_files_in_memory_is_called_warm(mapped: dict[str, Any]) -> None:
    assert state(mapped, 100, "warm") == "warm"


def test_a_warm_trial_whose_files_were_evicted_is_not_called_warm(on_disk: Path) -> None:
    resident_pct = cachestate.bring_about(on_disk / "data", "warm")
    assert resident_pct == 100
    result = measured(on_disk, 0.2, loader="planted", behaviour="evict")
    assert state(result, resident_pct, "warm") == "unproven"


@pytest.mark.usefixtures("on_disk")
def test_the_bytes_that_pace_reads_are_known(costly: dict[str, Any]) -> None:
    assert costly["read_bytes"] == pytest.approx(32 * MIB, rel=0.05)


def test_the_monitors_tell_what_they_cost(costly: dict[str, Any]) -> None:
    assert 0 < costly["monitor_cpu_pct"] < 100


def test_memory_that_two_processes_share_counts_once(tmp_path: Path, costly: dict[str, Any]) -> None:
    plain = measured(tmp_path, 0.2, images_per_s=400.0)
    assert costly["peak_anon_memory_mib"] - plain["peak_anon_memory_mib"] == pytest.approx(400, rel=0.1)


def test_what_was_evicted_is_not_called_resident(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))
    assert pagecache.read_through(tmp_path) == 1 << 20
    assert pagecache.resident_pct(tmp_path) == 100
    pagecache.evict(tmp_path)
    assert pagecache.resident_pct(tmp_path) in {0, 100}  # a file system in memory has nowhere to evict to
    with path.open("rb") as file:
        pages = (1 << 20) // os.sysconf("SC_PAGE_SIZE")
        assert pagecache._mincore(file.fileno(), pages) in {0, pages}
        assert pagecache._cachestat(file.fileno()) in {None, 0, pages}


def test_an_empty_folder_has_no_residency(tmp_path: Path) -> None:
    assert pagecache.resident_pct(tmp_path) is None
