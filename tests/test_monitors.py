"""What a trial costs is measured over all its processes, once each: held against a loader of known cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench import pagecache, process

WORK = {"batch_size": 16, "workers": 2, "image_size": 64, "dtype": "uint8", "passes": 1, "seed": 0}
ARTIFACT = {
    "format": "f",
    "path": "/",
    "samples": 320,
    "label_sum": 7,
    "size_bytes": 1,
    "encoding": {"mode": "jpeg"},
}


def measured(folder: Path, window_s: float = 1.5, **options: Any) -> dict[str, Any]:
    """The columns of a trial of the loader `pace`."""
    spec = {
        "loader": "pace",
        "artifact": ARTIFACT,
        "work": WORK,
        "options": options,
        "window": {"warmup_s": 0.2, "window_s": window_s, "window_batches": 4},
        "times": str(folder / "times.npz"),
    }
    result = process.run("trial", spec, folder / "log", 60)
    assert result["status"] == "ok", result
    return result


@pytest.mark.parametrize(("images_per_s", "burst"), [(200.0, 1), (1000.0, 4)])
def test_a_known_speed_is_given_back(tmp_path: Path, images_per_s: float, burst: int) -> None:
    result = measured(tmp_path, images_per_s=images_per_s, burst_batches=burst)
    assert result["images_per_s"] == pytest.approx(images_per_s, rel=0.05)


def test_cpu_is_charged_wherever_it_is_burnt(tmp_path: Path) -> None:
    result = measured(tmp_path, images_per_s=400.0, own_cores=0.2, child_cores=0.2, grandchild_cores=0.2)
    assert result["cores_used"] == pytest.approx(0.6, abs=0.06)


def test_memory_that_two_processes_share_counts_once(tmp_path: Path) -> None:
    plain, held = (measured(tmp_path, 0.2, images_per_s=400.0, shared_mib=mib) for mib in (0, 400))
    assert held["peak_anon_memory_mib"] - plain["peak_anon_memory_mib"] == pytest.approx(400, rel=0.1)


def test_what_was_evicted_is_not_called_resident(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))
    assert pagecache.read_through(tmp_path) == 1 << 20
    assert pagecache.resident_pct(tmp_path) == 100
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert pagecache.resident_pct(tmp_path) in {0, 100}  # a file system in memory has nowhere to evict to
    with path.open("rb") as file:
        pages = (1 << 20) // os.sysconf("SC_PAGE_SIZE")
        assert pagecache._mincore(file.fileno(), pages) in {0, pages}
        assert pagecache._cachestat(file.fileno()) in {None, 0, pages}


def test_an_empty_folder_has_no_residency(tmp_path: Path) -> None:
    assert pagecache.resident_pct(tmp_path) is None
