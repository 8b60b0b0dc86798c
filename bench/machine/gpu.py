"""Measure the GPU in the window, from what NVML reports at the window's two edges.

Nothing polls while a trial runs: what happened between the edges is in the samples and counters that the driver keeps.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import pynvml

Samples = list[tuple[int, float]]
"""Time stamp, in NVML's microseconds, and value."""
GpuSample = dict[str, Any]
"""What NVML reported at one edge of the window, by the names in `_READINGS`. What it did not report is a
`NoFigureError` with the reason."""

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
"""The field of a sample's union that holds the value, by type."""
_CLOCK_EVENTS = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "software power cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "software thermal slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hardware thermal slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "hardware power brake",
    pynvml.nvmlClocksThrottleReasonBoardLimit: "board limit",  # the binding has the old names of the last two only
    pynvml.nvmlClocksThrottleReasonReliability: "reliability",
}
_NO_THROTTLING = (
    pynvml.nvmlClocksEventReasonGpuIdle
    | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    | pynvml.nvmlClocksEventReasonSyncBoost
    | pynvml.nvmlClocksEventReasonDisplayClockSetting
)
"""The GPU is idle, or its clock was set on purpose."""


class NoFigureError(Exception):
    """The reason why a figure is not known."""


@dataclass(frozen=True, kw_only=True)
class GpuLoad:
    """The GPU's columns of `Record`, where they are explained."""

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


