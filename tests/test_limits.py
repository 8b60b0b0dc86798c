"""Machine limits are measured or have a reason; the smallest applicable one limits a contestant."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from loaderbench.api import Work
from loaderbench.campaign import plan
from loaderbench.campaign.variant import MAIN, Variant
from loaderbench.machine import page_cache, process
from loaderbench.machine.cores import core_count
from loaderbench.roofline import limit_columns
from loaderbench.roofline import measure as limits
from loaderbench.roofline.measure import LimitSpec
from tests import fabricate
from tests.campaigns import campaign
from tests.nursery import gone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loaderbench.formats import Prepared
    from loaderbench.images import CanonicalImages

WORK = Work(batch_size=16, workers=2, image_size=32)
NAMES = [step.name for step in limits.STEPS]
TO_DEVICE = ("host-to-device", "pageable-to-device")
CORES = core_count()


@pytest.fixture(scope="module")
def spec(everything: Prepared, canonical: CanonicalImages) -> LimitSpec:
    return LimitSpec(canonical.folder, everything.artifacts, WORK, NAMES, 0.1)


@pytest.fixture(scope="module")
def result(spec: LimitSpec, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return process.run_child("loaderbench.roofline.measure.run", spec, tmp_path_factory.mktemp("limits") / "log", 600)


class TestRun:
    def test_every_step_has_a_figure_or_a_reason(self, result: dict[str, Any], everything: Prepared) -> None:
        assert result["status"] == "ok", result
        disks = {f"{step}/{name}" for step in ("disk", "random-disk") for name in everything.artifacts}
        assert set(result["limits"]) == {*NAMES, *disks} - {"disk", "random-disk"}
        for stage, limit in result["limits"].items():
            assert (limit is None) == bool(result["reasons"].get(stage)), stage
            assert limit is None or limit > 0

    def test_steps_that_need_no_device_are_measured(self, result: dict[str, Any]) -> None:
        needs_one = {stage for stage in result["limits"] if stage.startswith("disk/")} | set(TO_DEVICE)
        assert result["reasons"].keys() <= needs_one

    def test_steps_that_need_cuda_have_a_reason_without_it(self, result: dict[str, Any]) -> None:
        for stage in TO_DEVICE:
            assert result["limits"][stage] is None
            assert result["reasons"][stage] == "torch finds no CUDA device"

    @pytest.mark.parametrize(
        ("resident_pct", "reason"),
        [(100.0, "100 % of the files stayed in the page cache"), (None, "the kernel does not report")],
    )
    def test_disk_is_not_measured_if_pages_stay_cached(
        self, spec: LimitSpec, monkeypatch: pytest.MonkeyPatch, resident_pct: float | None, reason: str
    ) -> None:
        monkeypatch.setattr(page_cache, "resident_pct", lambda _: resident_pct)
        result = limits.run(replace(spec, steps=["disk"]))
        assert set(result["limits"].values()) == {None}
        assert result["reasons"]["disk/ffcv-raw"].startswith(reason)

    def test_a_failing_step_leaves_the_others(self, spec: LimitSpec) -> None:
        result = limits.run(replace(spec, work=replace(WORK, workers=0), steps=["transfer", "output"]))
        assert result["limits"]["output"] > 0
        assert result["limits"]["transfer"] is None
        assert result["reasons"] == {"transfer": "the work has no worker processes"}

    def test_trials_do_not_import_the_libraries_of_the_limits(self) -> None:
        script = "import sys, loaderbench.trial.trial; print([n for n in ('cv2', 'simplejpeg') if n in sys.modules])"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    @pytest.mark.parametrize(("stage", "workers"), [("decode+crop", CORES), ("transfer", WORK.workers)])
    def test_killing_the_harness_ends_all_processes(
        self, spec: LimitSpec, tmp_path: Path, stage: str, workers: int
    ) -> None:
        program = (
            "import pickle, sys, pathlib; from loaderbench.machine.process import run_child; "
            "spec, log = pickle.load(sys.stdin.buffer), pathlib.Path(sys.argv[1]); "
            "run_child('loaderbench.roofline.measure.run', spec, log, 600)"
        )
        harness = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "log")], stdin=subprocess.PIPE)
        assert harness.stdin
        with harness.stdin:
            pickle.dump(replace(spec, steps=[stage], seconds=600), harness.stdin)
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


def _names(steps: Iterable[limits.Step]) -> tuple[str, ...]:
    return tuple(step.name for step in steps)


class TestBound:
    @pytest.mark.parametrize(
        ("mode", "stages"),
        [
            ("raw", ("crop", "output")),
            ("jpeg", ("decode", "decode+crop", "region decode+crop", "output")),
            (
                "original",
                ("original decode", "original decode+crop", "original region decode+crop", "output"),
            ),
            ("proportion", ("output",)),
            ("smart", ("output",)),
        ],
    )
    def test_the_format_decides_which_steps_apply(self, mode: Any, stages: tuple[str, ...]) -> None:
        assert _names(limits.needed(mode, ())) == stages
        more = _names(limits.needed(mode, ("cold", "shared", "on the GPU", "pageable")))
        assert set(more) - set(stages) == {"disk", "transfer", *TO_DEVICE}

    def test_gather_is_the_only_measured_step_that_limits_nothing(self) -> None:
        assert {step.name for step in limits.STEPS if step.only == "copies records"} == {"gather"}

    @pytest.mark.parametrize(
        ("situation", "stage"),
        [
            ("cold", "disk"),
            ("shared", "transfer"),
            ("on the GPU", "host-to-device"),
            ("pageable", "pageable-to-device"),
            ("copies records", "gather"),
        ],
    )
    def test_each_circumstance_adds_its_step(self, situation: Any, stage: str) -> None:
        assert set(_names(limits.needed("raw", (situation,)))) == {"crop", "output", stage}


class TestColumns:
    """Of a contestant with raw records."""

    @pytest.mark.parametrize(
        ("changes", "by", "reason"),
        [
            ({}, "crop", ""),
            ({"images_per_s": 60.0}, "crop", ""),  # less work than requested, or a wrong limit
            (
                {"images_per_s": 51.0, "prefetch_bias_bound_pct": 3.0},
                None,
                "crop: faster, but no more than by images",
            ),
            ({"images_per_s": 60.0, "prefetch_bias_bound_pct": 3.0}, "crop", ""),
            ({"images_per_s": 99.0, "prefetch_bias_bound_pct": 50.0}, None, "crop: faster, but no more than by images"),
            ({"batch_memory": "shared"}, "transfer", ""),
            ({"batch_memory": "shared", "workers": 9}, "crop", "transfer: measured with 2 workers instead of 9"),
            ({"batch_memory": "shared", "images_per_s": 45.0}, "crop", "transfer: faster, so it takes another way"),
            ({"cache": "cold", "cache_state": "cold"}, "disk", ""),
            ({"cache": "cold", "cache_state": "unproven"}, "crop", "disk: the state of the page cache is unproven"),
            ({"cache": "cold", "cache_state": "guest-cold", "images_per_s": 31.0}, "crop", "disk: faster, so it takes"),
            ({"cache": "cold", "images_per_s": 90.0, "epoch1_images_per_s": 20.0}, None, "disk: faster, so it takes"),
        ],
    )
    def test_a_limit_that_equal_work_can_exceed_is_empty_with_a_reason(
        self, planted: None, changes: dict[str, Any], by: str | None, reason: str
    ) -> None:
        chosen = campaign({"a": {"format": "raw"}}, {"raw": {"writer": "planted-writer", "mode": "raw"}})
        speeds = {"crop": 50.0, "gather": 9.0, "output": 200.0, "decode": 10.0, "transfer": 40.0, "disk/raw": 15.0}
        row = fabricate.load(fabricate.CAST[0], 1)
        rows = {f"1/limit/{name}": replace(row, kind="limit", images_per_s=ips) for name, ips in speeds.items()}
        artifact = SimpleNamespace(samples=48)  # 96 images an epoch: 2 passes
        prepared: Any = SimpleNamespace(canonicals={"raw": Path("one")}, artifacts={"raw": artifact})
        trial = plan.Trial(1, 1, 1, chosen.contestants[0])
        own = {
            "images_per_s": 10.0,
            "workers": 2,
            "cache": "warm",
            "batch_memory": "private",
            "prefetch_bias_bound_pct": 0,
        }
        rows = {name: replace(each, workers=2) for name, each in rows.items()}
        columns = limit_columns(chosen, prepared, trial, replace(row, **(own | changes)), rows)
        assert columns.get("bound_by") == by
        assert columns["bound_reason"].startswith(reason) if reason else not columns["bound_reason"]
        if by:
            assert columns["bound_ips"] == {"crop": 50, "transfer": 40, "disk": 2 * 15}[by]
            assert columns["pct_of_bound"] == pytest.approx(
                100 * (own | changes)["images_per_s"] / columns["bound_ips"]
            )

    @pytest.mark.parametrize(("images_per_s", "by"), [(49.0, "decode+crop"), (69.0, "region decode+crop")])
    def test_a_loader_that_decodes_regions_may_exceed_whole_decoding(
        self, planted: None, images_per_s: float, by: str
    ) -> None:
        chosen = campaign({"a": {}})
        row = fabricate.load(fabricate.CAST[0], 1, batch_memory="private", images_per_s=images_per_s)
        speeds = {"decode": 60.0, "decode+crop": 50.0, "region decode+crop": 70.0, "output": 200.0}
        rows = {f"1/limit/{name}": replace(row, kind="limit", images_per_s=ips) for name, ips in speeds.items()}
        prepared: Any = SimpleNamespace(canonicals={"files": Path("one")}, artifacts={})
        columns = limit_columns(chosen, prepared, plan.Trial(1, 1, 1, chosen.contestants[0]), row, rows)
        assert (columns["bound_by"], columns["bound_ips"]) == (by, speeds[by])
        assert ("decode+crop: faster" in columns["bound_reason"]) == (images_per_s > speeds["decode+crop"])

    @pytest.mark.parametrize(
        ("contestant", "variant", "reason"),
        [
            ({"apart": "a GPU decodes"}, MAIN, "unranked: a GPU decodes"),
            ({}, Variant(consumer="train"), "the consumer, train, sets the pace"),
        ],
    )
    def test_a_contestant_without_a_limit_has_a_reason(
        self, planted: None, contestant: dict[str, Any], variant: Variant, reason: str
    ) -> None:
        chosen = campaign({"a": {}, "b": contestant})
        trial = plan.Trial(1, 1, 1, chosen.contestants[1], variant)
        columns = limit_columns(chosen, SimpleNamespace(), trial, fabricate.load(fabricate.CAST[0], 1), {})  # type: ignore[arg-type]
        assert columns == {"bound_reason": reason}
