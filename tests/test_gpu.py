"""GPU figures are those of the window, read by a simulated NVML at its edges; a missing figure has a reason."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pynvml
import pytest

from loaderbench.machine import gpu
from loaderbench.machine.gpu import Gpu, GpuLoad
from loaderbench.records.record import Record
from tests.nvml import CLOCK, CLOSING, DRAM, POWER, SM, UTIL, WHOLE, Nvml, load_of, plug_in, unplug

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Nvml]:
    return partial(plug_in, monkeypatch)


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
        ({UTIL, "nvmlDeviceGetUtilizationRates"}, ["gpu_util_pct"]),
        (
            {POWER, "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption"},
            ["gpu_power_w", "gpu_energy_j"],
        ),
        ({CLOCK, "nvmlDeviceGetClockInfo"}, ["gpu_sm_clock_mhz"]),
        ({"nvmlDeviceGetMemoryInfo"}, ["gpu_memory_mib"]),
        ({"nvmlDeviceGetTotalEnergyConsumption"}, ["gpu_energy_j"]),
        ({"nvmlDeviceGetCurrentClocksEventReasons"}, ["gpu_throttle"]),
        ({"nvmlGpmQueryDeviceSupport"}, ["gpu_sm_active_pct", "gpu_dram_pct"]),
        ({"nvmlGpmSampleAlloc"}, ["gpu_sm_active_pct", "gpu_dram_pct"]),
        ({"nvmlGpmSampleGet"}, ["gpu_sm_active_pct", "gpu_dram_pct"]),
    ],
)
def test_figures_missing_at_either_edge_are_empty_with_a_reason(
    plug: Callable[..., Nvml], refused: set[str | int], columns: list[str], edge: str
) -> None:
    nvml = plug(refused=refused, closing={"refused": set()}) if edge == "opening" else plug({"refused": refused})
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
    missing = dict.fromkeys(["gpu_memory_mib", "gpu_sm_active_pct", "gpu_dram_pct"])
    no_gpm = "gpu_sm_active_pct, gpu_dram_pct: this GPU has no GPM, which came with Hopper"
    reason = f"gpu_memory_mib: NVML says Not Supported; {no_gpm}"
    assert load_of(plug(refused={"nvmlDeviceGetMemoryInfo"}, has_gpm=False)) == replace(
        WHOLE, **missing, gpu_reason=reason
    )


def test_a_gpu_without_gpm_is_not_asked_for_gpm_samples(plug: Callable[..., Nvml]) -> None:
    nvml = plug(has_gpm=False)
    load_of(nvml)
    assert not {name for name in nvml.called if name.startswith("nvmlGpm")} - {"nvmlGpmQueryDeviceSupport"}


def test_gpu_count_comes_from_nvml_and_is_zero_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    unplug(monkeypatch)
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
    samples = {kind: [(100, 0), (500, value)] for kind in (UTIL, POWER, CLOCK)}
    assert load_of(plug({"samples": samples, "value_type": value_type})).gpu_sm_clock_mhz == float(value)


def test_samples_of_an_unknown_type_give_a_reason(plug: Callable[..., Nvml]) -> None:
    refused = {"nvmlDeviceGetClockInfo"}
    load = load_of(plug({"value_type": 99, "refused": refused}))
    assert load.gpu_sm_clock_mhz is None
    assert "gpu_sm_clock_mhz: NVML's samples are of the unknown type 99" in load.gpu_reason


NO_SAMPLES = "mean of two readings at the edges of the window, because NVML has no samples"
END_ONLY = "NVML's samples cover only the end of the window"
BY_ENERGY = "by the energy counter, because NVML's samples do not cover the window"
TOO_SHORT = "gpu_energy_j: the energy counter is too coarse for windows below 30 s"


@pytest.mark.parametrize(
    "lost", [{"refused": {"nvmlDeviceGetSamples"}}, {"samples": {UTIL: [(100, 90)], POWER: [], CLOCK: [(100, 300)]}}]
)
def test_readings_at_the_edges_stand_in_for_samples_that_nvml_does_not_have(
    plug: Callable[..., Nvml], lost: dict[str, Any]
) -> None:
    load = load_of(plug(lost), window_s=20)
    assert (load.gpu_util_pct, load.gpu_power_w, load.gpu_sm_clock_mhz) == (35, 450, 1500)
    assert load.gpu_reason == f"gpu_util_pct, gpu_power_w, gpu_sm_clock_mhz: {NO_SAMPLES}; {TOO_SHORT}"


def test_energy_gives_the_mean_power_if_nvml_has_no_samples(plug: Callable[..., Nvml]) -> None:
    load = load_of(plug(refused={POWER}))
    assert load == replace(WHOLE, gpu_power_w=8500 / 40, gpu_reason=f"gpu_power_w: {BY_ENERGY}")


def test_a_buffer_that_lost_the_beginning_of_the_window_is_noticed(plug: Callable[..., Nvml]) -> None:
    kept = {kind: newer[1:] for kind, newer in CLOSING["samples"].items()}
    reason = f"gpu_util_pct, gpu_sm_clock_mhz: {END_ONLY}; gpu_power_w: {BY_ENERGY}"
    assert load_of(plug({"samples": kept})) == replace(WHOLE, gpu_power_w=8500 / 40, gpu_reason=reason)
    short = load_of(plug({"samples": kept}), window_s=20)
    assert short.gpu_power_w == 250
    assert short.gpu_reason == f"gpu_util_pct, gpu_power_w, gpu_sm_clock_mhz: {END_ONLY}; {TOO_SHORT}"


def test_all_samples_count_if_none_precedes_the_window(plug: Callable[..., Nvml]) -> None:
    none = {UTIL: [], POWER: [], CLOCK: []}
    assert load_of(plug(samples=none)) == replace(WHOLE, gpu_util_pct=52.5, gpu_power_w=400, gpu_sm_clock_mhz=1350)


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
    unplug(monkeypatch)
    with Gpu() as gpu:
        load = gpu.close_window(gpu.open_window(), 40)
    assert load == GpuLoad(gpu_reason="no NVIDIA GPU (NVML: NVML Shared Library Not Found)")
    assert nvml.called == []
