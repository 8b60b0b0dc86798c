"""How do images come to the device that the work asks for?

A loader may deliver on it, by its library's own way. What it leaves in the CPU's memory is copied here, as a training
loop would: on a stream of its own, so that the copy does not wait for what the device still computes, and without the
CPU waiting for either. While a batch is copied, the next one is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loaderbench.trial.clock import CopyClock

if TYPE_CHECKING:
    from torch import Tensor

    from loaderbench.api import Work


def demand(work: Work) -> None:
    """Raise NotImplementedError, with the reason, if this machine lacks the device that the work asks for."""
    import torch

    if work.device == "cpu":
        return
    if not torch.cuda.is_available():
        raise NotImplementedError("torch finds no CUDA device")
    if (found := torch.cuda.device_count()) < work.ranks:
        raise NotImplementedError(f"{work.ranks} ranks need as many CUDA devices, and torch finds {found}")


def copies(work: Work) -> Copies | None:
    """Return what brings batches to the work's device; None if that is the CPU. Raises as `demand` does."""
    if work.device == "cpu":
        return None
    demand(work)
    import torch

    return Copies(work.device, torch.cuda)


def memory(images: Tensor) -> str:
    """Return what a batch lies in, as `Record.batch_memory` has it."""
    if images.device.type != "cpu":
        return "device"
    if images.untyped_storage().is_shared():
        return "shared"
    return "pinned" if images.is_pinned() else "private"


class Copies:
    """Brings batches to a device."""

    def __init__(self, device: str, cuda: Any) -> None:
        """`cuda`: `torch.cuda`, of which streams and events are used."""
        self.memory = ""
        """What the loader's first batch lay in."""
        self.clock = CopyClock()
        self._device, self._cuda = device, cuda
        self._stream = cuda.Stream()

    def bring(self, images: Tensor) -> Tensor:
        """Return a batch on the device, where whatever uses it next will wait until it is there."""
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
        brought.record_stream(user)  # so that its memory is not given to a later copy while it is used
        return brought
