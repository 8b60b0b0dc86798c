"""CPU time, memory and bytes read are counted once over all processes of a trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.machine import cgroup, cores, page_cache
from loaderbench.machine.counters import processes, tree_counters, tree_memory
from loaderbench.records.timeline import Timeline
from loaderbench.trial import TrialSpec, Window, measure

MIB = 1 << 20
FILES_MIB = 32
WORK = Work(batch_size=16, workers=2, image_size=64)
pytestmark = pytest.mark.usefixtures("planted", "forked")


def measured(folder: Path, *, loader: str, cold: bool = False, **options: Any) -> dict[str, Any]:
    """Run a trial of a loader of known behaviour on the files in `folder/data`, if any; return its columns."""
    sizes = {path: path.stat().st_size for path in folder.glob("data/*/*")}
    artifact = Artifact("f", str(folder), 320, 0, 1, 1, Encoding("jpeg"))
    if sizes:
        artifact = replace(artifact, path=str(folder / "data"), samples=len(sizes), size_bytes=sum(sizes.values()))
    window = Window(0, 0, 4, None, whole_epoch_s=0, epochs=int(cold))
    result = measure(TrialSpec(loader, artifact, WORK, window, folder / "times.npz", options), folder / "log", 600)
    assert result["status"] == "ok", result
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose subfolder `data` has one class of 32 files of 1 MiB."""
    folder = tmp_path_factory.mktemp("read")
    (folder / "data" / "class").mkdir(parents=True)
    for number in range(FILES_MIB):
        (folder / "data" / "class" / str(number)).write_bytes(os.urandom(MIB))
    return folder


@pytest.fixture
def on_disk(data: Path) -> Path:
    """The same folder, evicted from the page cache; skips where files are kept in memory."""
    page_cache.evict(data / "data")
    if page_cache.resident_pct(data / "data") != 0:
        pytest.skip("these files are kept in memory, and there is no disk to read them from")
    return data


@pytest.mark.parametrize("who", ["itself", "child", "detached", "forked by a thread", "grandchild", "orphan"])
def test_batch_and_cpu_times_agree_with_the_loaders_own_clocks(who: str, tmp_path: Path) -> None:
    """The loader's processes report both by their own clocks, except for the CPU time of their own exits."""
    result = measured(tmp_path, loader="burning", who=who, told=str(tmp_path / "told"))
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    times = Timeline.load(tmp_path / "times.npz")
    with np.load(tmp_path / "times.npz") as kept:
        exits_ns = np.array(times.exits_ns) + kept["first_asked_ns"][0]
    for exit_ns, batch in zip(exits_ns, told, strict=False):
        assert batch["handed_ns"] <= exit_ns <= batch["asked_again_ns"]
    assert times.opened is not None
    assert times.closed is not None
    burnt_s = sum(batch["cpu_s"] for batch in told[times.opened + 1 : times.closed + 1])
    assert burnt_s <= result["cpu_s"] < 1.5 * burnt_s


HOLD = """
import mmap, sys
held = []
for line in sys.stdin:
    memory = mmap.mmap(int(line), 0)
    for start in range(0, len(memory), mmap.PAGESIZE):
        memory[start]
    held.append(memory)
    print(flush=True)
"""


@contextmanager
def holder(descriptor: int) -> Iterator[subprocess.Popen[str]]:
    """Start a small process that maps the file once more for each line it reads."""
    command = [sys.executable, "-S", "-c", HOLD]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, pass_fds=[descriptor]
    ) as process:
        yield process
        process.communicate()


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_memory_mapped_several_times_counts_once(kind: str, tmp_path: Path) -> None:
    """Mapped by one process, by the same one again, and by a second one."""
    (tmp_path / "file").write_bytes(os.urandom(FILES_MIB * MIB))
    page_cache.evict(tmp_path)
    on_disk = page_cache.resident_pct(tmp_path) == 0
    descriptor = os.open(tmp_path / "file", os.O_RDWR) if kind == "file" else os.memfd_create("shared")
    if kind == "memory":
        os.write(descriptor, bytes(FILES_MIB * MIB))
    with holder(descriptor) as first, holder(descriptor) as second:
        tree = [psutil.Process(first.pid), psutil.Process(second.pid)]
        before = tree_memory(tree)
        assert before
        for process in (first, first, second):
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{descriptor}\n")
            process.stdout.readline()
            now = tree_memory(tree)
            assert now
            assert now.total_mib - before.total_mib == pytest.approx(FILES_MIB, abs=FILES_MIB / 4)
            anonymous_mib = 0 if kind == "file" and on_disk else FILES_MIB
            assert now.anon_mib - before.anon_mib == pytest.approx(anonymous_mib, abs=FILES_MIB / 4)
    os.close(descriptor)


def test_bytes_read_from_disk_verify_a_cold_cache(on_disk: Path) -> None:
    resident_pct = page_cache.warm_or_evict(on_disk / "data", "cold")
    result = measured(on_disk, loader="planted", cold=True, behaviour="map")
    assert FILES_MIB <= result["read_bytes"] / MIB < 2 * FILES_MIB
    assert page_cache.cold_state(resident_pct, result["read_bytes"], FILES_MIB * MIB, "") == "cold"
    assert result["window_images"] == FILES_MIB - WORK.batch_size


