"""Measure how long training steps and copies take, and how long the device waits for data in between."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from loaderbench.records.timeline import Timeline

AHEAD = 2
"""Maximum number of steps that a GPU has not finished, so that batches do not pile up in its memory."""


def stall_pct(images_per_s: float, cached_images_per_s: float) -> float:
    """Return how much slower training is than the same training on one cached batch, in %."""
    return 100 * (1 - images_per_s / cached_images_per_s)


class Clock:
    """Measures steps that are finished when they return: the device is busy whenever it does not wait for the loader.

    It is called at each step, in the order of batches.
    """

    def begin(self) -> None:
        """Note that a batch has been delivered and its step begins."""

    def end(self) -> None:
        """Note that the step is finished, or handed to the device."""

    def columns(self, times: Timeline) -> dict[str, float]:
        """Return the columns of `Record` for the window."""
        inside, (opened, closed) = _inside(times), times.window
        waits_ns = [times.exits_ns[batch] - times.asked_ns[batch] for batch in inside]
        steps_ns = [times.asked_ns[batch] - times.exits_ns[batch - 1] for batch in inside]
        window_ns = times.exits_ns[closed] - times.exits_ns[opened]
        return {"starved_pct": 100 * sum(waits_ns) / window_ns, "step_p50_ms": statistics.median(steps_ns) / 1e6}


class CopyClock:
    """Measures copies to a GPU on their own stream, by the events before and after each."""

    def __init__(self) -> None:
        self._copies: list[tuple[Any, Any] | None] = []

    def note(self, copy: tuple[Any, Any] | None) -> None:
        """Note the next batch's copy: two `torch.cuda.Event` with timing around it; None if it was not copied."""
        self._copies.append(copy)

    def columns(self, times: Timeline) -> dict[str, float]:
        """Return the columns of `Record` for the window; empty if nothing was copied in it."""
        copied = self._inside(times)
        if not copied:
            return {}
        copied[max(copied)][1].synchronize()
        return {"copy_p50_ms": statistics.median(begin.elapsed_time(end) for begin, end in copied.values())}

    def overlap(self, times: Timeline, steps: CudaClock) -> dict[str, float]:
        """Return the column of `Record` with the share of the window's copy time that lay within steps."""
        copied = self._inside(times)
        if not copied:
            return {}
        steps.finish()
        copied_ms = sum(begin.elapsed_time(end) for begin, end in copied.values())
        # Its own step waits for a copy, and steps further back are finished.
        within_ms = sum(steps.busy_ms(range(max(0, batch - AHEAD), batch), *copy) for batch, copy in copied.items())
        return {"copy_overlap_pct": 100 * within_ms / copied_ms}

    def _inside(self, times: Timeline) -> dict[int, tuple[Any, Any]]:
        """Return the copies of the window's batches, by batch."""
        return {batch: copy for batch in _inside(times) if (copy := self._copies[batch])}


def _inside(times: Timeline) -> range:
    """Return the window's batches."""
    opened, closed = times.window
    return range(opened + 1, closed + 1)


class CudaClock(Clock):
    """Measures steps that a GPU does later, by events that it passes.

    Between the end of one step and the beginning of the next it does no step, though it may work for the loader.
    """

    def __init__(self, event: Callable[[], Any]) -> None:
        """`event`: returns a new `torch.cuda.Event` with timing."""
        self._event = event
        self._begins: list[Any] = []
        self._ends: list[Any] = []

    def begin(self) -> None:  # noqa: D102
        self._begins.append(self._event())
        self._begins[-1].record()

    def end(self) -> None:  # noqa: D102
        self._ends.append(self._event())
        self._ends[-1].record()
        if len(self._ends) > AHEAD:
            self._ends[-1 - AHEAD].synchronize()

    def finish(self) -> None:
        """Wait until all steps are finished, and with them the copies that they wait for."""
        self._ends[-1].synchronize()

    def busy_ms(self, steps: range, begin: Any, end: Any) -> float:
        """Return how long the GPU did these steps between two events.

        Times are measured from the first step's begin, because CUDA returns them as 32-bit floats of milliseconds:
        after two minutes they have steps of 8 microseconds.
        """
        if not steps:
            return 0.0
        origin = self._begins[steps[0]]
        begin_ms, end_ms = origin.elapsed_time(begin), origin.elapsed_time(end)
        busy_ms = 0.0
        for n in steps:
            began_ms, ended_ms = origin.elapsed_time(self._begins[n]), origin.elapsed_time(self._ends[n])
            busy_ms += max(0.0, min(end_ms, ended_ms) - max(begin_ms, began_ms))
        return busy_ms

    def columns(self, times: Timeline) -> dict[str, float]:  # noqa: D102
        self.finish()
        inside = _inside(times)
        idle_ms = sum(self._ends[step - 1].elapsed_time(self._begins[step]) for step in inside)
        steps_ms = [self._begins[step].elapsed_time(self._ends[step]) for step in inside]
        starved_pct = 100 * idle_ms / (idle_ms + sum(steps_ms))
        return {
            "starved_pct": starved_pct,
            "gpu_starved_pct": starved_pct,
            "step_p50_ms": statistics.median(steps_ms),
        }
