"""Time and check the batches of a trial, and measure the window."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from loaderbench.api import Artifact, Loader, Work
from loaderbench.machine.counters import Memory, processes, tree_memory
from loaderbench.machine.gpu import Gpu, GpuLoad, GpuSample
from loaderbench.records.timeline import Timeline
from loaderbench.trial import device, window_counters
from loaderbench.trial.checks import EpochTotals, Glimpses, InvalidWorkError, LabelCounts, check_batch, pair
from loaderbench.trial.clock import AHEAD
from loaderbench.trial.device import Copies
from loaderbench.trial.file_barrier import FileBarrier
from loaderbench.trial.spec import Window
from loaderbench.trial.window_counters import CounterSample

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_LEFT_PER_WORKER = 8
"""Batches of an epoch that must be left at the pause, for each worker: twice what shipped loaders prefetch at most."""
LEAD = AHEAD + 1
"""Maximum number of batches by which a rank can lead another in synchronous training.

To finish a step, a rank needs the reduced gradients of the step `AHEAD` before it. By then every rank has finished the
step before that one.
"""


@dataclass
class Meter:
    """Iterate over the loader's batches, timing and checking them; each `iter()` is one epoch.

    A consumer iterates until `done`, usually stopping in the middle of an epoch. Raises InvalidWorkError for a batch or
    an epoch that does not match `work`.
    """

    batches: Iterable[tuple[Tensor, Tensor]]
    artifact: Artifact
    work: Work
    window: Window
    gpu: Gpu
    begun: FileBarrier | None = None
    """All ranks or jobs have a batch, and warm-up begins. None: there is one process only."""
    opened: FileBarrier | None = None
    """All windows are open. Each stays open until then, and from then on for its length."""
    closed: FileBarrier | None = None
    """All windows are closed. Each process continues until then, and so still loads while others are measured."""
    ended: FileBarrier | None = None
    """All loaders are closed. A consumer that measures without a loader again waits until then."""
    copies: Copies | None = None
    """Copies batches to the device of the work. None: that is the CPU."""
    glimpses: Glimpses | None = None
    """Looks at batches before the window opens and after it closes. None: the loader reads no images."""
    timeline: Timeline = field(default_factory=Timeline)
    counters: list[CounterSample] = field(default_factory=list)
    """At the edges of the window."""
    memory: list[Memory] = field(default_factory=list)
    """After the first batch, unless that opens the window, which the reading would delay; and after the close. Without
    the raw times, which are the harness's own."""
    own_cpu_s: float = 0.0
    """CPU seconds of the readings that open and close the window."""
    memory_format: str = ""
    batch_memory: str = ""
    delivered: int = 0
    """Images so far."""
    epochs: list[EpochTotals] = field(default_factory=list)
    """Those that are over, and the last one as far as it came."""
    begun_ns: int | None = None
    """When all processes had a batch."""
    opened_ns: int | None = None
    """When all windows were open."""
    forms: set[tuple[Any, ...]] = field(default_factory=set)
    """Shapes, strides and types of the checked batches, each once."""
    gpu_opened: GpuSample | None = None
    gpu_load: GpuLoad = field(default_factory=GpuLoad)
    done: bool = False
    wanted: bool = False
    """Whether the consumer wants more batches when everything is measured."""
    in_step: bool = False
    """Whether all ranks take each step together, so that all must be done after the same batch."""
    cut: int = 0
    """How many more batches than the loader made an epoch has, because the DataModule split some for the ranks."""

    def __post_init__(self) -> None:
        self.timeline.workers = self.work.workers

    @contextmanager
    def fed_by(self, loader: Loader, work: Work) -> Iterator[None]:
        """Take the batches from a loader opened for `work`, until the block ends."""
        with loader.stream(self.artifact, work) as self.batches:
            yield
            del self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        times = self.timeline
        asked_ns, labels_seen = perf_counter_ns(), LabelCounts(self.artifact.classes)
        times.epochs.append(len(times.exits_ns))
        for batch in self.batches:
            images_as_loaded, labels = pair(batch)
            images = self.copies.bring(images_as_loaded) if self.copies else images_as_loaded
            times.exits_ns.append(perf_counter_ns())
            times.asked_ns.append(asked_ns)
            # Looking at the values of every batch would slow the loader down and wait for a GPU.
            shape = images.shape
            form = (shape, images.stride(), images.dtype, images.device, labels.shape, labels.dtype)
            if form not in self.forms:
                self._check(images, labels)
                self.forms.add(form)
            self.delivered += shape[0]
            if edge := self._edge():
                self._wait_for_device()
            yield images, labels
            times.images.append(shape[0])
            labels_seen.add(labels)
            before_window = times.opened is None
            self._read_counters(edge)
            if self.glimpses and (before_window or times.closed is not None):
                self.glimpses.look(images)
            if self._is_over():
                self._note_epoch(labels_seen.total(), over=False)
                self.done = True
                return
            asked_ns = perf_counter_ns()
        self._end_epoch(labels_seen.total())
        self.done = len(self.epochs) == self.window.epochs

    def _check(self, images: Tensor, labels: Tensor) -> None:
        self.memory_format = check_batch(images, labels, self.work)
        self.batch_memory = self.copies.memory if self.copies else device.memory(images)

    def _edge(self) -> Literal["opened", "closed", ""]:
        """Return which edge of the window the newest batch is, if any."""
        times, now = self.timeline, len(self.timeline.exits_ns) - 1
        if times.opened is None:
            return "opened" if self._opens(now) else ""
        return "closed" if times.closed is None and self._closes(now, times.opened) else ""

    def _wait_for_device(self) -> None:
        """Move an edge of the window to when a GPU has finished all that it was given, and so has what was delivered.

        The loader is not waited for meanwhile; only the first batch has to arrive.
        """
        times, delivered_ns = self.timeline, self.timeline.exits_ns[-1]
        if device.finish():
            times.exits_ns[-1] = perf_counter_ns()
            if len(times.exits_ns) > 1:
                times.asked_ns[-1] += times.exits_ns[-1] - delivered_ns

    def _read_counters(self, edge: Literal["opened", "closed", ""]) -> None:
        """Open or close the window with the newest batch if it is an edge, and read the counters there."""
        times, now = self.timeline, len(self.timeline.exits_ns) - 1
        if now == 0 and not self.window.epochs:
            self._read_memory()
        if edge == "opened":
            times.opened = now
            with self._charged():
                self.counters.append(CounterSample.read())
                self.gpu_opened = self.gpu.open_window()
        elif edge == "closed":
            times.closed = now
            with self._charged():
                self.counters.append(CounterSample.read())
                self.gpu_load = self.gpu.close_window(self.gpu_opened, self._window_s())
                times.gpu_util_pct = self.gpu.utilisation_pct
            self._read_memory()

    def _window_s(self) -> float:
        first, last = self.timeline.window
        return (self.timeline.exits_ns[last] - self.timeline.exits_ns[first]) / 1e9

    def _read_memory(self) -> None:
        if reading := tree_memory(processes()):
            self.memory.append(reading.without(self.timeline.size_mib))

    @contextmanager
    def _charged(self) -> Iterator[None]:
        """Count the CPU time of a reading."""
        started_s = time.thread_time()
        yield
        self.own_cpu_s += time.thread_time() - started_s

    def _opens(self, now: int) -> bool:
        if self.window.epochs:
            return len(self.epochs) == self.window.epochs_before
        exits_ns = self.timeline.exits_ns
        if self.begun_ns is None and (self.begun is None or self.begun.reached(now + 1)):
            self.begun_ns = exits_ns[now]
        return self.begun_ns is not None and exits_ns[now] - self.begun_ns >= self.window.warmup_s * 1e9

    def _closes(self, now: int, opened: int) -> bool:
        if self.window.epochs:
            return self.delivered == self.artifact.samples * self.work.passes * self.window.epochs
        exits_ns = self.timeline.exits_ns
        if self.opened_ns is None and (self.opened is None or self.opened.reached(now + 1)):
            self.opened_ns = exits_ns[now if self.opened else opened]
        long_enough = self.opened_ns is not None and exits_ns[now] - self.opened_ns >= self.window.window_s * 1e9
        return long_enough and now - opened >= self.window.window_batches

    def _is_over(self) -> bool:
        """Return whether everything is measured."""
        times = self.timeline
        if self.wanted or times.closed is None or self.window.epochs:
            return False
        if self._first_epoch_ends_in_time():
            return False
        if self.closed and not self._all_closed(self.closed):
            return False
        return self.window.pause_s is None or self._prefetched_is_known(self.window.pause_s)

    def _first_epoch_ends_in_time(self) -> bool:
        """Return whether the first epoch is not over, and at the speed so far ends within the time that it may take."""
        times, exits_ns = self.timeline, self.timeline.exits_ns
        if times.complete or not self.window.whole_epoch_s:
            return False
        left = self.artifact.samples * self.work.passes // self.work.ranks - self.delivered
        left_ns = max(0, left) * (exits_ns[-1] - exits_ns[0]) / max(1, self.delivered - times.images[0])
        in_time = exits_ns[-1] + left_ns - times.asked_ns[0] <= self.window.whole_epoch_s * 1e9
        return in_time or left == 0  # then its end comes with the next request

    def _all_closed(self, closed: FileBarrier) -> bool:
        """Return whether all windows are closed; in synchronous training, after the batch at which all ranks know."""
        taken = len(self.timeline.exits_ns)
        return closed.reached(taken) and not (self.in_step and taken < closed.last + LEAD)

    def _prefetched_is_known(self, pause_s: float) -> bool:
        """Pause once where the epoch has enough batches left, then continue as long as batches were ready."""
        times = self.timeline
        if times.paused is not None:
            return times.prefetch_is_known()
        if self._batches_left_suffice():
            times.paused = len(times.exits_ns)
            time.sleep(pause_s)
        return False

    def _batches_left_suffice(self) -> bool:
        """Return whether the epoch has enough batches left for a pause; if it is short, half of them are enough."""
        work = self.work
        epoch = -(-self.artifact.samples * work.passes // (work.batch_size * work.ranks))
        left = epoch - (len(self.timeline.exits_ns) - self.timeline.epochs[-1])
        return left >= min(_LEFT_PER_WORKER * work.workers, epoch // 2)

    def _end_epoch(self, label_counts: NDArray[np.int64]) -> None:
        """Record a complete epoch."""
        self._note_epoch(label_counts, over=True)
        if len(self.epochs) == self.window.epochs and self.timeline.closed is None:
            raise InvalidWorkError("all images came in one batch; the window runs from the first batch to the last")
        self.timeline.complete += 1

    def _note_epoch(self, label_counts: NDArray[np.int64], *, over: bool) -> None:
        """Note what an epoch delivered. One that several ranks share is checked when all of them have reported."""
        images = self.timeline.images[self.timeline.epochs[-1] :]
        self.epochs.append(EpochTotals(sum(images), len(images) - self.cut, label_counts, over))
        if self.work.ranks == 1 or not images:
            self.epochs[-1].check(len(self.epochs), self.artifact, self.work)

    def for_peers(self) -> dict[str, Any]:
        """Return what `combined.columns` needs of each rank or job beside its columns."""
        return {"epochs": self.epochs, "first_asked_ns": self.timeline.asked_ns[0]}

    def columns(self) -> dict[str, Any]:
        """Return the measured columns of `Record`."""
        columns = self.timeline.columns()
        opened, closed = self.counters
        window_s, images = columns["window_s"], columns["window_images"]
        assert window_s
        assert images
        most = max(self.memory, key=lambda reading: reading.anon_mib, default=None)
        return {
            **columns,
            "memory_format": self.memory_format,
            "batch_memory": self.batch_memory,
            **window_counters.columns(opened, closed, window_s, images),
            "monitor_cpu_pct": 100 * self.own_cpu_s / window_s,
            "memory_mib": most.total_mib if most else None,
            "anon_memory_mib": most.anon_mib if most else None,
            **asdict(self.gpu_load),
            **(self.copies.clock.columns(self.timeline) if self.copies else {}),
        }
