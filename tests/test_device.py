"""Images are copied to the requested device while it computes, and the harness records how; CUDA is simulated."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign import plan
from loaderbench.machine.gpu import Gpu
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.records.timeline import Timeline
from loaderbench.report.report import write
from loaderbench.roofline import ceilings
from loaderbench.roofline.measure import LimitSpec
from loaderbench.run import runner
from loaderbench.trial import device
from loaderbench.trial.checks import InvalidWorkError
from loaderbench.trial.clock import CudaClock
from loaderbench.trial.consumers import drain, train
from loaderbench.trial.consumers.drain import Arrivals
from loaderbench.trial.device import Copies
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import Window
from tests.campaigns import Ready, campaign
from tests.cuda import Cuda, Images
from tests.nvml import unplug

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("forked")
ON_GPU = Work(batch_size=4, workers=1, image_size=8, dtype="uint8", passes=1, seed=0, device="cuda")
TRAIN = {"contestants": ["a"], "warmup_s": 0, "window_s": 0.1, "window_batches": 4}
NO_LIMITS: dict[str, Any] = {"reason": "", "limits": {}}
ARTIFACT = Artifact("f", "/nowhere", 8, 0, 1, 1, Encoding("jpeg"))


def trained(*, step_ms: float, batch_ms: float, copy_ms: float, warmup_ms: float = 0) -> dict[str, float]:
    """What the clocks say of training with a loader that hands over a batch every `batch_ms`, after a warm-up."""
    cuda = Cuda()
    copies, clock, times = Copies("cuda", cuda), CudaClock(cuda.Event), Timeline(opened=4, closed=24)
    made_ms = 0.0
    for number in range(25):
        made_ms += batch_ms + (warmup_ms if number == 1 else 0)
        cuda.host_ms = max(cuda.host_ms, made_ms)
        copies.bring(Images(cuda, copy_ms))
        clock.begin()
        cuda.compute(step_ms)
        clock.end()
    return {**copies.clock.overlap(times, clock), **copies.clock.columns(times), **clock.columns(times)}


@pytest.mark.parametrize(
    ("step_ms", "batch_ms", "copy_ms", "overlap_pct", "starved_pct"),
    [
        (40, 10, 8, 100, 0),  # the loader is ahead: all copies are hidden behind steps
        (10, 40, 8, 0, 75),  # the step is long over when the next batch comes
        (30, 40, 20, 50, 25),  # a batch comes 40 ms after the one before, whose step began at 20 and ends at 50
    ],
)
def test_device_columns_report_the_share_of_copies_hidden_by_steps(
    step_ms: float, batch_ms: float, copy_ms: float, overlap_pct: float, starved_pct: float
) -> None:
    columns = trained(step_ms=step_ms, batch_ms=batch_ms, copy_ms=copy_ms)
    assert columns["copy_p50_ms"] == copy_ms
    assert columns["copy_overlap_pct"] == pytest.approx(overlap_pct)
    assert columns["gpu_starved_pct"] == pytest.approx(starved_pct)
    assert columns["step_p50_ms"] == step_ms


def test_the_length_of_a_trial_costs_no_accuracy() -> None:
    """CUDA returns times as 32-bit floats of milliseconds: after an hour they have steps of a quarter."""
    hour_ms = 3_600_000
    columns = trained(step_ms=0.3, batch_ms=0.4, copy_ms=0.2, warmup_ms=hour_ms)
    assert columns["copy_p50_ms"] == pytest.approx(0.2, rel=0.01)
    assert columns["copy_overlap_pct"] == pytest.approx(50, rel=0.01)
    assert columns["gpu_starved_pct"] == pytest.approx(25, rel=0.01)


def test_a_step_waits_for_its_batch_and_the_cpu_does_not_wait() -> None:
    cuda = Cuda()
    brought = Copies("cuda", cuda).bring(Images(cuda, copy_ms=5))
    assert (cuda.main.free_ms, cuda.host_ms) == (5, 0)
    assert brought.device.type == "cuda"
    assert brought.used_on == [cuda.main]


def test_batches_on_the_device_are_not_copied_again() -> None:
    cuda = Cuda()
    copies, images = Copies("cuda", cuda), Images(cuda, 5, where="cuda")
    assert [copies.bring(images) for _ in range(2)] == [images, images]
    assert copies.memory == "device"
    assert copies.clock.columns(Timeline(opened=0, closed=1)) == {}
    assert copies.clock.overlap(Timeline(opened=0, closed=1), CudaClock(object)) == {}


def test_copies_are_counted_per_batch_for_mixed_loaders() -> None:
    cuda = Cuda()
    copies, clock = Copies("cuda", cuda), CudaClock(cuda.Event)
    for number in range(12):
        copies.bring(Images(cuda, 5, where="cpu" if number % 2 else "cuda"))
        clock.begin()
        cuda.compute(20)
        clock.end()
    times = Timeline(opened=4, closed=11)
    columns = {**copies.clock.columns(times), **copies.clock.overlap(times, clock)}
    assert columns == {"copy_p50_ms": 5, "copy_overlap_pct": pytest.approx(100)}


@pytest.mark.parametrize("memory", ["pinned", "device"])
def test_a_loaders_own_copy_is_complete_before_the_next_request(monkeypatch: pytest.MonkeyPatch, memory: str) -> None:
    waiting: list[int] = []
    monkeypatch.setattr(drain, "taker", lambda _, behind: waiting.append(behind) or list)

    class Once(SimpleNamespace):
        done = False

        def __iter__(self) -> Iterator[Any]:
            yield torch.zeros(1), torch.zeros(1)
            self.done = True

    drain.take_all(ON_GPU, Once(batch_memory=memory))  # type: ignore[arg-type]
    assert waiting == [int(memory == "pinned")]


@pytest.mark.parametrize(
    ("where", "gpu", "lasting"), [("cpu", True, True), ("cpu", False, False), ("cuda", True, False)]
)
def test_training_requests_lasting_batches_if_it_copies_them_to_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    gpu: bool,  # noqa: FBT001
    lasting: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    asked = replace(ON_GPU, device=where)
    assert train.requested(asked) == replace(asked, lasting=lasting)


@pytest.mark.parametrize(("behind", "waited_ms"), [(0, 5), (1, 0)])
def test_the_drain_waits_for_each_copy_or_the_one_before(behind: int, waited_ms: float) -> None:
    cuda = Cuda()
    copies, arrivals = Copies("cuda", cuda), Arrivals(cuda.Event, behind)
    for number in range(3):
        arrivals.wait(copies.bring(Images(cuda, 5)))
        assert cuda.host_ms == waited_ms + 5 * number


def batches(images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(images, torch.zeros(len(images), dtype=torch.int64))] * 2


@pytest.mark.parametrize(("asked", "found"), [("cpu", "meta"), ("meta", "cpu")])
def test_images_on_another_device_than_requested_are_invalid(asked: str, found: str) -> None:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8, device=found)
    meter = Meter(batches(images), ARTIFACT, replace(ON_GPU, device=asked), Window(0, 0, 1, 0), Gpu())
    with pytest.raises(InvalidWorkError, match=f"on {found} instead of .* on {asked}"):
        list(meter)


def test_labels_on_a_device_are_invalid() -> None:
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64, device="meta")
    meter = Meter([(images, labels)], ARTIFACT, replace(ON_GPU, device="cpu"), Window(0, 0, 1, 0), Gpu())
    with pytest.raises(InvalidWorkError, match=r"labels are int64 \(4,\), on meta instead of integer \(4,\), on cpu"):
        list(meter)


def test_the_meter_yields_the_copy_on_the_device_and_reports_the_batch_memory() -> None:
    class Doubling:
        memory = "pinned"

        def bring(self, images: torch.Tensor) -> torch.Tensor:
            return 2 * images

    ones = torch.ones(4, 3, 8, 8, dtype=torch.uint8)
    work = replace(ON_GPU, device="cpu")
    meter = Meter(batches(ones), ARTIFACT, work, Window(0, 0, 1, 0), Gpu(), copies=Doubling())  # type: ignore[arg-type]
    assert [int(images.max()) for images, _ in meter] == [2, 2]
    assert meter.batch_memory == "pinned"


@pytest.mark.parametrize(
    ("available", "count", "ranks", "said"),
    [(False, 0, 1, "torch finds no CUDA device"), (True, 1, 2, "2 ranks need as many CUDA devices, and torch finds 1")],
)
def test_a_missing_device_is_refused_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
    available: bool,  # noqa: FBT001
    count: int,
    ranks: int,
    said: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(NotImplementedError, match=said):
        device.copies(replace(ON_GPU, ranks=ranks))
    assert device.copies(replace(ON_GPU, device="cpu")) is None


def test_training_refuses_a_missing_gpu_before_it_starts() -> None:
    with pytest.raises(NotImplementedError, match="torch finds no CUDA device"):
        train.prepare(ARTIFACT, ON_GPU, model="resnet18", cached_s=60, loss_steps=8)


@pytest.mark.parametrize(
    ("own", "memory", "bound_ips"),
    [
        ({}, "pinned", 30.0),
        ({}, "device", 30.0),
        ({}, "private", 20.0),
        ({}, "shared", 20.0),
        ({"work": {"dtype": "float16"}}, "private", 100.0),
        ({"apart": "decoded elsewhere"}, "device", None),
    ],
)
def test_copying_to_the_gpu_is_a_limit_and_lower_for_pageable_memory(
    planted: None, own: dict[str, Any], memory: str, bound_ips: float | None
) -> None:
    asked = campaign({"a": {}, "b": own})
    asked = asked.model_copy(update={"work": asked.work.model_copy(update={"device": "cuda"})})
    limits = {"decode": 100.0, "host-to-device": 30.0, "pageable-to-device": 20.0, "transfer": 40.0}
    rows = {f"1/limit/{name}": SimpleNamespace(images_per_s=limit, workers=2) for name, limit in limits.items()}
    record = SimpleNamespace(
        cache="warm", batch_memory=memory, images_per_s=10.0, workers=2, prefetch_bias_bound_pct=None
    )
    prepared = SimpleNamespace(canonicals={"files": "one"})
    trial = plan.Trial(1, 1, 1, asked.contestants[1])
    columns = ceilings.limit_columns(asked, prepared, trial, record, rows)  # type: ignore[arg-type]
    assert columns.get("bound_ips") == bound_ips


@pytest.mark.parametrize(
    ("work", "memory", "bound_ips"),
    [
        ({"dtype": "float16"}, "device", 100.0),  # it may have copied uint8 there
        ({"dtype": "float16"}, "private", 20.0),
        ({"ranks": 2}, "private", 100.0),  # two may copy more than one
    ],
)
def test_copying_does_not_limit_ranks_or_loaders_that_convert_on_the_gpu(
    planted: None, work: dict[str, Any], memory: str, bound_ips: float
) -> None:
    asked = campaign({"a": {}})
    asked = asked.model_copy(update={"work": asked.work.model_copy(update={"device": "cuda", **work})})
    limits = {"decode": 100.0, "host-to-device": 30.0, "pageable-to-device": 20.0}
    rows = {f"1/limit/{name}": SimpleNamespace(images_per_s=limit, workers=2) for name, limit in limits.items()}
    record = SimpleNamespace(
        cache="warm", batch_memory=memory, images_per_s=10.0, workers=2, prefetch_bias_bound_pct=None
    )
    prepared = SimpleNamespace(canonicals={"files": "one"})
    trial = plan.Trial(1, 1, 1, asked.contestants[0])
    columns = ceilings.limit_columns(asked, prepared, trial, record, rows)  # type: ignore[arg-type]
    assert columns["bound_ips"] == bound_ips


def test_machine_limits_do_not_depend_on_the_ranks(
    planted: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = campaign({"a": {}}, stage_s=0.05)
    asked = asked.model_copy(update={"work": asked.work.model_copy(update={"ranks": 2})})
    specs: list[LimitSpec] = []
    answer = {"status": "ok"} | NO_LIMITS
    monkeypatch.setattr(ceilings.process, "run_child", lambda _, spec, *__: specs.append(spec) or answer)
    prepared = SimpleNamespace(canonicals={"files": "one"}, artifacts={"files": ARTIFACT}, data={"samples": 8})
    trial = plan.Trial(1, 1, 1, asked.contestants[0])
    assert list(ceilings.limit_rows(asked, prepared, trial, tmp_path, {}))  # type: ignore[arg-type]
    assert [spec.work.ranks for spec in specs] == [1]


def test_every_row_is_unavailable_without_a_gpu(
    planted: None, ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unplug(monkeypatch)
    asked = campaign({"a": {}}, consumers={"train": TRAIN}, blocks=1)
    asked = asked.model_copy(update={"work": asked.work.model_copy(update={"device": "cuda"})})
    folder = runner.run(asked, ready(asked), tmp_path, Display())
    rows = [row for row in trials_csv.read(folder / "trials.csv") if row.kind == "load"]
    assert {row.consumer for row in rows} == {"hungry", "train"}
    assert {(row.status, row.reason) for row in rows} == {("unavailable", "torch finds no CUDA device")}
    assert {row.delivers for row in rows} == {"uint8, on cuda"}
    report = write(folder, tmp_path / "report").read_text()
    assert "**Copies to the GPU**: none was measured in training, because there was no GPU." in report


def test_device_memory_names_the_kind_of_memory() -> None:
    images = torch.zeros(2)
    assert device.memory(images) == "private"
    assert device.memory(images.share_memory_()) == "shared"
    assert device.memory(images.to("meta")) == "device"
