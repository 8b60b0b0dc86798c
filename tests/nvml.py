"""A simulated NVML with one GPU, behind the functions and structures of its Python binding."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pynvml

from loaderbench.machine.gpu import Gpu, GpuLoad

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

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
    util_now_pct: int = 50
    power_now_mw: int = 600_000
    sm_clock_now_mhz: int = 1200
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
    """Of GPUs and MIG instances."""
    divided: bool = False
    """Whether the GPU is divided into MIG instances."""
    instances: list[str] = field(default_factory=list)
    """The MIG instances that GPM samples were taken of."""

    def close(self) -> None:
        for name, value in self.closing.items():
            setattr(self, name, value)

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions of the binding, by name."""
        return {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": self.by_uuid,
            "nvmlDeviceGetName": lambda _: "Simulated",
            "nvmlDeviceGetSamples": self.get_samples,
            "nvmlDeviceGetMigMode": self.mig_mode,
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda _: 0,
            "nvmlDeviceGetGpuInstanceId": lambda instance: f"number of {instance}",
            "nvmlDeviceGetMemoryInfo": self.memory,
            "nvmlDeviceGetUtilizationRates": lambda _: pynvml.c_nvmlUtilization_t(gpu=self.util_now_pct),
            "nvmlDeviceGetPowerUsage": lambda _: self.power_now_mw,
            "nvmlDeviceGetClockInfo": lambda _, clock: self.sm_clock_now_mhz if clock == pynvml.NVML_CLOCK_SM else 0,
            "nvmlDeviceGetTotalEnergyConsumption": lambda _: self.energy_mj,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda _: self.clock_events,
            "nvmlGpmQueryDeviceSupport": lambda _: pynvml.c_nvmlGpmSupport_t(isSupportedDevice=self.has_gpm),
            "nvmlGpmSampleAlloc": self.alloc,
            "nvmlGpmSampleGet": self.get,
            "nvmlGpmMigSampleGet": self.get_of_instance,
            "nvmlGpmSampleFree": self.free,
            "nvmlGpmMetricsGet": self.metrics,
        }

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

    def mig_mode(self, _device: object) -> list[int]:
        if not self.divided:
            raise pynvml.NVMLError_NotSupported
        return [pynvml.NVML_DEVICE_MIG_ENABLE] * 2

    def memory(self, device: object) -> Any:
        instance = str(device).startswith("MIG-")
        return pynvml.c_nvmlMemory_t(used=1 << 30 if instance else self.used_bytes)

    def alloc(self) -> Any:
        sample = ctypes.pointer(pynvml.struct_c_nvmlGpmSample_t())
        self.taken[ctypes.addressof(sample.contents)] = {}
        return sample

    def get(self, _device: object, sample: Any) -> Any:
        self.taken[ctypes.addressof(sample.contents)] |= self.gpm
        return sample

    def get_of_instance(self, device: object, instance: str, sample: Any) -> Any:
        self.instances.append(instance)
        return self.get(device, sample)

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
        CLOCK: [(100, 300), (180, 1980), (380, 1770)],
    },
    "used_bytes": 2 << 30,
    "energy_mj": 9_500_000,
    "util_now_pct": 20,
    "power_now_mw": 300_000,
    "sm_clock_now_mhz": 1800,
    "clock_events": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "gpm": {SM: 1037.5, DRAM: 512.5},
}
WHOLE = GpuLoad(
    gpu_util_pct=40,
    gpu_memory_mib=3072,
    gpu_power_w=250,
    gpu_energy_j=8500,
    gpu_sm_clock_mhz=1875,
    gpu_throttle="software power cap; hardware thermal slowdown",
    gpu_sm_active_pct=37.5,
    gpu_dram_pct=12.5,
)
"""The figures of a window of 40 s between the two."""


def plug_in(monkeypatch: pytest.MonkeyPatch, closing: dict[str, Any] | None = None, **opening: Any) -> Nvml:
    """Replace the driver's NVML by a simulated one."""
    nvml = Nvml(CLOSING | (closing or {}), **opening)
    for name, function in nvml.functions().items():
        monkeypatch.setattr(pynvml, name, partial(nvml.call, name, function))
    return nvml


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find no driver."""

    def no_nvml() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", no_nvml)


def load_of(nvml: Nvml, window_s: float = 40) -> GpuLoad:
    with Gpu() as gpu:
        opened = gpu.open_window()
        nvml.close()
        return gpu.close_window(opened, window_s)
