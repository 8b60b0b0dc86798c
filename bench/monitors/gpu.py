"""How busy was the GPU? Read from NVML's own sample buffer, so nothing polls while a trial runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


@dataclass(frozen=True)
class Utilisation:
    """The share of a window in which any kernel ran, or why it is not known."""

    pct: float | None
    reason: str = ""


class Gpu:
    """The first GPU that NVML knows; without one, a reason in its place. Use as a context manager."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.reason = ""
        self._handle: Any = None

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
        if self._handle is not None:
            pynvml.nvmlShutdown()

    def now_us(self) -> int:
        """Return the time stamp of the newest utilisation sample, in NVML's microseconds; 0 if there is none."""
        try:
            return max((sample.timeStamp for sample in self._samples(0)), default=0)
        except pynvml.NVMLError:  # why is told when the window closes
            return 0

    def utilisation_since(self, start_us: int) -> Utilisation:
        """Return the mean of the utilisation samples newer than `start_us`."""
        if self._handle is None:
            return Utilisation(None, self.reason)
        try:
            values = [sample.sampleValue.uiVal for sample in self._samples(start_us)]
        except pynvml.NVMLError as error:
            return Utilisation(None, f"NVML gives no utilisation samples: {error}")
        if not values:
            return Utilisation(None, "NVML took no utilisation sample in the window")
        return Utilisation(sum(values) / len(values))

    def _samples(self, since_us: int) -> list[Any]:
        if self._handle is None:
            return []
        try:
            _, samples = pynvml.nvmlDeviceGetSamples(self._handle, pynvml.NVML_GPU_UTILIZATION_SAMPLES, since_us)
        except pynvml.NVMLError_NotFound:  # no sample is newer
            return []
        return list(samples)
