"""What the tests on a GPU compare is compared correctly: with made-up numbers, and rehearsed on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loaderbench.formats import prepare
from loaderbench.images import CanonicalImages
from loaderbench.machine.progress import Display
from loaderbench.trial.consumers import train
from tests.campaigns import campaign
from tests.gpu import agreement, tasks
from tests.gpu.agreement import MARKER, by_label, source, wrong_pixels
from tests.gpu.conftest import grow
from tests.gpu.ways import FORMATS, SIDE, WAYS

STORED = {label: np.full((4, 4, 3), label, np.uint8) for label in range(3)}


def event(cat: str, name: str, begin_us: float, duration_us: float, **arguments: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": begin_us, "dur": duration_us, "args": arguments}


def trace(steps: list[tuple[float, float]], copies: list[tuple[float, float]] = ()) -> dict[str, Any]:  # type: ignore[assignment]
    """Steps from a marker to a marker of 1 us each, with other kernels between; copies by begin and duration."""
    events = [event("cuda_runtime", "cudaLaunchKernel", 0, 5), event("gpu_memcpy", "Memcpy HtoD", 1, 1, bytes=8)]
    for begin, end in steps:
        events.append(event("kernel", "void at::(anonymous)::" + MARKER + "(long)", begin, 1))
        events.append(event("kernel", "cutlass_gemm", begin + 2, 3))
        events.append(event("kernel", "void at::(anonymous)::" + MARKER + "(long)", end - 1, 1))
    events += [event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", at, took, bytes=600) for at, took in copies]
    return {"traceEvents": events[::-1]}  # in any order


def test_steps_of_a_profile_are_the_last_ones_between_markers() -> None:
    found = agreement.step_spans(trace([(0.0, 20.0), (100.0, 130.0), (200.0, 260.0)]), 2)
    assert found == [(100.0, 130.0), (200.0, 260.0)]
    with pytest.raises(AssertionError, match="6 markers of 4 steps"):
        agreement.step_spans(trace([(0.0, 20.0), (100.0, 130.0), (200.0, 260.0)]), 4)


def test_data_stall_of_a_profile_is_the_time_between_steps_in_the_window() -> None:
    spans = [(0.0, 50.0), (100.0, 140.0), (200.0, 240.0), (250.0, 340.0), (900.0, 990.0)]
    assert agreement.starved_pct(spans, 1, 3) == pytest.approx(100 * (60 + 10) / 200)


def test_copies_of_a_profile_are_those_of_whole_batches_in_the_window() -> None:
    copies = [(10.0 * number, took) for number, took in enumerate((1000.0, 7.0, 3.0, 4.0, 5.0, 9.0))]
    kept = trace([], copies)
    assert agreement.copy_p50_ms(kept, 600, 5, 0, 3) == 4.0 / 1000
    with pytest.raises(AssertionError, match="6 copies of 7 batches"):
        agreement.copy_p50_ms(kept, 600, 7, 0, 3)


@pytest.mark.parametrize(("one", "other", "held"), [(95.0, 100.0, True), (100.0, 94.9, False), (0.0, 0.0, True)])
def test_two_measurements_agree_within_5_percent(one: float, other: float, held: bool) -> None:  # noqa: FBT001
    assert agreement.agree(one, other) is held


def test_an_empty_column_of_nvml_needs_a_reason() -> None:
    load = {"gpu_util_pct": None, "gpu_power_w": None, "gpu_memory_mib": 3.0, "gpu_throttle": ""}
    assert agreement.unexplained(load | {"gpu_reason": "gpu_util_pct: NVML says no"}) == ["gpu_power_w"]


def test_equal_pixels_of_all_images_are_not_wrong() -> None:
    assert wrong_pixels([*STORED.items(), *STORED.items()], STORED, exact=True) == []


def test_one_changed_pixel_an_exchanged_and_a_missing_image_are_wrong() -> None:
    changed = STORED[0].copy()
    changed[3, 3, 2] += 1
    consumed = [(0, changed), (1, STORED[0]), (0, STORED[0])]
    said = ["image 0, of label 0", "image 1, of label 1", "never label 2"]
    assert wrong_pixels(consumed, STORED, exact=True) == said


def test_another_decoder_may_differ_a_little() -> None:
    near, far = (STORED[1] + np.uint8(difference) for difference in (1, 9))
    assert wrong_pixels([*STORED.items(), (1, near)], STORED, exact=False) == []
    assert wrong_pixels([*STORED.items(), (1, far)], STORED, exact=False) == ["image 3, of label 1"]


def tiny(*_: object, num_classes: int, **__: object) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE**2, num_classes))


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_the_pixels_that_training_consumes_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.models, "get_model", tiny)
    monkeypatch.setattr(tasks, "STEPS", 8)
    grow(tmp_path / "tree")
    chosen = campaign({"a": {"loader": "imagefolder"}}, {"files": FORMATS["files"]})
    prepared = prepare(chosen, tmp_path / "tree", tmp_path / "cache", Display(), strict=True)
    way = replace(next(way for way in WAYS if way.loader == "imagefolder"), device="cpu")
    stored = source(CanonicalImages(prepared.canonicals["files"]), "files")
    consumed = by_label(*tasks.consumed(way, prepared.artifacts["files"]))
    delivered = dict(by_label(*tasks.delivered(way, prepared.artifacts["files"])))
    assert len(consumed) > len(stored) == len(delivered) == 48
    assert wrong_pixels(consumed, stored, exact=False) == []
    assert wrong_pixels(consumed, delivered, exact=True) == []
