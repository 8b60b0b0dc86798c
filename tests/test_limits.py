"""The machine's limits are measured or have a reason, and the smallest that applies is a contestant's bound."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from loaderbench.machine import page_cache as pagecache
from loaderbench.machine import process
from loaderbench.roofline import measure as limits
from tests.test_process import gone

if TYPE_CHECKING:
    from loaderbench.formats.prepare import Prepared
    from loaderbench.images.canonical_store import CanonicalImages

WORK = {"batch_size": 16, "workers": 2, "image_size": 32, "dtype": "uint8", "passes": 1, "seed": 0}
TO_DEVICE = ("host-to-device", "pageable-to-device")
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def spec(everything: Prepared, canonical: CanonicalImages) -> dict[str, Any]:
    return {
        "canonical": str(canonical.folder),
        "artifacts": {name: asdict(artifact) for name, artifact in everything.artifacts.items()},
        "work": WORK,
        "stages": limits.STAGES,
        "seconds": 0.1,
    }


@pytest.fixture(scope="module")
def result(spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return process.run("loaderbench.roofline.measure.run", spec, tmp_path_factory.mktemp("limits") / "log", 600)


class TestRun:
    def test_every_stage_has_a_figure_or_a_reason(self, result: dict[str, Any], everything: Prepared) -> None:
        assert result["status"] == "ok", result
        disks = {f"disk/{name}" for name in everything.artifacts}
        assert set(result["limits"]) == {*limits.STAGES, *disks} - {"disk"}
        for stage, limit in result["limits"].items():
            assert (limit is None) == bool(result["reasons"].get(stage)), stage
            assert limit is None or limit > 0

    def test_what_needs_no_device_is_measured(self, result: dict[str, Any]) -> None:
        needs_one = {stage for stage in result["limits"] if stage.startswith("disk/")} | set(TO_DEVICE)
        assert result["reasons"].keys() <= needs_one

    def test_without_cuda_there_is_a_reason_and_no_zero(self, result: dict[str, Any]) -> None:
        import torch

        if not torch.cuda.is_available():
            for stage in TO_DEVICE:
                assert result["limits"][stage] is None
                assert result["reasons"][stage] == "torch finds no CUDA device"

    @pytest.mark.parametrize(
        ("resident_pct", "reason"),
        [(100.0, "100 % of the files stayed in the page cache"), (None, "the kernel does not tell")],
    )
    def test_a_disk_that_cannot_be_reached_is_not_measured(
        self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, resident_pct: float | None, reason: str
    ) -> None:
        monkeypatch.setattr(pagecache, "resident_pct", lambda _: resident_pct)
        result = limits.run({**spec, "stages": ["disk"]})
        assert set(result["limits"].values()) == {None}
        assert result["reasons"]["disk/ffcv-raw"].startswith(reason)

    def test_a_stage_that_fails_leaves_the_others(self, spec: dict[str, Any]) -> None:
        work = {**spec["work"], "workers": 0}
        result = limits.run({**spec, "work": work, "stages": ["transfer", "output"]})
        assert result["limits"]["output"] > 0
        assert result["limits"]["transfer"] is None
        assert result["reasons"] == {"transfer": "the work has no worker processes"}

    def test_its_libraries_are_not_in_a_trials_process(self) -> None:
        script = "import sys, loaderbench.trial.trial; print([n for n in ('cv2', 'simplejpeg') if n in sys.modules])"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    @pytest.mark.parametrize(("stage", "workers"), [("decode+crop", CORES), ("transfer", WORK["workers"])])
    def test_when_the_harness_is_killed_so_are_all_processes(
        self, spec: dict[str, Any], tmp_path: Path, stage: str, workers: int
    ) -> None:
        program = (
            "import json, sys, pathlib; from loaderbench.machine import process; "
            "process.run('loaderbench.roofline.measure.run', json.loads(sys.argv[1]), pathlib.Path(sys.argv[2]), 600)"
        )
        description = json.dumps({**spec, "stages": [stage], "seconds": 600})
        harness = subprocess.Popen([sys.executable, "-c", program, description, str(tmp_path / "log")])
        below: list[psutil.Process] = []
        deadline_s = time.monotonic() + 300
        while len(below) < 1 + workers:
            assert harness.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
            below = psutil.Process(harness.pid).children(recursive=True)
        harness.kill()
        harness.wait()
        assert all(gone(child.pid) for child in below)


class TestBound:
    @pytest.mark.parametrize(
        ("mode", "stages"),
        [
            ("raw", ("crop", "output")),
            ("jpeg", ("decode", "decode+crop", "output")),
            ("original", ("original decode", "original decode+crop", "output")),
            ("proportion", ("output",)),
            ("smart", ("output",)),
        ],
    )
    def test_the_format_decides_what_applies(self, mode: Any, stages: tuple[str, ...]) -> None:
        assert limits.applicable(mode, cold=False, shared=False, on_gpu=False, pageable=False) == stages
        more = limits.applicable(mode, cold=True, shared=True, on_gpu=True, pageable=True)
        assert set(more) - set(stages) == {"disk", "transfer", *TO_DEVICE}
        assert set(more) <= set(limits.STAGES)

    def test_what_is_measured_beside_what_bounds_is_the_copying_of_records(self) -> None:
        for mode, more in (("raw", {"gather"}), ("jpeg", set()), ("smart", set())):
            bounding = limits.applicable(mode, cold=True, shared=True, on_gpu=True, pageable=True)  # type: ignore[arg-type]
            assert set(limits.measurable(mode, cold=True)) - set(bounding) == more  # type: ignore[arg-type]

    def test_each_circumstance_adds_its_stage(self) -> None:
        stages = {"cold": "disk", "shared": "transfer", "on_gpu": "host-to-device", "pageable": "pageable-to-device"}
        none = dict.fromkeys(stages, False)
        for name, stage in stages.items():
            assert limits.applicable("smart", **{**none, name: True}) == ("output", stage)

    def test_it_is_the_smallest_that_applies(self) -> None:
        measured = {"crop": 50.0, "gather": 300.0, "output": 200.0, "decode": 10.0}
        assert limits.bound(measured, ("gather", "crop", "output")) == (50.0, "crop")

    def test_a_missing_limit_is_left_out(self) -> None:
        measured = {"gather": None, "output": 200.0}
        assert limits.bound(measured, ("gather", "crop", "output")) == (200.0, "output")
        assert limits.bound(measured, ("gather", "crop")) is None
