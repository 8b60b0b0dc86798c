"""The GPU's figures come from what NVML tells at the window's edges; where it tells nothing, there is a reason.

Held against a simulated NVML, at the boundary of its Python binding and with the binding's own structures.
"""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pynvml
import pytest
import torch

from loaderbench.machine import gpu
from loaderbench.machine.gpu import Gpu, GpuLoad
from loaderbench.records.record import Record

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
"""Of a window of 40 s between the two."""


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Nvml]:
    """Put a simulated NVML in place of the driver's."""

    def plug_in(closing: dict[str, Any] | None = None, **opening: Any) -> Nvml:
        nvml = Nvml(CLOSING | (closing or {}), **opening)
        functions: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": nvml.by_uuid,
            "nvmlDeviceGetName": lambda _: "Simulated",
            "nvmlDeviceGetSamples": nvml.get_samples,
            "nvmlDeviceGetMemoryInfo": lambda _: pynvml.c_nvmlMemory_t(used=nvml.used_bytes),
            "nvmlDeviceGetTotalEnergyConsumption": lambda _: nvml.energy_mj,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda _: nvml.clock_events,
            "nvmlGpmQueryDeviceSupport": lambda _: pynvml.c_nvmlGpmSupport_t(isSupportedDevice=nvml.has_gpm),
            "nvmlGpmSampleAlloc": nvml.alloc,
            "nvmlGpmSampleGet": nvml.get,
            "nvmlGpmSampleFree": nvml.free,
            "nvmlGpmMetricsGet": nvml.metrics,
        }
        for name, function in functions.items():
            monkeypatch.setattr(pynvml, name, partial(nvml.call, name, function))
        return nvml

    return plug_in


def load_of(nvml: Nvml, window_s: float = 40) -> GpuLoad:
    with Gpu() as gpu:
        opened = gpu.open_window()
        nvml.close()
        return gpu.close_window(opened, window_s)


def test_each_figure_is_of_the_window(plug: Callable[..., Nvml]) -> None:
    assert load_of(plug()) == WHOLE


def test_the_samples_of_the_window_are_kept(plug: Callable[..., Nvml]) -> None:
    nvml = plug()
    with Gpu() as gpu:
        opened = gpu.open_window()
        nvml.close()
        gpu.close_window(opened, 40)
    assert gpu.utilisation_pct == [(200, 10), (300, 30), (400, 80)]


def test_the_figures_are_columns_of_the_record() -> None:
    record = Record(trial="1/a", kind="load", started_at="", title="", adapter="", format="", status="ok")
    assert asdict(replace(record, **asdict(WHOLE))).items() >= asdict(WHOLE).items()
    assert asdict(record).items() >= asdict(GpuLoad()).items()


@pytest.mark.parametrize("edge", ["opening", "closing"])
@pytest.mark.parametrize(
    ("refused", "columns"),
    [
        (UTIL, ["gpu_util_pct"]),
        (POWER, ["gpu_power_w"]),
        (CLOCK, ["gpu_sm_clock_mhz"]),
        ("nvmlDeviceGetSamples", ["gpu_util_pct", "gpu_power_w", "gpu_sm_clock_mhz"]),
        ("nvmlDeviceGetMemoryInfo", ["gpu_memory_mib"]),
        ("nvmlDeviceGetTotalEnergyConsumption", ["gpu_energy_j"]),
        ("nvmlDeviceGetCurrentClocksEventReasons", ["gpu_throttle"]),
        ("nvmlGpmQueryDeviceSupport", ["gpu_sm_active_pct", "gpu_dram_pct"]),
        ("nvmlGpmSampleAlloc", ["gpu_sm_active_pct", "gpu_dram_pct"]),
        ("nvmlGpmSampleGet", ["gpu_sm_active_pct", "gpu_dram_pct"]),
    ],
)
def test_figures_that_nvml_lacks_at_either_edge_are_empty_with_a_reason(
    plug: Callable[..., Nvml], refused: str | int, columns: list[str], edge: str
) -> None:
    nvml = plug(refused={refused}, closing={"refused": set()}) if edge == "opening" else plug({"refused": {refused}})
    empty = {column: "" if column == "gpu_throttle" else None for column in columns}
    reason = f"{', '.join(columns)}: NVML says Not Supported"
    assert load_of(nvml) == replace(WHOLE, **empty, gpu_reason=reason)


@pytest.mark.parametrize(
    ("refused", "columns"),
    [
        (SM, ["gpu_sm_active_pct"]),
        (DRAM, ["gpu_dram_pct"]),
        ("nvmlGpmMetricsGet", ["gpu_sm_active_pct", "gpu_dram_pct"]),
    ],
)
def test_one_gpm_metric_alone_may_be_missing(plug: Callable[..., Nvml], refused: str, columns: list[str]) -> None:
    reason = f"{', '.join(columns)}: NVML says Not Supported"
    assert load_of(plug({"refused": {refused}})) == replace(WHOLE, **dict.fromkeys(columns), gpu_reason=reason)


def test_several_reasons_are_joined(plug: Callable[..., Nvml]) -> None:
    missing = dict.fromkeys(["gpu_power_w", "gpu_sm_active_pct", "gpu_dram_pct"])
    no_gpm = "gpu_sm_active_pct, gpu_dram_pct: this GPU has no GPM, which came with Hopper"
    reason = f"gpu_power_w: NVML says Not Supported; {no_gpm}"
    assert load_of(plug(refused={POWER}, has_gpm=False)) == replace(WHOLE, **missing, gpu_reason=reason)


