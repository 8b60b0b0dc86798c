"""Copy batches to the device that the work requests, as a training loop would.

A loader may also deliver on the device by itself. Copies run on their own stream, so that they do not wait for what the
device still computes, and the CPU waits for neither. While a batch is copied, the next one is requested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loaderbench.api import Work
from loaderbench.trial.clock import CopyClock

if TYPE_CHECKING:
    from torch import Tensor


def demand(work: Work) -> None:
    """Raise NotImplementedError, with the reason, if this machine lacks the device that the work requests."""
    import torch

    if work.device == "cpu":
        return
    if not torch.cuda.is_available():
        raise NotImplementedError("torch finds no CUDA device")
    if (found := torch.cuda.device_count()) < work.ranks:
        raise NotImplementedError(f"{work.ranks} ranks need as many CUDA devices, and torch finds {found}")


def copies(work: Work) -> Copies | None:
    """Return an object that copies batches to the work's device; None if that is the CPU. Raises as `demand` does."""
    if work.device == "cpu":
        return None
    demand(work)
    import torch

    return Copies(work.device, torch.cuda)


def finish() -> bool:
    """Wait until a GPU has finished what this process gave it, on all streams; return whether the process uses one."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    torch.cuda.synchronize()
    return True


def memory(images: Tensor) -> str:
    """Return the kind of memory that a batch lies in, for `Record.batch_memory`."""
    if images.device.type != "cpu":
        return "device"
    if images.untyped_storage().is_shared():
        return "shared"
    return "pinned" if images.is_pinned() else "private"


class Copies:
    """Copies batches to a device."""

    def __init__(self, device: str, cuda: Any) -> None:
        """`cuda`: `torch.cuda`, or a substitute with its streams and events."""
        self.memory = ""
        """Memory of the loader's first batch."""
        self.clock = CopyClock()
        self._device, self._cuda = device, cuda
        self._stream = cuda.Stream()

    def bring(self, images: Tensor) -> Tensor:
        """Return a batch on the device. The device waits for the copy before it uses the batch."""
        self.memory = self.memory or memory(images)
        if images.device.type == self._device:
            self.clock.note(None)
            return images
        begin, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        with self._cuda.stream(self._stream):
            begin.record()
            brought = images.to(self._device, non_blocking=True)
            end.record()
        self.clock.note((begin, end))
        user = self._cuda.current_stream()
        user.wait_event(end)
        brought.record_stream(user)  # keeps its memory from being reused for a later copy meanwhile
        return brought