def warm_state(folder: Path, **options: Any) -> str:
    """Return the state of the page cache in a warm trial of a loader on the files."""
    before_pct = page_cache.warm_or_evict(folder / "data", "warm")
    window_read_bytes = measured(folder, **options)["window_read_bytes"]
    return page_cache.warm_state(
        before_pct, page_cache.resident_pct(folder / "data"), window_read_bytes, FILES_MIB * MIB
    )


def test_a_trial_on_resident_files_is_warm(data: Path) -> None:
    assert warm_state(data, loader="planted", behaviour="map") == "warm"


@pytest.mark.parametrize("behaviour", ["evict and read", "evict and leave"])
def test_a_trial_whose_files_leave_the_page_cache_is_not_verified_as_warm(on_disk: Path, behaviour: str) -> None:
    assert warm_state(on_disk, loader="planted", behaviour=behaviour) == "unproven"


def test_what_is_read_before_the_window_of_other_files_leaves_a_trial_warm(on_disk: Path) -> None:
    """As a library's own pages are, when it is first used."""
    assert warm_state(on_disk, loader="pace", read_mib=FILES_MIB) == "warm"


def test_pace_reads_and_holds_its_known_amounts(on_disk: Path, tmp_path: Path) -> None:
    """Two processes hold the memory."""
    plain = measured(tmp_path, loader="pace")
    known = measured(tmp_path, loader="pace", shared_mib=200, read_mib=FILES_MIB)
    assert FILES_MIB <= known["read_bytes"] / MIB < 2 * FILES_MIB
    assert known["anon_memory_mib"] - plain["anon_memory_mib"] == pytest.approx(200, rel=0.25)


def test_context_switches_of_ended_threads_are_counted() -> None:
    before = tree_counters(processes())
    thread = threading.Thread(target=lambda: [time.sleep(0.001) for _ in range(100)])
    thread.start()
    thread.join()
    assert tree_counters(processes()).context_switches >= before.context_switches + 100


def test_evicted_pages_are_not_reported_as_resident(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(MIB))
    assert page_cache.read_through(tmp_path) == MIB
    assert page_cache.resident_pct(tmp_path) == 100
    page_cache.evict(tmp_path)
    left_pct = page_cache.resident_pct(tmp_path)
    assert left_pct in {0, 100}  # a file system in memory has nowhere to evict to
    with path.open("rb") as file:
        pages = MIB // os.sysconf("SC_PAGE_SIZE")
        resident = pages * left_pct // 100
        assert page_cache._mincore(file.fileno(), pages) == resident
        assert page_cache._cachestat(file.fileno()) in {None, resident}


def test_an_empty_folder_has_no_residency(tmp_path: Path) -> None:
    assert page_cache.resident_pct(tmp_path) is None


@pytest.mark.parametrize(
    ("membership", "mounts", "stats", "events"),
    [
        ("0::/slice/job", ("/ {}", "cgroup2 none rw"), {"": 1, "slice": 20, "slice/job": 300}, 321),
        ("0::/slice/job", ("/ {}", "cgroup2 none rw"), {"slice": 20}, 20),
        ("0::/slice/job", ("/ {}", "cgroup2 none rw"), {}, None),
        ("0::/slice/job", ("/slice {}", "cgroup2 none rw"), {"": 20, "job": 300}, 320),
        ("0::/../other", ("/ {}", "cgroup2 none rw"), {"": 1}, None),
        ("3:cpuacct,cpu:/slice\n0::/", ("/ {}", "cgroup none rw,cpu,cpuacct"), {"": 0, "slice": 20}, 20),
        ("3:cpuacct,cpu:/docker/1\n0::/", ("/docker/1 {}", "cgroup none rw,cpu,cpuacct"), {"": 300}, 300),
        ("3:cpuacct,cpu:/slice\n0::/", ("/ {}", "cgroup2 none rw"), {"": 0}, None),
        ("3:memory:/slice", ("/ {}", "cgroup none rw,memory"), {"": 0}, None),
    ],
    ids=[
        "v2",
        "one_reports",
        "none_reports",
        "v2_mounted_below",
        "v2_elsewhere",
        "v1",
        "v1_in_a_container",
        "v1_not_mounted",
        "no_controller",
    ],
)
def test_throttling_is_read_from_the_cgroup_of_this_process(  # noqa: PLR0913, PLR0917
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    membership: str,
    mounts: tuple[str, str],
    stats: dict[str, int],
    events: int | None,
) -> None:
    place, kind = mounts
    (tmp_path / "membership").write_text(f"4:memory:/elsewhere\n{membership}\n")
    point = tmp_path / "cgroups"
    (tmp_path / "mounts").write_text(
        f"20 1 0:5 / /proc rw,relatime - proc proc rw\n31 23 0:28 {place.format(point)} rw,nosuid shared:4 - {kind}\n"
    )
    (point / "slice" / "job").mkdir(parents=True)
    (point / "job").mkdir()
    for group, throttled in stats.items():
        (point / group / "cpu.stat").write_text(f"nr_periods 5\nnr_throttled {throttled}\n")
    monkeypatch.setattr(cgroup, "_CGROUPS", tmp_path / "membership")
    monkeypatch.setattr(cgroup, "_MOUNTS", tmp_path / "mounts")
    assert cores.cores().quota_events == events


def test_unread_heat_is_empty() -> None:
    assert cores._thermal_events({"cpu_of_another_machine"}) is None
