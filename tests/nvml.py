"""A simulated NVML with one GPU, behind the functions and structures of its Python binding."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable

UTIL, POWER = pynvml.NVML_GPU_UTILIZATION_SAMPLES, pynvml.NVML_TOTAL_POWER_SAMPLES
CLOCK = pynvml.NVML_PROCESSOR_CLK_SAMPLES
SM, DRAM = pynvml.NVML_GPM_METRIC_SM_UTIL, pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL
FIELDS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The union's fields, in the order of NVML's value types."""
ALL_BITS = 2**64 - 1


@dataclass
class Nvml:
    """One GPU as it is when the window opens. `closing`: what is different when it closes."""

    closing: dict[str, Any] = field(default_factory=dict)
    samples: dict[int, list[tuple[int, float]]] = field(
        default_factory=lambda: {UTIL: [(90, 70), (100, 90)], POWER: [(120, 700_000)], CLOCK: [(100, 300)]}
    )
    """Time stamp in µs and value."""
    value_type: int = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
    used_bytes: int = 3 << 30
    energy_mj: int = 1_000_000
    clock_events: int = pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonGpuIdle
    gpm: dict[int, float] = field(default_factory=lambda: {SM: 1000.0, DRAM: 500.0})
    """Counters; a metric is the difference between two samples."""
    taken: dict[int, dict[int, float]] = field(default_factory=dict)
    """The counters in each GPM sample that was not freed, by its address."""
    has_gpm: bool = True
    refused: set[str | int] = field(default_factory=set)
    """Functions, kinds of samples and GPM metrics that are not supported."""
    called: list[str] = field(default_factory=list)
    uuids: tuple[str, ...] = ()

    def close(self) -> None:
        for name, value in self.closing.items():
            setattr(self, name, value)

    def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self.called.append(name)
        if name in self.refused:
            raise pynvml.NVMLError_NotSupported
        return function(*arguments)

    def by_uuid(self, uuid: str) -> str:
        if uuid not in self.uuids:
            raise pynvml.NVMLError_NotFound
        return uuid

    def get_samples(self, _device: object, kind: int, since_us: int) -> tuple[int, list[Any]]:
        if kind in self.refused:
            raise pynvml.NVMLError_NotSupported
        newer = [(stamp, value) for stamp, value in self.samples[kind] if stamp > since_us]
        if not newer:
            raise pynvml.NVMLError_NotFound
        return self.value_type, [self.sample(stamp, value) for stamp, value in newer]

    def sample(self, stamp_us: int, value: float) -> Any:
        sample = pynvml.c_nvmlSample_t(timeStamp=stamp_us)
        sample.sampleValue.ullVal = ALL_BITS  # what is read through a wider field than it was written is wrong
        if self.value_type < len(FIELDS):
            setattr(sample.sampleValue, FIELDS[self.value_type], value)
        return sample

    def alloc(self) -> Any:
        sample = ctypes.pointer(pynvml.struct_c_nvmlGpmSample_t())
        self.taken[ctypes.addressof(sample.contents)] = {}
        return sample

    def get(self, _device: object, sample: Any) -> Any:
        self.taken[ctypes.addressof(sample.contents)] |= self.gpm
        return sample

    def free(self, sample: Any) -> None:
        del self.taken[ctypes.addressof(sample.contents)]

    def metrics(self, request: Any) -> Any:
        assert request.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        first, second = (self.taken[ctypes.addressof(s.contents)] for s in (request.sample1, request.sample2))
        for metric in request.metrics[: request.numMetrics]:
            if metric.metricId in self.refused:
                metric.nvmlReturn, metric.value = pynvml.NVML_ERROR_NOT_SUPPORTED, 0
            else:
                metric.value = second[metric.metricId] - first[metric.metricId]
        return request


CLOSING = {
    "samples": {
        UTIL: [(100, 90), (200, 10), (300, 30), (400, 80)],
        POWER: [(120, 700_000), (220, 200_000), (320, 300_000)],
        CLOCK: [(180, 1980), (380, 1770)],  # the buffer has lost what was before the window
    },
    "used_bytes": 2 << 30,
    "energy_mj": 9_500_000,
    "clock_events": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "gpm": {SM: 1037.5, DRAM: 512.5},
}