def test_a_gpu_without_gpm_is_not_asked_for_gpm_samples(plug: Callable[..., Nvml]) -> None:
    nvml = plug(has_gpm=False)
    load_of(nvml)
    assert not {name for name in nvml.called if name.startswith("nvmlGpm")} - {"nvmlGpmQueryDeviceSupport"}


def test_gpus_are_counted_by_nvml_and_without_it_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_nvml() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", no_nvml)
    assert gpu.count() == 0
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 8)
    assert gpu.count() == 8


def test_nvml_is_released_even_if_the_window_never_closes(plug: Callable[..., Nvml]) -> None:
    nvml = plug()
    with Gpu() as gpu:
        assert (gpu.name, gpu.reason) == ("Simulated", "")
        gpu.open_window()
        assert nvml.taken
    assert not nvml.taken
    assert nvml.called[-1] == "nvmlShutdown"


@pytest.mark.parametrize(("window_s", "energy_j"), [(30.0, 8500), (29.9, None)])
def test_a_short_window_has_no_energy(plug: Callable[..., Nvml], window_s: float, energy_j: float | None) -> None:
    reason = "" if energy_j else "gpu_energy_j: the energy counter is too coarse for windows below 30 s"
    assert load_of(plug(), window_s) == replace(WHOLE, gpu_energy_j=energy_j, gpu_reason=reason)


def test_memory_is_that_of_the_fuller_edge(plug: Callable[..., Nvml]) -> None:
    assert load_of(plug({"used_bytes": 5 << 30})).gpu_memory_mib == 5120


@pytest.mark.parametrize(
    ("value_type", "value"), list(enumerate([0.5, 2**31 + 1, 2**63 + 1, 2**63 + 1, -(2**40), -7, 40]))
)
def test_a_sample_is_read_by_its_type(plug: Callable[..., Nvml], value_type: int, value: float) -> None:
    samples = {kind: [(500, value)] for kind in (UTIL, POWER, CLOCK)}
    assert load_of(plug({"samples": samples, "value_type": value_type})).gpu_sm_clock_mhz == float(value)


def test_samples_of_an_unknown_type_are_no_figure(plug: Callable[..., Nvml]) -> None:
    missing = dict.fromkeys(["gpu_util_pct", "gpu_power_w", "gpu_sm_clock_mhz"])
    reason = f"{', '.join(missing)}: NVML's samples are of the unknown type 99"
    assert load_of(plug({"value_type": 99})) == replace(WHOLE, **missing, gpu_reason=reason)


def test_a_window_without_a_sample_has_no_mean_and_says_so(plug: Callable[..., Nvml]) -> None:
    old = {UTIL: [(100, 90)], POWER: [], CLOCK: CLOSING["samples"][CLOCK]}
    reason = "gpu_util_pct, gpu_power_w: NVML took no sample in the window"
    assert load_of(plug({"samples": old})) == replace(WHOLE, gpu_util_pct=None, gpu_power_w=None, gpu_reason=reason)


def test_all_samples_count_if_there_were_none_before_the_window(plug: Callable[..., Nvml]) -> None:
    none = {UTIL: [], POWER: [], CLOCK: []}
    assert load_of(plug(samples=none)) == replace(WHOLE, gpu_util_pct=52.5, gpu_power_w=400)


@pytest.mark.parametrize(
    ("events", "named"),
    [
        (0, ""),
        (pynvml.nvmlClocksEventReasonGpuIdle, ""),
        (pynvml.nvmlClocksEventReasonApplicationsClocksSetting, ""),
        (pynvml.nvmlClocksEventReasonSwPowerCap, "software power cap"),
        (pynvml.nvmlClocksEventReasonHwSlowdown, "hardware slowdown"),
        (pynvml.nvmlClocksEventReasonSyncBoost, ""),
        (pynvml.nvmlClocksEventReasonSwThermalSlowdown, "software thermal slowdown"),
        (pynvml.nvmlClocksEventReasonHwThermalSlowdown, "hardware thermal slowdown"),
        (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, "hardware power brake"),
        (pynvml.nvmlClocksEventReasonDisplayClockSetting, ""),
        (0x200 | 0x400 | 0x100000, "board limit; reliability; reason 0x100000"),
    ],
)
def test_throttling_is_named_and_idling_or_a_chosen_clock_is_none(
    plug: Callable[..., Nvml], events: int, named: str
) -> None:
    assert load_of(plug({"clock_events": events}, clock_events=0)) == replace(WHOLE, gpu_throttle=named)
    assert load_of(plug({"clock_events": 0}, clock_events=events)) == replace(WHOLE, gpu_throttle=named)


def test_without_a_driver_there_is_a_reason_and_no_zero(
    plug: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = plug()

    def refuse() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    with Gpu() as gpu:
        assert gpu.name is None
        load = gpu.close_window(gpu.open_window(), 40)
    assert load == GpuLoad(gpu_reason="no NVIDIA GPU (NVML: NVML Shared Library Not Found)")
    assert nvml.called == []


@pytest.mark.parametrize(("known", "read"), [(("GPU-b",), True), (("GPU-a",), False)])
def test_the_gpu_that_torch_uses_is_read(
    plug: Callable[..., Nvml],
    monkeypatch: pytest.MonkeyPatch,
    known: tuple[str, ...],
    read: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="ab"[device]))
    plug(uuids=known)
    asked: list[object] = []
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda device: asked.append(device) or pynvml.c_nvmlMemory_t(used=1)
    )
    with Gpu() as gpu:
        load = gpu.close_window(gpu.open_window(), 40)
    assert asked == (["GPU-b"] * 2 if read else [])
    assert read or load.gpu_reason.startswith("NVML does not know the GPU that torch uses")
