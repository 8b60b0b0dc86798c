"""Measure the GPU in the window, from what NVML reports at the window's two edges.

Nothing polls while a trial runs: what happened between the edges is in the samples and counters that the driver keeps.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import pynvml

from loaderbench.machine import nvml
from loaderbench.machine.nvml import Device, NoFigureError, Samples, ask

GpuSample = dict[str, Any]
"""What NVML reported at one edge of the window, by the names in `_READINGS`. What it did not report is a
`NoFigureError` with the reason."""

ENERGY_WINDOW_S = 30.0
"""The energy counter is too coarse for shorter windows."""
_BYTES_PER_MIB = 2**20
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
        self._device: Device | None = None
        self._gpm_samples: list[Any] = []

    def __enter__(self) -> Self:
        try:
            pynvml.nvmlInit()
            self._device = Device(pynvml.nvmlDeviceGetHandleByIndex(0))
        except pynvml.NVMLError as error:
            self.reason = _no_gpu(error)
        return self

    def __exit__(self, *_: object) -> None:
        for sample in self._gpm_samples:
            pynvml.nvmlGpmSampleFree(sample)
        if self._device is not None:
            pynvml.nvmlShutdown()

    def open_window(self) -> GpuSample | None:
        """Return what `close_window` needs; None without a GPU, or if NVML does not know the one that torch uses."""
        if self._device is None:
            return None
        try:
            self._device = nvml.device_in_use()
        except pynvml.NVMLError as error:
            self.reason = f"NVML does not know the GPU that torch uses: {error}"
            return None
        return self._sample(self._device)

    def close_window(self, opened: GpuSample | None, window_s: float) -> GpuLoad:
        """Return the figures of the window. `opened`: what `open_window` returned. `window_s`: its length."""
        if opened is None or self._device is None:
            return GpuLoad(gpu_reason=self.reason)
        closed = self._sample(self._device)
        in_window = ask(_in_window, opened["utilisation_pct"], closed["utilisation_pct"])
        self.utilisation_pct = [] if isinstance(in_window, NoFigureError) else in_window
        known: dict[str, Any] = {}
        columns: dict[str, list[str]] = {}
        for column, ways in _FIGURES.items():
            answer, note = _first_figure(ways, opened, closed, window_s)
            notes = [note]
            if answer is not None:
                known[column] = answer
                notes.append(_of_the_whole(column, self._device))
            for why in filter(None, notes):
                columns.setdefault(why, []).append(column)
        return GpuLoad(**known, gpu_reason="; ".join(f"{', '.join(names)}: {why}" for why, names in columns.items()))

    def _sample(self, device: Device) -> GpuSample:
        return {"gpm_sample": ask(self._gpm_sample, device)} | {name: ask(read, device) for name, read in _READINGS}

    def _gpm_sample(self, device: Device) -> Any:
        if not pynvml.nvmlGpmQueryDeviceSupport(device.gpu).isSupportedDevice:
            raise NoFigureError("this GPU has no GPM, which came with Hopper")
        self._gpm_samples.append(pynvml.nvmlGpmSampleAlloc())
        return nvml.gpm_sample(device, self._gpm_samples[-1])


class _Way(NamedTuple):
    """One way to a figure, from the same reading at both edges and the length of the window in seconds."""

    reading: str
    figure: Callable[[Any, Any, float], float | str]
    note: str = ""
    """How the figure was measured. Empty: in the usual way."""


def _first_figure(
    ways: Sequence[_Way], opened: GpuSample, closed: GpuSample, window_s: float
) -> tuple[float | str | None, str]:
    """Return the figure of the first way that gives one, and its note; without any, None and why the first has none."""
    reasons = []
    for way in ways:
        answer = ask(way.figure, opened[way.reading], closed[way.reading], window_s)
        if not isinstance(answer, NoFigureError):
            return answer, way.note
        reasons.append(str(answer))
    return None, reasons[0]


def _of_the_whole(column: str, device: Device) -> str:
    """Return the note on a figure of the whole GPU if torch uses only a part of it."""
    of_the_instance = device.instance is not None and column in _OF_THE_INSTANCE
    return "of the whole GPU (torch uses one of its MIG instances)" if device.divided and not of_the_instance else ""


def _in_window(opened: Samples, closed: Samples) -> Samples:
    """Return the samples that are newer than the newest one at the opening."""
    newest_us = max((stamp_us for stamp_us, _ in opened), default=0)
    return [(stamp_us, value) for stamp_us, value in closed if stamp_us > newest_us]


def _mean(opened: Samples, closed: Samples, _: float) -> float:
    """Return the mean of the samples in the window. Raises NoFigureError without any."""
    values = [value for _, value in _in_window(opened, closed)]
    if not values:
        raise NoFigureError("NVML took no sample in the window")
    return sum(values) / len(values)


def _whole_mean(opened: Samples, closed: Samples, window_s: float) -> float:
    """Return the same, but raise NoFigureError if the buffer has lost samples since the window opened."""
    mean = _mean(opened, closed, window_s)
    if opened and len(_in_window(opened, closed)) == len(closed):
        raise NoFigureError("NVML's samples do not reach back to the opening of the window")
    return mean


def _mean_of_edges(opened: float, closed: float, _: float) -> float:
    return (opened + closed) / 2


def _energy_j(opened_mj: int, closed_mj: int, window_s: float) -> float:
    if window_s < ENERGY_WINDOW_S:
        raise NoFigureError(f"the energy counter is too coarse for windows below {ENERGY_WINDOW_S:.0f} s")
    return (closed_mj - opened_mj) / 1000


def _throttle(opened: int, closed: int, _: float) -> str:
    """Return the names of the events in either bit mask that are throttling."""
    events = opened | closed
    bits = [1 << place for place in range(events.bit_length()) if events >> place & 1]
    names = [_CLOCK_EVENTS.get(bit, f"reason {bit:#x}") for bit in bits if not bit & _NO_THROTTLING]
    return "; ".join(names)


def _undivided(device: Device) -> Any:
    """Return the GPU. Raises NoFigureError for a MIG instance: NVML has no utilisation of one."""
    if device.divided:
        raise NoFigureError("NVML has no utilisation of MIG instances")
    return device.gpu


def _power_w(device: Device) -> Samples:
    samples = nvml.samples(device.gpu, pynvml.NVML_TOTAL_POWER_SAMPLES)
    return [(stamp_us, power_mw / 1000) for stamp_us, power_mw in samples]


_READINGS: list[tuple[str, Callable[[Device], Any]]] = [
    ("energy_mj", lambda device: pynvml.nvmlDeviceGetTotalEnergyConsumption(device.gpu)),
    ("clock_events", lambda device: pynvml.nvmlDeviceGetCurrentClocksEventReasons(device.gpu)),
    ("memory_bytes", lambda device: pynvml.nvmlDeviceGetMemoryInfo(device.instance or device.gpu).used),
    ("utilisation_pct", lambda device: nvml.samples(_undivided(device), pynvml.NVML_GPU_UTILIZATION_SAMPLES)),
    ("power_w", _power_w),
    ("sm_clock_mhz", lambda device: nvml.samples(device.gpu, pynvml.NVML_PROCESSOR_CLK_SAMPLES)),
    ("utilisation_now_pct", lambda device: pynvml.nvmlDeviceGetUtilizationRates(_undivided(device)).gpu),
    ("power_now_w", lambda device: pynvml.nvmlDeviceGetPowerUsage(device.gpu) / 1000),
    ("sm_clock_now_mhz", lambda device: pynvml.nvmlDeviceGetClockInfo(device.gpu, pynvml.NVML_CLOCK_SM)),
]
"""What is read at each edge, after the GPM sample: counters first, since their difference is compared with the
window."""
_OF_THE_INSTANCE = {"gpu_memory_mib", "gpu_sm_active_pct", "gpu_dram_pct"}
"""Columns that NVML gives of a MIG instance."""
_END_ONLY = "NVML's samples cover only the end of the window"
_FROM_ENERGY = "by the energy counter, because NVML's samples do not cover the window"
_AT_EDGES = "mean of two readings at the edges of the window, because NVML has no samples"
_FIGURES: dict[str, list[_Way]] = {
    "gpu_util_pct": [
        _Way("utilisation_pct", _whole_mean),
        _Way("utilisation_pct", _mean, _END_ONLY),
        _Way("utilisation_now_pct", _mean_of_edges, _AT_EDGES),
    ],
    "gpu_memory_mib": [_Way("memory_bytes", lambda opened, closed, _: max(opened, closed) / _BYTES_PER_MIB)],
    "gpu_power_w": [
        _Way("power_w", _whole_mean),
        _Way("energy_mj", lambda *edges_and_s: _energy_j(*edges_and_s) / edges_and_s[-1], _FROM_ENERGY),
        _Way("power_w", _mean, _END_ONLY),
        _Way("power_now_w", _mean_of_edges, _AT_EDGES),
    ],
    "gpu_energy_j": [_Way("energy_mj", _energy_j)],
    "gpu_sm_clock_mhz": [
        _Way("sm_clock_mhz", _whole_mean),
        _Way("sm_clock_mhz", _mean, _END_ONLY),
        _Way("sm_clock_now_mhz", _mean_of_edges, _AT_EDGES),
    ],
    "gpu_throttle": [_Way("clock_events", _throttle)],
    "gpu_sm_active_pct": [_Way("gpm_sample", lambda *edges: nvml.gpm(pynvml.NVML_GPM_METRIC_SM_UTIL, *edges[:2]))],
    "gpu_dram_pct": [_Way("gpm_sample", lambda *edges: nvml.gpm(pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL, *edges[:2]))],
}
"""The ways to each column's figure; the first that gives one counts."""
