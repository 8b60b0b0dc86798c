"""How long does each step take on the device that trains, and how long does that have nothing to do in between?"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from loaderbench.records.timeline import Timeline

AHEAD = 2
"""So many steps at most are handed to a GPU before it has done them, so that batches do not pile up in its memory."""


def stall_pct(images_per_s: float, cached_images_per_s: float) -> float:
    """Return by how much less that is than what the same training does on one batch that is there."""
    return 100 * (1 - images_per_s / cached_images_per_s)


class Clock:
    """Is told of each step, in the order of batches. This one is for steps that are done when they return: the device
    is busy whenever the loader is not waited for.
    """

    def begin(self) -> None:
        """Take note that a batch is there and its step begins."""

    def end(self) -> None:
        """Take note that the step has been done, or handed to the device."""

    def columns(self, times: Timeline) -> dict[str, float]:
        """Return columns of `Record` on the window."""
        inside = _inside(times)
        assert times.opened is not None
        assert times.closed is not None
        waits_ns = [times.exits_ns[batch] - times.asked_ns[batch] for batch in inside]
        steps_ns = [times.asked_ns[batch] - times.exits_ns[batch - 1] for batch in inside]
        window_ns = times.exits_ns[times.closed] - times.exits_ns[times.opened]
        return {"starved_pct": 100 * sum(waits_ns) / window_ns, "step_p50_ms": statistics.median(steps_ns) / 1e6}


class CopyClock:
    """Of copies to a GPU on a stream of their own, by the events between which each lies."""

    def __init__(self) -> None:
        self._copies: list[tuple[Any, Any] | None] = []

    def note(self, copy: tuple[Any, Any] | None) -> None:
        """Take note of the next batch's copy, by the two `torch.cuda.Event` with timing around it; None: not copied."""
        self._copies.append(copy)

    def columns(self, times: Timeline) -> dict[str, float]:
        """Return columns of `Record` on the window; none if nothing was copied in it."""
        copied = self._inside(times)
        if not copied:
            return {}
        copied[max(copied)][1].synchronize()
        return {"copy_p50_ms": statistics.median(begin.elapsed_time(end) for begin, end in copied.values())}

    def overlap(self, times: Timeline, steps: CudaClock) -> dict[str, float]:
        """Return the column of `Record` that tells which share of the window's copies lay within steps."""
        copied = self._inside(times)
        if not copied:
            return {}
        origin = next(copy[0] for copy in self._copies if copy)
        copied_ms = within_ms = 0.0
        for batch, copy in copied.items():
            begin_ms, end_ms = (origin.elapsed_time(event) for event in copy)
            copied_ms += end_ms - begin_ms
            # Its own step waits for it, and those further back are done.
            for step_begin_ms, step_end_ms in steps.spans_ms(origin, range(max(0, batch - AHEAD), batch)):
                within_ms += max(0.0, min(end_ms, step_end_ms) - max(begin_ms, step_begin_ms))
        return {"copy_overlap_pct": 100 * within_ms / copied_ms}

    def _inside(self, times: Timeline) -> dict[int, tuple[Any, Any]]:
        """Return the copies of the window's batches, by batch."""
        return {batch: copy for batch in _inside(times) if (copy := self._copies[batch])}


def _inside(times: Timeline) -> range:
    """Return the window's batches."""
    assert times.opened is not None
    assert times.closed is not None
    return range(times.opened + 1, times.closed + 1)


class CudaClock(Clock):
    """Of steps that a GPU does later, by events that it passes: from the end of one step to the beginning of the next
    it does nothing of a step, though it may be busy for the loader.
    """

    def __init__(self, event: Callable[[], Any]) -> None:
        """`event`: makes a `torch.cuda.Event` with timing."""
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

    def spans_ms(self, origin: Any, steps: range) -> list[tuple[float, float]]:
        """Return when steps began and ended on the GPU, since the event `origin`."""
        return [(origin.elapsed_time(self._begins[n]), origin.elapsed_time(self._ends[n])) for n in steps]

    def columns(self, times: Timeline) -> dict[str, float]:  # noqa: D102
        assert times.opened is not None
        assert times.closed is not None
        self._ends[-1].synchronize()
        inside = _inside(times)
        idle_ms = sum(self._ends[step - 1].elapsed_time(self._begins[step]) for step in inside)
        whole_ms = self._ends[times.opened].elapsed_time(self._ends[times.closed])
        steps_ms = [self._begins[step].elapsed_time(self._ends[step]) for step in inside]
        starved_pct = 100 * idle_ms / whole_ms
        return {
            "starved_pct": starved_pct,
            "gpu_starved_pct": starved_pct,
            "step_p50_ms": statistics.median(steps_ms),
        }
