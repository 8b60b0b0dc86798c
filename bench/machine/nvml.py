"""Ask NVML for one figure or the reason why there is none, and find the GPU or MIG instance that torch uses."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml

Samples = list[tuple[int, float]]
"""Time stamp, in NVML's microseconds, and value."""

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


class NoFigureError(Exception):
    """The reason why a figure is not known."""


@dataclass(frozen=True)
class Device:
    """A GPU by NVML's handles."""

    gpu: Any
    """The whole GPU."""
    divided: bool = False
    """Whether it is divided into MIG instances."""
    instance: Any = None
    """The MIG instance in use. None: the GPU is not divided, or the instance is not known."""


def device_in_use() -> Device:
    """Return the GPU that torch uses in this process, or NVML's first one if torch uses none.

    Does not initialise CUDA. Raises NVMLError if NVML does not know the GPU.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return _whole(pynvml.nvmlDeviceGetHandleByIndex(0))
    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    # Of a MIG instance torch gives its own UUID or that of the whole GPU, depending on the driver.
    for name in (f"MIG-{uuid}", *([shown] if shown.startswith("MIG-") else [])):
        instance = ask(pynvml.nvmlDeviceGetHandleByUUID, name)
        if not isinstance(instance, NoFigureError):
            whole = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)
            return Device(whole, divided=True, instance=instance)
    return _whole(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))


def _whole(gpu: Any) -> Device:
    mode = ask(pynvml.nvmlDeviceGetMigMode, gpu)  # the present one, and the one after the next reset
    return Device(gpu, divided=not isinstance(mode, NoFigureError) and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE)


def ask(call: Callable[..., Any], *arguments: Any) -> Any:
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


def samples(gpu: Any, kind: int) -> Samples:
    """Return all samples of one kind in NVML's buffer. Raises NVMLError, and NoFigureError for an unknown type."""
    try:
        value_type, found = pynvml.nvmlDeviceGetSamples(gpu, kind, 0)
    except pynvml.NVMLError_NotFound:  # the buffer is empty
        return []
    if value_type not in _VALUE_FIELDS:
        raise NoFigureError(f"NVML's samples are of the unknown type {value_type}")
    return [(sample.timeStamp, getattr(sample.sampleValue, _VALUE_FIELDS[value_type])) for sample in found]


def gpm_sample(device: Device, sample: Any) -> Any:
    """Fill and return a GPM sample of the GPU, or of the instance in use. Raises NVMLError and NoFigureError."""
    if not device.divided:
        return pynvml.nvmlGpmSampleGet(device.gpu, sample)
    if device.instance is None:
        raise NoFigureError("NVML does not say which MIG instance torch uses")
    return pynvml.nvmlGpmMigSampleGet(device.gpu, pynvml.nvmlDeviceGetGpuInstanceId(device.instance), sample)


def gpm(metric: int, opened: Any, closed: Any) -> float:
    """Return one GPM metric of the time between two GPM samples. Raises NVMLError."""
    request = pynvml.c_nvmlGpmMetricsGet_t(
        version=pynvml.NVML_GPM_METRICS_GET_VERSION, numMetrics=1, sample1=opened, sample2=closed
    )
    request.metrics[0].metricId = metric
    answer = pynvml.nvmlGpmMetricsGet(request).metrics[0]
    if answer.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(answer.nvmlReturn)
    return float(answer.value)