def describe() -> dict[str, str | None]:
    """Return what `env.json` keeps of GPUs: all that NVML knows, by name, and their driver; or why there are none."""
    gpu, driver, reason = None, None, ""
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        names = Counter(str(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
        gpu = ", ".join(f"{number} x {name}" if number > 1 else name for name, number in names.items()) or None
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        reason = _no_gpu(error)
    return {"gpu": gpu, "gpu_reason": reason, "gpu_driver": driver}


def _no_gpu(error: pynvml.NVMLError) -> str:
    return f"no NVIDIA GPU (NVML: {error})"


class Gpu:
    """The GPU that torch uses in this process when the window opens, or NVML's first GPU if torch uses none.

    Without a GPU, `reason` says why. Use as a context manager.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.utilisation_pct: Samples = []
        """NVML's samples in the last window that was closed; empty if there are none."""
        self._handle: Any = None
        self._gpm_samples: list[Any] = []

    def __enter__(self) -> Self:
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        except pynvml.NVMLError as error:
            self.reason = _no_gpu(error)
        return self

    def __exit__(self, *_: object) -> None:
        for sample in self._gpm_samples:
            pynvml.nvmlGpmSampleFree(sample)
        if self._handle is not None:
            pynvml.nvmlShutdown()

    def open_window(self) -> GpuSample | None:
        """Return what `close_window` needs; None without a GPU, or if NVML does not know the one that torch uses."""
        if self._handle is None:
            return None
        try:
            if (uuid := _uuid_in_use()) is not None:
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            self.reason = f"NVML does not know the GPU that torch uses: {error}"
            return None
        return self._sample()

    def close_window(self, opened: GpuSample | None, window_s: float) -> GpuLoad:
        """Return the figures of the window. `opened`: what `open_window` returned. `window_s`: its length."""
        if opened is None:
            return GpuLoad(gpu_reason=self.reason)
        closed = self._sample()
        self.utilisation_pct = _window_samples(opened["utilisation_pct"], closed["utilisation_pct"])
        if window_s < ENERGY_WINDOW_S:
            too_short = f"the energy counter is too coarse for windows below {ENERGY_WINDOW_S:.0f} s"
            opened = opened | {"energy_mj": NoFigureError(too_short)}
        known: dict[str, Any] = {}
        missing: dict[str, list[str]] = {}
        for column, reading, figure in _FIGURES:
            answer = _ask(figure, opened[reading], closed[reading])
            if isinstance(answer, NoFigureError):
                missing.setdefault(str(answer), []).append(column)
            else:
                known[column] = answer
        reasons = (f"{', '.join(columns)}: {reason}" for reason, columns in missing.items())
        return GpuLoad(**known, gpu_reason="; ".join(reasons))

    def _sample(self) -> GpuSample:
        return {"gpm_sample": _ask(self._gpm_sample)} | {name: _ask(read, self._handle) for name, read in _READINGS}

    def _gpm_sample(self) -> Any:
        if not pynvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
            raise NoFigureError("this GPU has no GPM, which came with Hopper")
        self._gpm_samples.append(pynvml.nvmlGpmSampleAlloc())
        return pynvml.nvmlGpmSampleGet(self._handle, self._gpm_samples[-1])


def _uuid_in_use() -> str | None:
    """Return NVML's name of torch's current CUDA device; None if torch uses none. Does not initialise CUDA."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def _ask(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the answer of a call, or a NoFigureError: why it, or the first argument that is one, has none."""
    for argument in arguments:
        if isinstance(argument, NoFigureError):
            return argument
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        return NoFigureError(f"NVML says {error}")
    except NoFigureError as why:
        return why


def _samples(kind: int, device: Any) -> Samples:
    """Return all samples of one kind in NVML's buffer."""
    try:
        value_type, samples = pynvml.nvmlDeviceGetSamples(device, kind, 0)
    except pynvml.NVMLError_NotFound:  # the buffer is empty
        return []
    if value_type not in _VALUE_FIELDS:
        raise NoFigureError(f"NVML's samples are of the unknown type {value_type}")
    return [(sample.timeStamp, getattr(sample.sampleValue, _VALUE_FIELDS[value_type])) for sample in samples]


def _window_samples(opened: Samples | NoFigureError, closed: Samples | NoFigureError) -> Samples:
    """Return the samples that are newer than the newest one at the opening."""
    if isinstance(opened, NoFigureError) or isinstance(closed, NoFigureError):
        return []
    newest_us = max((stamp_us for stamp_us, _ in opened), default=0)
    return [(stamp_us, value) for stamp_us, value in closed if stamp_us > newest_us]


def _mean(opened: Samples, closed: Samples) -> float:
    values = [value for _, value in _window_samples(opened, closed)]
    if not values:
        raise NoFigureError("NVML took no sample in the window")
    return sum(values) / len(values)


def _throttle(events: int) -> str:
    """Return the names of the events in the bit mask that are throttling."""
    bits = [1 << place for place in range(events.bit_length()) if events >> place & 1]
    names = [_CLOCK_EVENTS.get(bit, f"reason {bit:#x}") for bit in bits if not bit & _NO_THROTTLING]
    return "; ".join(names)


def _gpm(metric: int, opened: Any, closed: Any) -> float:
    """Return one GPM metric of the time between two GPM samples."""
    request = pynvml.c_nvmlGpmMetricsGet_t(
        version=pynvml.NVML_GPM_METRICS_GET_VERSION, numMetrics=1, sample1=opened, sample2=closed
    )
    request.metrics[0].metricId = metric
    answer = pynvml.nvmlGpmMetricsGet(request).metrics[0]
    if answer.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(answer.nvmlReturn)
    return float(answer.value)


_READINGS: list[tuple[str, Callable[[Any], Any]]] = [
    ("energy_mj", lambda device: pynvml.nvmlDeviceGetTotalEnergyConsumption(device)),  # noqa: PLW0108 - looked up when called
    ("clock_events", lambda device: pynvml.nvmlDeviceGetCurrentClocksEventReasons(device)),  # noqa: PLW0108
    ("memory_bytes", lambda device: pynvml.nvmlDeviceGetMemoryInfo(device).used),
    ("utilisation_pct", partial(_samples, pynvml.NVML_GPU_UTILIZATION_SAMPLES)),
    ("power_mw", partial(_samples, pynvml.NVML_TOTAL_POWER_SAMPLES)),
    ("sm_clock_mhz", partial(_samples, pynvml.NVML_PROCESSOR_CLK_SAMPLES)),
]
"""What is read at each edge, after the GPM sample: counters first, since their difference is compared with the
window."""
_FIGURES: list[tuple[str, str, Callable[[Any, Any], float | str]]] = [
    ("gpu_util_pct", "utilisation_pct", _mean),
    ("gpu_memory_mib", "memory_bytes", lambda opened, closed: max(opened, closed) / _BYTES_PER_MIB),
    ("gpu_power_w", "power_mw", lambda opened, closed: _mean(opened, closed) / 1000),
    ("gpu_energy_j", "energy_mj", lambda opened, closed: (closed - opened) / 1000),
    ("gpu_sm_clock_mhz", "sm_clock_mhz", _mean),
    ("gpu_throttle", "clock_events", lambda opened, closed: _throttle(opened | closed)),
    ("gpu_sm_active_pct", "gpm_sample", partial(_gpm, pynvml.NVML_GPM_METRIC_SM_UTIL)),
    ("gpu_dram_pct", "gpm_sample", partial(_gpm, pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL)),
]
"""Column, the reading that it follows from, and how, from the reading at the opening and at the close."""
