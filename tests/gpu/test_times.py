"""Data stall, copies and the limit of copies agree with torch's profiler and with a plain loop within 5 %."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.agreement import agree, copy_p50_ms, starved_pct, step_spans
from tests.gpu.conftest import Task
from tests.gpu.tasks import OF_PACE

pytestmark = pytest.mark.gpu
BATCH_BYTES = OF_PACE.batch_size * 3 * OF_PACE.image_size**2


@pytest.mark.parametrize("memory", ["pinned", "pageable", None])
def test_data_stall_and_copies_agree_with_torchs_profiler(memory: str | None, task: Task, tmp_path: Path) -> None:
    columns = task("profile", {"cpu_memory": memory, "folder": tmp_path})
    trace: dict[str, Any] = json.loads((tmp_path / "trace.json").read_text())
    steps, (opened, closed) = columns["steps"], columns["window"]
    stall_pct = starved_pct(step_spans(trace, steps), opened, closed)
    assert agree(columns["gpu_starved_pct"], stall_pct), (columns["gpu_starved_pct"], stall_pct)
    assert columns["gpu_starved_pct"] == pytest.approx(50, abs=5)  # the loader has half the speed of the training
    if memory:
        copy_ms = copy_p50_ms(trace, BATCH_BYTES, steps, opened, closed)
        assert agree(columns["copy_p50_ms"], copy_ms), (columns["copy_p50_ms"], copy_ms)
    else:
        assert "copy_p50_ms" not in columns


@pytest.mark.parametrize("step", ["host-to-device", "pageable-to-device"])
def test_the_limit_of_copies_agrees_with_a_plain_loop(step: str, task: Task) -> None:
    measured = task("bandwidth", {"step": step})
    assert agree(measured["limit"], measured["plain"]), measured
