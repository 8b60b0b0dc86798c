"""`make bench` runs in a small container: one core, 1.5 GiB, 64 MiB of /dev/shm, an unknown user, a read-only disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from loaderbench.machine import machine_lock
from loaderbench.records import trials_csv
from tests import campaigns

ROOT = Path(__file__).parent.parent
CGROUPS = Path("/sys/fs/cgroup")
USER = 12345
MEMORY_BYTES = 3 << 29
CAMPAIGN = """
name = "small"
question = "?"
reference = "imagefolder"
data = { samples = 400, probe = 0 }
work = { image_size = 224, epoch_images = 800 }
timing = { blocks = 1, warmup_s = 0.1, window_s = 0.5, window_batches = 2, pause_s = 0.1, limit_s = 300, stage_s = 0.1 }
formats = [
    { name = "files", title = "files", writer = "imagefolder", mode = "original" },
    { name = "ffcv", title = "ffcv", writer = "ffcv", mode = "jpeg" },
    { name = "litdata", title = "litdata", writer = "litdata", mode = "jpeg" },
]
contestants = [
    { name = "imagefolder", title = "ImageFolder", loader = "imagefolder", format = "files" },
    { name = "ffcv", title = "FFCV", loader = "ffcv", format = "ffcv" },
    { name = "litdata", title = "LitData", loader = "litdata", format = "litdata" },
]
"""


def limits() -> dict[Path, str]:
    """Return the files of new cgroups with the limits to write there, of cgroup v1 or v2; empty if there are none."""
    name = f"loaderbench-{os.getpid()}"
    v2 = CGROUPS / "cgroup.subtree_control"
    if v2.exists() and {"cpu", "memory"} <= {*v2.read_text().split()}:
        return {
            CGROUPS / name / "cpu.max": "100000 100000",
            CGROUPS / name / "memory.max": str(MEMORY_BYTES),
        }
    if all((CGROUPS / kind / "cgroup.procs").exists() for kind in ("cpu", "memory")):
        return {
            CGROUPS / "cpu" / name / "cpu.cfs_quota_us": "100000",
            CGROUPS / "memory" / name / "memory.limit_in_bytes": str(MEMORY_BYTES),
        }
    return {}


@pytest.fixture
def cgroups() -> Iterator[set[Path]]:
    """Folders of new cgroups, with the limits of a small container."""
    written = limits()
    folders = {path.parent for path in written}
    try:
        for folder in folders:
            folder.mkdir()
        for path, limit in written.items():
            path.write_text(limit)
    except OSError as error:
        pytest.skip(f"needs root and cgroups: {error}")
    if not folders:
        pytest.skip("needs cgroups for CPU time and memory")
    yield folders
    for folder in folders:
        for _ in range(100):
            with suppress(OSError):  # a process that was killed has not ended yet
                folder.rmdir()
                break
            time.sleep(0.1)
        assert not folder.exists(), (folder / "cgroup.procs").read_text()


def seen_by_all(paths: list[Path], aside: Path) -> Iterator[str]:
    """Yield commands that let any user reach paths although a folder above them is closed, in a mount namespace."""
    closed = {above for path in paths for above in path.parents if not above.stat().st_mode & 1}
    for number, path in enumerate(paths):
        (aside / str(number)).mkdir(parents=True, exist_ok=True)
        yield f"mount --rbind {path} {aside}/{number}"
    yield from (f"mount -t tmpfs -o mode=755 none {folder}" for folder in closed if not closed & {*folder.parents})
    for number, path in enumerate(paths):
        yield f"mkdir -p {path} && mount --rbind {aside}/{number} {path}"


def inside(box: Path, cgroups: set[Path], command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container-like shape. `box`: appears as /mnt; only folders in it can be written."""
    environment = f"env -i PATH=$PATH NUMBA_OPT=0 {machine_lock.VARIABLE}={box}"
    lines = [
        *(f"echo $$ > {folder}/cgroup.procs" for folder in cgroups),
        "mount -t tmpfs -o size=64m none /dev/shm",
        f"mount --bind {box} /mnt",
        *seen_by_all([Path(sys.base_prefix), ROOT], box.parent / "aside"),
        "mount -o remount,ro,bind /",
        "mount -o remount,ro,bind /mnt",
        *(
            f"mount --bind {folder} /mnt/{folder.name} && mount -o remount,rw,bind /mnt/{folder.name}"
            for folder in box.iterdir()
            if folder.is_dir()
        ),
        f"cd / && exec setpriv --reuid {USER} --regid {USER} --clear-groups {environment} {command}",
    ]
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "\n".join(lines)], capture_output=True, text=True, check=False, timeout=900
    )


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for mounts and cgroups")
def test_a_campaign_runs_in_a_small_container_as_the_error_advises(tmp_path: Path, cgroups: set[Path]) -> None:
    box = tmp_path / "box"
    for name in ("cache", "results", "reports"):
        (box / name).mkdir(parents=True)
        os.chown(box / name, USER, USER)
    campaigns.file(box, CAMPAIGN)
    places = " ".join(f"--{name} /mnt/{name}" for name in ("cache", "results", "reports"))
    make = f"make -C {ROOT} PYTHON={sys.base_prefix}/bin/python3 bench CAMPAIGN=/mnt/small.toml"  # set up already
    refused = inside(box, cgroups, f"{make} BENCH_ARGS='{places}'")
    assert refused.returncode == 2, refused.stderr
    assert re.search("imagefolder, litdata: its workers pass batches on through /dev/shm, which needs", refused.stderr)
    assert [path.name for path in (box / "cache").iterdir()] in (["tmp", "home"], ["home", "tmp"])
    advised = re.search(r"--batch-size \d+", refused.stderr)
    assert advised
    done = inside(box, cgroups, f"{make} BENCH_ARGS='{places} {advised[0]}'")
    assert done.returncode == 0, done.stderr
    rows = trials_csv.read(box / "results" / "small" / "trials.csv")
    assert {row.contestant for row in rows if row.kind == "load"} == {"imagefolder", "ffcv", "litdata"}
    assert {row.reason for row in rows if row.status != "ok"} <= {"torch finds no CUDA device"}
    assert {row.workers for row in rows if row.kind == "load"} == {1}
    assert (box / "reports" / "small" / "report.md").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount")
def test_a_campaign_runs_where_no_program_may_run_in_the_temporary_folder_and_the_cache(tmp_path: Path) -> None:
    campaign = campaigns.file(tmp_path, CAMPAIGN.replace("samples = 400", "samples = 40").replace("224", "64"))
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    places = " ".join(f"--{name} {mounted / name}" for name in ("cache", "reports"))
    bench = f"{sys.executable} -m loaderbench.cli bench {campaign} --batch-size 16 --results {tmp_path} {places}"
    lines = [
        f"mount -t tmpfs -o noexec,mode=1777 none {mounted}",
        f"cp /bin/true {mounted}; if {mounted}/true; then exit 9; fi",
        f"TMPDIR={mounted} {bench}",
    ]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "\n".join(lines)], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    rows = trials_csv.read(tmp_path / "small" / "trials.csv")
    assert [row.status for row in rows if row.kind == "load"] == ["ok"] * 3
