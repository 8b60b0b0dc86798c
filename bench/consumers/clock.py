"""How long does each step take on the device that trains, and how long does that have nothing to do in between?"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.timeline import Timeline

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
        assert times.opened is not None
        assert times.closed is not None
        inside = range(times.opened + 1, times.closed + 1)
        waits_ns = [times.exits_ns[batch] - times.asked_ns[batch] for batch in inside]
        steps_ns = [times.asked_ns[batch] - times.exits_ns[batch - 1] for batch in inside]
        window_ns = times.exits_ns[times.closed] - times.exits_ns[times.opened]
        return {"starved_pct": 100 * sum(waits_ns) / window_ns, "step_p50_ms": statistics.median(steps_ns) / 1e6}


class CudaClock(Clock):
    """Of steps that a GPU does later, by events that it passes: from the end of one step to the beginning of the next
    it has nothing to do.
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

    def columns(self, times: Timeline) -> dict[str, float]:  # noqa: D102
        assert times.opened is not None
        assert times.closed is not None
        self._ends[-1].synchronize()
        inside = range(times.opened + 1, times.closed + 1)
        idle_ms = sum(self._ends[step - 1].elapsed_time(self._begins[step]) for step in inside)
        whole_ms = self._ends[times.opened].elapsed_time(self._ends[times.closed])
        steps_ms = [self._begins[step].elapsed_time(self._ends[step]) for step in inside]
        starved_pct = 100 * idle_ms / whole_ms
        return {
            "starved_pct": starved_pct,
            "gpu_starved_pct": starved_pct,
            "step_p50_ms": statistics.median(steps_ms),
        }
