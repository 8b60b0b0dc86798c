"""GPU figures are those of the window, read by a simulated NVML at its edges; a missing figure has a reason."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pynvml
import pytest
import torch

from loaderbench.machine import gpu
from loaderbench.machine.gpu import Gpu, GpuLoad
from loaderbench.records.record import Record
from tests.nvml import CLOCK, CLOSING, DRAM, POWER, SM, UTIL, Nvml

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Return a function that replaces the driver's NVML by a simulated one."""

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


def test_figures_cover_the_window_only(plug: Callable[..., Nvml]) -> None:
    assert load_of(plug()) == WHOLE


def test_utilisation_samples_of_the_window_are_kept(plug: Callable[..., Nvml]) -> None:
    nvml = plug()
    with Gpu() as gpu:
        opened = gpu.open_window()
        nvml.close()
        gpu.close_window(opened, 40)
    assert gpu.utilisation_pct == [(200, 10), (300, 30), (400, 80)]


def test_gpu_figures_are_columns_of_the_record() -> None:
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
def test_figures_missing_at_either_edge_are_empty_with_a_reason(
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
def test_a_missing_gpm_metric_leaves_the_other_figures(
    plug: Callable[..., Nvml], refused: str, columns: list[str]
) -> None:
    reason = f"{', '.join(columns)}: NVML says Not Supported"
    assert load_of(plug({"refused": {refused}})) == replace(WHOLE, **dict.fromkeys(columns), gpu_reason=reason)


def test_reasons_of_missing_figures_are_joined(plug: Callable[..., Nvml]) -> None:
    missing = dict.fromkeys(["gpu_power_w", "gpu_sm_active_pct", "gpu_dram_pct"])
    no_gpm = "gpu_sm_active_pct, gpu_dram_pct: this GPU has no GPM, which came with Hopper"
    reason = f"gpu_power_w: NVML says Not Supported; {no_gpm}"
    assert load_of(plug(refused={POWER}, has_gpm=False)) == replace(WHOLE, **missing, gpu_reason=reason)


def test_a_gpu_without_gpm_is_not_asked_for_gpm_samples(plug: Callable[..., Nvml]) -> None:
    nvml = plug(has_gpm=False)
    load_of(nvml)
    assert not {name for name in nvml.called if name.startswith("nvmlGpm")} - {"nvmlGpmQueryDeviceSupport"}


def test_gpu_count_comes_from_nvml_and_is_zero_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_nvml() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", no_nvml)
    assert gpu.count() == 0
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 8)
    assert gpu.count() == 8


def test_all_gpus_and_their_driver_are_described(plug: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch) -> None:
    plug()
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 3)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda index: "H100" if index else "T4")
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")
    assert gpu.describe() == {"gpu": "T4, 2 x H100", "gpu_reason": "", "gpu_driver": "580.1"}


def test_nvml_is_released_if_the_window_never_closes(plug: Callable[..., Nvml]) -> None:
    nvml = plug()
    with Gpu() as gpu:
        assert gpu.reason == ""
        gpu.open_window()
        assert nvml.taken
    assert not nvml.taken
    assert nvml.called[-1] == "nvmlShutdown"


@pytest.mark.parametrize(("window_s", "energy_j"), [(30.0, 8500), (29.9, None)])
def test_a_short_window_has_no_energy(plug: Callable[..., Nvml], window_s: float, energy_j: float | None) -> None:
    reason = "" if energy_j else "gpu_energy_j: the energy counter is too coarse for windows below 30 s"
    assert load_of(plug(), window_s) == replace(WHOLE, gpu_energy_j=energy_j, gpu_reason=reason)


def test_gpu_memory_is_the_larger_of_both_edges(plug: Callable[..., Nvml]) -> None:
    assert load_of(plug({"used_bytes": 5 << 30})).gpu_memory_mib == 5120


@pytest.mark.parametrize(
    ("value_type", "value"), list(enumerate([0.5, 2**31 + 1, 2**63 + 1, 2**63 + 1, -(2**40), -7, 40]))
)
def test_samples_are_read_by_their_value_type(plug: Callable[..., Nvml], value_type: int, value: float) -> None:
    samples = {kind: [(500, value)] for kind in (UTIL, POWER, CLOCK)}
    assert load_of(plug({"samples": samples, "value_type": value_type})).gpu_sm_clock_mhz == float(value)


def test_samples_of_an_unknown_type_give_a_reason(plug: Callable[..., Nvml]) -> None:
    missing = dict.fromkeys(["gpu_util_pct", "gpu_power_w", "gpu_sm_clock_mhz"])
    reason = f"{', '.join(missing)}: NVML's samples are of the unknown type 99"
    assert load_of(plug({"value_type": 99})) == replace(WHOLE, **missing, gpu_reason=reason)


def test_a_window_without_samples_gives_a_reason_and_no_mean(plug: Callable[..., Nvml]) -> None:
    old = {UTIL: [(100, 90)], POWER: [], CLOCK: CLOSING["samples"][CLOCK]}
    reason = "gpu_util_pct, gpu_power_w: NVML took no sample in the window"
    assert load_of(plug({"samples": old})) == replace(WHOLE, gpu_util_pct=None, gpu_power_w=None, gpu_reason=reason)


def test_all_samples_count_if_none_precedes_the_window(plug: Callable[..., Nvml]) -> None:
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
def test_only_throttling_clock_events_are_named(plug: Callable[..., Nvml], events: int, named: str) -> None:
    assert load_of(plug({"clock_events": events}, clock_events=0)) == replace(WHOLE, gpu_throttle=named)
    assert load_of(plug({"clock_events": 0}, clock_events=events)) == replace(WHOLE, gpu_throttle=named)


def test_a_missing_driver_gives_a_reason_and_no_zero(
    plug: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = plug()

    def refuse() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    with Gpu() as gpu:
        load = gpu.close_window(gpu.open_window(), 40)
    assert load == GpuLoad(gpu_reason="no NVIDIA GPU (NVML: NVML Shared Library Not Found)")
    assert nvml.called == []


@pytest.mark.parametrize(("known", "read"), [(("GPU-b",), True), (("GPU-a",), False)])
def test_nvml_reads_the_gpu_that_torch_uses(
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
