"""Simulated CUDA streams, events and copies: a stream does one thing after the other, starting when it is submitted."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


class Cuda:
    """Stands for `torch.cuda`."""

    def __init__(self, host_ms: float = 0.0) -> None:
        self.host_ms = host_ms
        self.streams: list[Stream] = []
        self.main = self.current = Stream(self)

    def Stream(self) -> Stream:  # noqa: N802 - torch's name
        return Stream(self)

    def Event(self, *, enable_timing: bool = False, blocking: bool = False) -> Event:  # noqa: N802
        return Event(self)

    def current_stream(self) -> Stream:
        return self.current

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def synchronize(self) -> None:
        for stream in self.streams:
            stream.synchronize()

    def compute(self, step_ms: float) -> None:
        self.current.do(step_ms)

    def replace_torchs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let torch use these streams, with tensors of the CPU."""
        for name in ("Stream", "stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None, raising=False)


class Stream:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.free_ms = 0.0
        cuda.streams.append(self)

    def do(self, what_ms: float) -> None:
        self.free_ms = max(self.free_ms, self.cuda.host_ms) + what_ms

    def wait_event(self, event: Event) -> None:
        self.free_ms = max(self.free_ms, event.passed_ms)

    def wait_stream(self, stream: Stream) -> None:
        self.free_ms = max(self.free_ms, stream.free_ms)

    def synchronize(self) -> None:
        self.cuda.host_ms = max(self.cuda.host_ms, self.free_ms)


class Event:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda

    def record(self) -> None:
        self.passed_ms = max(self.cuda.current.free_ms, self.cuda.host_ms)

    def synchronize(self) -> None:
        self.cuda.host_ms = max(self.cuda.host_ms, self.passed_ms)

    def elapsed_time(self, later: Event) -> float:
        if max(self.passed_ms, later.passed_ms) > self.cuda.host_ms:
            raise RuntimeError("CUDA error: device not ready")
        return float(np.float32(later.passed_ms - self.passed_ms))


class Images:
    """A batch on the CPU (`where`: on a device); a copy to the device takes `copy_ms`."""

    def __init__(self, cuda: Cuda, copy_ms: float, where: str = "cpu") -> None:
        self.cuda, self.copy_ms, self.where = cuda, copy_ms, where
        self.used_on: list[Stream] = []

    @property
    def device(self) -> Any:
        return torch.device(self.where)

    def untyped_storage(self) -> Any:
        return torch.zeros(1).untyped_storage()

    def is_pinned(self) -> bool:
        return True

    def to(self, where: str, *, non_blocking: bool) -> Images:
        assert non_blocking
        self.cuda.current.do(self.copy_ms)
        return Images(self.cuda, self.copy_ms, where)

    def record_stream(self, stream: Stream) -> None:
        self.used_on.append(stream)
