"""What did the GPU do in the window? Nothing polls while a trial runs: NVML is asked at the window's two edges alone.

What happened between them is in the samples and counters that the driver keeps anyway.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
Samples = list[tuple[int, float]]
"""Time stamp, in NVML's microseconds, and value."""

ENERGY_WINDOW_S = 30.0
"""The energy counter is too coarse for shorter windows."""
_BYTES_PER_MIB = 2**20
_VALUE_FIELDS = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}
"""Which field of a sample's union holds the value."""
_CLOCK_EVENTS = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "software power cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "software thermal slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hardware thermal slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "hardware power brake",
    pynvml.nvmlClocksThrottleReasonBoardLimit: "board limit",  # the binding has the last two by their old names only
    pynvml.nvmlClocksThrottleReasonReliability: "reliability",
}


_NO_THROTTLING = (
    pynvml.nvmlClocksEventReasonGpuIdle
    | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    | pynvml.nvmlClocksEventReasonSyncBoost
    | pynvml.nvmlClocksEventReasonDisplayClockSetting
)
"""To be idle, or at a clock that was set on purpose."""


class NoFigureError(Exception):
    """Why a figure is not known."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """What NVML told at one edge of the window; where it told nothing, why."""

    gpm_sample: Any
    """An opaque handle; two of them give the GPM metrics of the time between."""
    energy_mj: int | NoFigureError
    clock_events: int | NoFigureError
    """A bit mask."""
    memory_bytes: int | NoFigureError
    utilisation_pct: Samples | NoFigureError
    """All samples in NVML's buffer, as the next two."""
    power_mw: Samples | NoFigureError
    sm_clock_mhz: Samples | NoFigureError


@dataclass(frozen=True, kw_only=True)
class GpuLoad:
    """The GPU's columns of `Record`, which tells what they are."""

    gpu_util_pct: float | None = None
    gpu_memory_mib: float | None = None
    gpu_power_w: float | None = None
    gpu_energy_j: float | None = None
    gpu_sm_clock_mhz: float | None = None
    gpu_throttle: str = ""
    gpu_sm_active_pct: float | None = None
    gpu_dram_pct: float | None = None
    gpu_reason: str = ""


def count() -> int:
    """Return how many GPUs NVML knows; 0 without NVML."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


class Gpu:
    """The GPU that torch uses in this process when the window opens, or the first that NVML knows if torch uses none.
    Without any, a reason in its place. Use as a context manager.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.reason = ""
        self.utilisation_pct: Samples = []
        """NVML's samples of the last window that was closed; none if it told none."""
        self._handle: Any = None
        self._gpm_samples: list[Any] = []

    def __enter__(self) -> Self:
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            self.name = str(pynvml.nvmlDeviceGetName(self._handle))
        except pynvml.NVMLError as error:
            self.reason = f"no NVIDIA GPU (NVML: {error})"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sample in self._gpm_samples:
            pynvml.nvmlGpmSampleFree(sample)
        if self._handle is not None:
            pynvml.nvmlShutdown()

    def open_window(self) -> Edge | None:
        """Return what `close_window` needs; None without a GPU, or if NVML does not know the one that torch uses."""
        if self._handle is None:
            return None
        try:
            if (uuid := _uuid_in_use()) is not None:
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            self.reason = f"NVML does not know the GPU that torch uses: {error}"
            return None
        return self._edge()

    def close_window(self, opened: Edge | None, window_s: float) -> GpuLoad:
        """Return the figures of the window that `opened` opened and that lasted `window_s`."""
        if opened is None:
            return GpuLoad(gpu_reason=self.reason)
        closed = self._edge()
        self.utilisation_pct = _within(opened.utilisation_pct, closed.utilisation_pct)
        figures: dict[str, Callable[[], float | str]] = {
            "gpu_util_pct": lambda: _mean(opened.utilisation_pct, closed.utilisation_pct),
            "gpu_memory_mib": lambda: max(_told(opened.memory_bytes), _told(closed.memory_bytes)) / _BYTES_PER_MIB,
            "gpu_power_w": lambda: _mean(opened.power_mw, closed.power_mw) / 1000,
            "gpu_energy_j": lambda: _energy_j(opened, closed, window_s),
            "gpu_sm_clock_mhz": lambda: _mean(opened.sm_clock_mhz, closed.sm_clock_mhz),
            "gpu_throttle": lambda: _throttle(_told(opened.clock_events) | _told(closed.clock_events)),
            "gpu_sm_active_pct": lambda: _gpm(opened, closed, pynvml.NVML_GPM_METRIC_SM_UTIL),
            "gpu_dram_pct": lambda: _gpm(opened, closed, pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL),
        }
        known: dict[str, Any] = {}
        missing: dict[str, list[str]] = {}
        for column, figure in figures.items():
            answer = _ask(figure)
            if isinstance(answer, NoFigureError):
                missing.setdefault(str(answer), []).append(column)
            else:
                known[column] = answer
        reasons = (f"{', '.join(columns)}: {reason}" for reason, columns in missing.items())
        return GpuLoad(**known, gpu_reason="; ".join(reasons))

    def _edge(self) -> Edge:
        """Ask for everything, counters first: it is their difference that is held against the window."""
        device = self._handle
        return Edge(
            gpm_sample=_ask(self._gpm_sample),
            energy_mj=_ask(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(device)),
            clock_events=_ask(lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(device)),
            memory_bytes=_ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(device).used),
            utilisation_pct=_ask(lambda: _samples(device, pynvml.NVML_GPU_UTILIZATION_SAMPLES)),
            power_mw=_ask(lambda: _samples(device, pynvml.NVML_TOTAL_POWER_SAMPLES)),
            sm_clock_mhz=_ask(lambda: _samples(device, pynvml.NVML_PROCESSOR_CLK_SAMPLES)),
        )

    def _gpm_sample(self) -> Any:
        if not pynvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
            raise NoFigureError("this GPU has no GPM, which came with Hopper")
        self._gpm_samples.append(pynvml.nvmlGpmSampleAlloc())
        return pynvml.nvmlGpmSampleGet(self._handle, self._gpm_samples[-1])


