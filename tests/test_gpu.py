"""GPU figures come from NVML's own samples; without NVML there is a reason in their place.

Held against a simulated NVML, at the boundary of its Python binding.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pynvml
import pytest

from bench.monitors.gpu import Gpu

if TYPE_CHECKING:
    from collections.abc import Callable


class Nvml:
    """One GPU whose buffer holds (time stamp in µs, utilisation in %) samples."""

    def __init__(self, *samples: tuple[int, int]) -> None:
        self.samples = samples
        self.open = False

    def init(self) -> None:
        self.open = True

    def shutdown(self) -> None:
        self.open = False

    def get_samples(self, _handle: object, kind: int, since_us: int) -> tuple[int, list[Any]]:
        assert kind == pynvml.NVML_GPU_UTILIZATION_SAMPLES
        newer = [(stamp, value) for stamp, value in self.samples if stamp > since_us]
        if not newer:
            raise pynvml.NVMLError_NotFound
        value = SimpleNamespace
        return 1, [value(timeStamp=stamp, sampleValue=value(uiVal=pct)) for stamp, pct in newer]


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[[Nvml], None]:
    """Put a simulated NVML in place of the driver's."""

    def plug_in(nvml: Nvml) -> None:
        monkeypatch.setattr(pynvml, "nvmlInit", nvml.init)
        monkeypatch.setattr(pynvml, "nvmlShutdown", nvml.shutdown)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda _: "Simulated")
        monkeypatch.setattr(pynvml, "nvmlDeviceGetSamples", nvml.get_samples)

    return plug_in


def test_utilisation_is_the_mean_of_the_windows_samples(plug: Callable[[Nvml], None]) -> None:
    nvml = Nvml((100, 90), (200, 10), (300, 30), (400, 80))
    plug(nvml)
    with Gpu() as gpu:
        assert gpu.name == "Simulated"
        assert gpu.now_us() == 400
        utilisation = gpu.utilisation_since(100)
    assert utilisation.pct == 40
    assert utilisation.reason == ""
    assert not nvml.open


def test_a_window_without_a_sample_has_no_utilisation_and_says_so(plug: Callable[[Nvml], None]) -> None:
    plug(Nvml((100, 90)))
    with Gpu() as gpu:
        utilisation = gpu.utilisation_since(100)
    assert utilisation.pct is None
    assert utilisation.reason == "NVML took no utilisation sample in the window"


def test_a_gpu_that_gives_no_samples_says_so(plug: Callable[[Nvml], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plug(Nvml())

    def refuse(*_: object) -> None:
        raise pynvml.NVMLError_NotSupported

    with Gpu() as gpu:
        monkeypatch.setattr(pynvml, "nvmlDeviceGetSamples", refuse)
        utilisation = gpu.utilisation_since(0)
    assert utilisation.pct is None
    assert "Not Supported" in utilisation.reason


def test_without_a_driver_there_is_a_reason_and_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    with Gpu() as gpu:
        assert gpu.name is None
        assert gpu.now_us() == 0
        utilisation = gpu.utilisation_since(0)
    assert utilisation.pct is None
    assert utilisation.reason == "no NVIDIA GPU (NVML: NVML Shared Library Not Found)"
