"""How fast does one contestant deliver the work? Runs in a fresh process and owns the clock."""

from __future__ import annotations

import importlib
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from loaderbench.api import CHANNELS, Artifact, Work
from loaderbench.campaign import pixel_values as values
from loaderbench.campaign import registry
from loaderbench.machine.cores import Cores, cores
from loaderbench.machine.counters import Counters, difference, tree_counters
from loaderbench.machine.cpu import tree_seconds
from loaderbench.machine.gpu import Edge, Gpu, GpuLoad
from loaderbench.machine.memory import Memory, tree_memory
from loaderbench.machine.process_tree import processes
from loaderbench.records.timeline import Timeline
from loaderbench.trial import consumers, device
from loaderbench.trial.consumers.clock import AHEAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from loaderbench.api import Loader
    from loaderbench.trial.device import Copies

_LOOK_S = 0.01
LEAD = AHEAD + 1
"""Batches by which one rank can be ahead of another that takes the same steps. It ends a step when the gradients of all
are there for the step `AHEAD` before it, and then the others have ended the one before that.
"""


class InvalidWorkError(Exception):
    """The loader delivered something other than the work asked for."""


@dataclass(frozen=True)
class Epoch:
    """What came of an epoch."""

    images: int
    label_sum: int
    batches: int

    def check(self, number: int, artifact: Artifact, work: Work) -> None:
        """Raise InvalidWorkError unless it is the whole epoch, of all ranks."""
        expected = artifact.samples * work.passes
        if not expected <= self.images <= expected + (-expected % work.ranks):
            raise InvalidWorkError(f"epoch {number} delivered {self.images} images instead of {expected}")
        expected_sum = artifact.label_sum * work.passes
        if self.images == expected and self.label_sum != expected_sum:
            raise InvalidWorkError(f"the labels of epoch {number} add up to {self.label_sum} instead of {expected_sum}")
        # A loader may leave one partial batch per worker; more would be smaller batches than asked for.
        most = -(-expected // work.batch_size) + work.workers * work.ranks
        if self.batches > most:
            raise InvalidWorkError(
                f"epoch {number} came in {self.batches} batches, more than {most}: "
                "smaller than the batch size asked for"
            )


@dataclass(frozen=True)
class Window:
    """When the steady window opens and closes."""

    warmup_s: float
    """At least this long after the first batch."""
    window_s: float
    """At least this long."""
    window_batches: int
    """At least this many batches."""
    pause_s: float | None
    """After the window nothing is asked for so long; what is ready then is what the loader prepares ahead. None: that
    is not looked for."""
    whole_epoch: bool = True
    """Go on until the first epoch is over, to see that all of it came."""
    epochs: int = 0
    """In place of all that: from the first batch of the first epoch to the last of so many, while the data is read."""


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the measured columns of one trial's record.

    `spec`: loader, artifact, work, options, consumer, consumer_options, window, times (where to keep the raw times),
    result (beside which the processes of a trial leave notes for each other); place and places, if there are several:
    which of how many this is.
    """
    loader = registry.loader(spec["loader"])
    artifact = Artifact.from_dict(spec["artifact"])
    work = Work(**spec["work"])
    consume = consumers.prepare(spec["consumer"], artifact, work, spec["consumer_options"])
    place, places = spec.get("place", 0), spec.get("places", 1)
    ready, begun, opened, closed = (
        Milestone(name, Path(spec["result"]).parent, place, places) if places > 1 else None
        for name in ("ready", "begun", "opened", "closed")
    )
    if ready:  # what a consumer measures before there is a loader is not beside another's
        ready.wait()
    with Gpu() as gpu:
        started = perf_counter_ns()
        for name in loader.requires:
            importlib.import_module(name)
        imported = perf_counter_ns()
        timed = Timed(loader, spec["options"])
        window, copies = Window(**spec["window"]), device.copies(work)
        meter = Meter((), artifact, work, window, gpu, begun, opened, closed, copies)
        try:
            consumed = consume(timed, meter)
        except InvalidWorkError as error:
            return {"status": "invalid", "reason": str(error)}
    meter.timeline.save(Path(spec["times"]))
    return {
        "status": "ok",
        "reason": "",
        "import_s": (imported - started) / 1e9,
        **timed.columns,
        **meter.columns(),
        **consumed,
        **(meter.for_others() if places > 1 else {}),
    }


class Timed:
    """A contestant's loader with its options, as a consumer opens it: what do opening and closing it take?"""

    def __init__(self, loader: Loader, options: dict[str, Any]) -> None:
        self.requires, self.reads, self.streams = loader.requires, loader.reads, loader.streams
        self.columns: dict[str, float | int | None] = {}
        """Of `Record`: all when the loader is closed."""
        self._loader, self._options = loader, options

    @contextmanager
    def stream(self, artifact: Artifact, work: Work, **options: Any) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
        """Open it, once. `options`: further ones."""
        before = tree_counters(processes())
        constructing = perf_counter_ns()
        with self._loader.stream(artifact, work, **self._options, **options) as batches:
            self.columns["construct_s"] = (perf_counter_ns() - constructing) / 1e9
            yield batches
            after = tree_counters(processes())
            del batches
            ending = perf_counter_ns()
        self.columns["teardown_s"] = (perf_counter_ns() - ending) / 1e9
        self.columns["read_bytes"] = difference(before.read_bytes, after.read_bytes)


class Milestone:
    """Something that every rank or job comes to, by files in a folder that all see: to look costs some microseconds."""

    def __init__(self, name: str, folder: Path, place: int, places: int) -> None:
        self.last = 0
        """The most batches after which one has come to it, of those that are known."""
        self._own = folder / f"{name}{place}"
        self._missing = [folder / f"{name}{each}" for each in range(places)]

    def reached(self, batches: int) -> bool:
        """Say that this process has come to it after so many batches, and return whether all have."""
        if self._own in self._missing and not self._own.exists():
            partial = self._own.with_suffix(".partial")
            partial.write_text(str(batches))
            partial.rename(self._own)
        there = [path for path in self._missing if path.exists()]
        self.last = max([self.last, *(int(path.read_text()) for path in there)])
        self._missing = [path for path in self._missing if path not in there]
        return not self._missing

    def wait(self) -> None:
        """Wait until all have come to it."""
        while not self.reached(0):
            time.sleep(_LOOK_S)


@dataclass(frozen=True)
class Reading:
    """The state of the counters at one edge of the window."""

    cpu_s: float
    counters: Counters
    cores: Cores


@dataclass
class Meter:
    """The loader's batches on their way to a consumer, timed and checked: each `iter()` is an epoch. The consumer asks
    for one after the other until `done`, which is in the middle of one as a rule.

    Raises InvalidWorkError for a batch or an epoch that is not what the work asks for.
    """

    batches: Iterable[tuple[Tensor, Tensor]]
    artifact: Artifact
    work: Work
    window: Window
    gpu: Gpu
    begun: Milestone | None = None
    """All ranks or jobs have a batch: now warm-up begins. None: this is the only one."""
    opened: Milestone | None = None
    """All windows are open: so long each stays open, and from then on for its length."""
    closed: Milestone | None = None
    """All windows have closed: until then each goes on, for the others' sake."""
    copies: Copies | None = None
    """Bring batches to the device of the work. None: that is the CPU."""
    timeline: Timeline = field(default_factory=Timeline)
    readings: list[Reading] = field(default_factory=list)
    """At the window's edges."""
    memory: list[Memory] = field(default_factory=list)
    """After the first batch, unless that opens the window, for which it is too slow a reading; and after its close. The
    raw times, which are the harness's own, are taken off."""
    own_cpu_s: float = 0.0
    """CPU seconds that the readings took which open and close the window."""
    memory_format: str = ""
    batch_memory: str = ""
    delivered: int = 0
    """Images so far."""
    epochs: list[Epoch] = field(default_factory=list)
    """Those that are over."""
    begun_ns: int | None = None
    """When all had."""
    opened_ns: int | None = None
    """When all were."""
    forms: set[tuple[Any, ...]] = field(default_factory=set)
    """Shapes, strides and types of the batches that were checked, one of each."""
    gpu_opened: Edge | None = None
    gpu_load: GpuLoad = field(default_factory=GpuLoad)
    done: bool = False
    wanted: bool = False
    """Whether the consumer wants more batches when all else is over."""
    in_step: bool = False
    """Whether all ranks take each step together, so that all must be done after the same batch."""
    cut: int = 0
    """By so many an epoch has more batches than the loader made, since some were cut for the ranks to keep step."""

    @contextmanager
    def fed_by(self, loader: Loader, work: Work) -> Iterator[None]:
        """Open a loader for `work`, which gives the batches meanwhile."""
        with loader.stream(self.artifact, work) as self.batches:
            yield
            del self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        times = self.timeline
        asked_ns, label_sum = perf_counter_ns(), 0
        times.epochs.append(len(times.exits_ns))
        for images_as_loaded, labels in self.batches:
            images = self.copies.bring(images_as_loaded) if self.copies else images_as_loaded
            times.exits_ns.append(perf_counter_ns())
            times.asked_ns.append(asked_ns)
            # To look at each batch would cost the loader, and a GPU would have to be waited for.
            form = (images.shape, images.stride(), images.dtype, images.device, labels.shape, labels.dtype)
            if form not in self.forms:
                self._check(images, labels)
                self.forms.add(form)
            yield images, labels
            times.images.append(len(images))
            self.delivered += len(images)
            label_sum += int(labels.sum())
            self._edges()
            if self._is_over():
                self.done = True
                return
            asked_ns = perf_counter_ns()
        self._ends_epoch(label_sum)
        self.done = len(self.epochs) == self.window.epochs

    def _edges(self) -> None:
        """Open or close the window if this batch is its edge."""
        times, now = self.timeline, len(self.timeline.exits_ns) - 1
        if now == 0 and not self.window.epochs:
            self._read_memory()
        if times.opened is None:
            if self._opens(now):
                times.opened = now
                with self._charged():
                    self.readings.append(_read())
                    self.gpu_opened = self.gpu.open_window()
        elif times.closed is None and self._closes(now, times.opened):
            times.closed = now
            window_s = (times.exits_ns[now] - times.exits_ns[times.opened]) / 1e9
            with self._charged():
                self.readings.append(_read())
                self.gpu_load = self.gpu.close_window(self.gpu_opened, window_s)
                times.gpu_util_pct = self.gpu.utilisation_pct
            self._read_memory()

    def _read_memory(self) -> None:
        if reading := tree_memory(processes()):
            self.memory.append(reading.without(self.timeline.size_mib))

    @contextmanager
    def _charged(self) -> Iterator[None]:
        """Count what a reading costs."""
        started_s = time.thread_time()
        yield
        self.own_cpu_s += time.thread_time() - started_s

    def _opens(self, now: int) -> bool:
        if self.window.epochs:
            return True
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
        """Return whether nothing more is to be seen."""
        times = self.timeline
        if self.wanted or times.closed is None or self.window.epochs:
            return False
        if self.window.whole_epoch and not times.complete:
            return False
        if self.closed and not self._all_closed(self.closed):
            return False
        return self.window.pause_s is None or self._bank_is_known(self.window.pause_s)

    def _all_closed(self, closed: Milestone) -> bool:
        """Return whether all windows are; with ranks in step, as many batches later as all know it by."""
        taken = len(self.timeline.exits_ns)
        return closed.reached(taken) and not (self.in_step and taken < closed.last + LEAD)

    def _bank_is_known(self, pause_s: float) -> bool:
        """Pause once, then go on as long as batches come that were ready."""
        times = self.timeline
        if times.paused is None:
            times.paused = len(times.exits_ns)
            time.sleep(pause_s)
            return False
        return times.bank_is_known()

    def _check(self, images: Tensor, labels: Tensor) -> None:
        import torch

        size, count = self.work.image_size, len(images)
        if images.shape != (count, CHANNELS, size, size) or not 0 < count <= self.work.batch_size:
            raise InvalidWorkError(
                f"images of shape {tuple(images.shape)} instead of (n, {CHANNELS}, {size}, {size}) "
                f"with 1 to {self.work.batch_size} images"
            )
        if (dtype := str(images.dtype).removeprefix("torch.")) != self.work.dtype:
            raise InvalidWorkError(f"images of dtype {dtype} instead of {self.work.dtype}")
        if images.device.type != self.work.device:
            raise InvalidWorkError(f"images on {images.device.type} instead of {self.work.device}")
        if images.is_floating_point():  # of uint8 all values are right
            low, high = values.span(self.work)
            least, most = float(images[0].min()), float(images[0].max())
            if not low <= least <= most <= high:
                raise InvalidWorkError(
                    f"images with values from {least:g} to {most:g} instead of {low:.3g} to {high:.3g}"
                )
        if labels.shape != (count,) or labels.is_floating_point():
            raise InvalidWorkError(
                f"labels of shape {tuple(labels.shape)}, {labels.dtype} instead of ({count},), integer"
            )
        if labels.device.type != "cpu":  # there they are counted without waiting for a GPU
            raise InvalidWorkError(f"labels on {labels.device.type} instead of cpu")
        if images.is_contiguous():
            self.memory_format = "contiguous"
        elif images.is_contiguous(memory_format=torch.channels_last):
            self.memory_format = "channels_last"
        else:
            raise InvalidWorkError(f"images with strides {images.stride()}, neither contiguous nor channels_last")
        self.batch_memory = self.copies.memory if self.copies else device.memory(images)

    def _ends_epoch(self, label_sum: int) -> None:
        """Take down an epoch; one that all ranks share is checked when all have told what they got of it."""
        first = self.timeline.epochs[-1]
        images = self.timeline.images[first:]
        self.epochs.append(Epoch(sum(images), label_sum, len(images) - self.cut))
        if self.work.ranks == 1 or not images:
            self.epochs[-1].check(len(self.epochs), self.artifact, self.work)
        if len(self.epochs) == self.window.epochs and self.timeline.closed is None:
            raise InvalidWorkError("all came in one batch; the trial is measured from the first to the last")
        self.timeline.complete += 1

    def for_others(self) -> dict[str, Any]:
        """Return what is of use only beside what the other ranks or jobs tell."""
        epochs = [astuple(epoch) for epoch in self.epochs]
        return {"epochs": epochs, "first_asked_ns": self.timeline.asked_ns[0]}

    def columns(self) -> dict[str, Any]:
        """Return the measured columns."""
        columns = self.timeline.columns()
        opened, closed = self.readings
        window_s, images = columns["window_s"], columns["window_images"]
        assert window_s
        assert images
        cpu_s = closed.cpu_s - opened.cpu_s
        allowed = len(os.sched_getaffinity(0))
        others_s = closed.cores.busy_s - opened.cores.busy_s - cpu_s
        return {
            **columns,
            "memory_format": self.memory_format,
            "batch_memory": self.batch_memory,
            "cpu_s": cpu_s,
            "cpu_load_pct": 100 * cpu_s / window_s / allowed,
            "cores_used": cpu_s / window_s,
            "cpu_s_per_1k_images": 1000 * cpu_s / images,
            "other_cpu_pct": 100 * max(0.0, others_s) / window_s / allowed,
            "steal_pct": 100 * (closed.cores.steal_s - opened.cores.steal_s) / window_s / allowed,
            "major_faults": closed.counters.major_faults - opened.counters.major_faults,
            "context_switches": closed.counters.context_switches - opened.counters.context_switches,
            "throttle_events": closed.cores.throttle_events - opened.cores.throttle_events,
            "monitor_cpu_pct": 100 * self.own_cpu_s / window_s,
            "peak_memory_mib": max((m.total_mib for m in self.memory), default=None),
            "peak_anon_memory_mib": max((m.anon_mib for m in self.memory), default=None),
            **asdict(self.gpu_load),
            **(self.copies.clock.columns(self.timeline) if self.copies else {}),
        }


def _read() -> Reading:
    """Read all counters; CPU first, for it is what the window's length is held against."""
    tree = processes()
    return Reading(tree_seconds(tree), tree_counters(tree), cores())