def _uuid_in_use() -> str | None:
    """Return what NVML calls torch's current CUDA device; None if torch has none, and it is not given one for this."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def _ask(call: Callable[[], T]) -> T | NoFigureError:
    """Return the answer, or why there is none."""
    try:
        return call()
    except pynvml.NVMLError as error:
        return NoFigureError(f"NVML says {error}")
    except NoFigureError as why:
        return why


def _told(answer: T | NoFigureError) -> T:
    if isinstance(answer, NoFigureError):
        raise answer
    return answer


def _samples(device: Any, kind: int) -> Samples:
    try:
        value_type, samples = pynvml.nvmlDeviceGetSamples(device, kind, 0)
    except pynvml.NVMLError_NotFound:  # the buffer is empty
        return []
    if value_type not in _VALUE_FIELDS:
        raise NoFigureError(f"NVML's samples are of the unknown type {value_type}")
    return [(sample.timeStamp, getattr(sample.sampleValue, _VALUE_FIELDS[value_type])) for sample in samples]


def _within(opened: Samples | NoFigureError, closed: Samples | NoFigureError) -> Samples:
    """Return the samples that came after the newest one of the opening."""
    if isinstance(opened, NoFigureError) or isinstance(closed, NoFigureError):
        return []
    newest_us = max((stamp_us for stamp_us, _ in opened), default=0)
    return [(stamp_us, value) for stamp_us, value in closed if stamp_us > newest_us]


def _mean(opened: Samples | NoFigureError, closed: Samples | NoFigureError) -> float:
    """Return the mean of the window's samples."""
    values = [value for _, value in _within(_told(opened), _told(closed))]
    if not values:
        raise NoFigureError("NVML took no sample in the window")
    return sum(values) / len(values)


def _energy_j(opened: Edge, closed: Edge, window_s: float) -> float:
    if window_s < ENERGY_WINDOW_S:
        raise NoFigureError(f"the energy counter is too coarse for windows below {ENERGY_WINDOW_S:.0f} s")
    return (_told(closed.energy_mj) - _told(opened.energy_mj)) / 1000


def _throttle(events: int) -> str:
    """Return the names of the events in the bit mask that are throttling."""
    bits = [1 << place for place in range(events.bit_length()) if events >> place & 1]
    names = [_CLOCK_EVENTS.get(bit, f"reason {bit:#x}") for bit in bits if not bit & _NO_THROTTLING]
    return "; ".join(names)


def _gpm(opened: Edge, closed: Edge, metric: int) -> float:
    """Return one GPM metric of the time between the two edges."""
    request = pynvml.c_nvmlGpmMetricsGet_t(
        version=pynvml.NVML_GPM_METRICS_GET_VERSION,
        numMetrics=1,
        sample1=_told(opened.gpm_sample),
        sample2=_told(closed.gpm_sample),
    )
    request.metrics[0].metricId = metric
    answer = pynvml.nvmlGpmMetricsGet(request).metrics[0]
    if answer.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(answer.nvmlReturn)
    return float(answer.value)
