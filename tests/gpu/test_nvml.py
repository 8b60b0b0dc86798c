"""Every column of NVML's is filled, or the row says why it is not."""

from __future__ import annotations

import pytest

from tests.gpu.agreement import unexplained
from tests.gpu.conftest import Task

pytestmark = pytest.mark.gpu


def test_each_column_of_nvml_is_filled_or_explained(task: Task) -> None:
    load = task("nvml", {"seconds": 3.0})["load"]
    assert unexplained(load) == []
    assert load["gpu_util_pct"] is None or load["gpu_util_pct"] > 50
    assert load["gpu_power_w"] is None or load["gpu_power_w"] > 0
    assert load["gpu_memory_mib"] is None or load["gpu_memory_mib"] >= 64  # the matrix that is multiplied
