"""Under a real CPU quota, what it leaves is all that counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from loaderbench.machine import cgroup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PERIOD_US = 100_000
JOIN = """
import json, os, sys, time
from pathlib import Path
from loaderbench.machine.cores import core_count, cores

def join():
    Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
"""
TRIAL = """
from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign.schema import WorkSettings
from loaderbench.trial import TrialSpec, Window, measure

join()
artifact = Artifact("f", sys.argv[2], 320, 0, 1, 1, Encoding("jpeg"))
work, folder = Work(batch_size=16, workers=1, image_size=32), Path(sys.argv[2])
options = {"own_cores": 0.9, "child_cores": 0.9, "images_per_s": 640.0}
spec = TrialSpec("pace", artifact, work, Window(0, 1, 4, None, False), folder / "times.npz", options)
trial = measure(spec, folder / "log", 120)
print(json.dumps({"workers": WorkSettings().count_workers(), "processes": core_count(), "trial": trial}))
"""
BURN = """
join()
before = cores().quota_events
end_s = time.process_time() + float(sys.argv[2])
while time.process_time() < end_s:
    pass
print(cores().quota_events - before)
"""


class Group:
    """A cgroup with a CPU quota, below this process's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.v1 = (folder / "cpu.cfs_quota_us").exists()

    def allow(self, cores: float) -> None:
        quota_us = round(cores * PERIOD_US)
        if self.v1:
            (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self.folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (self.folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")

    def run(self, program: str, argument: object) -> Any:
        command = [sys.executable, "-c", JOIN + program, str(self.folder), str(argument)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


@pytest.fixture
def group() -> Iterator[Group]:
    own = next((path for path in cgroup._folders("cpu") if os.access(path, os.W_OK)), None)
    if own is None:
        pytest.skip("no cgroup for CPU time may be changed")
    folder = own / f"loaderbench-test-{os.getpid()}"
    folder.mkdir()
    try:
        if not any((folder / name).exists() for name in ("cpu.cfs_quota_us", "cpu.max")):
            pytest.skip("the controller for CPU time is not delegated")
        yield Group(folder)
    finally:
        folder.rmdir()


@pytest.mark.slow
def test_a_quota_of_one_core_is_all_that_may_be_used(group: Group, tmp_path: Path) -> None:
    group.allow(cores=1)
    found = group.run(TRIAL, tmp_path)
    assert (found["workers"], found["processes"]) == (1, 1)
    trial = found["trial"]
    assert trial["status"] == "ok", trial
    assert trial["cpu_load_pct"] == pytest.approx(100 * trial["cores_used"])
    assert trial["quota_throttle_events"] is not None


@pytest.mark.slow
def test_a_used_up_quota_is_counted(group: Group) -> None:
    group.allow(cores=0.02)
    assert group.run(BURN, 0.01) > 0
