"""Run the user's loader once in this process, with one thing changed, and return what was seen."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from statistics import median
from typing import Any

import psutil

from loaderbench.doctor import changes, readers, steps
from loaderbench.doctor.batches import Batch, described
from loaderbench.doctor.changes import Built, Change
from loaderbench.doctor.steps import Step
from loaderbench.machine.counters import processes, tree_seconds

_WARM_UP_S, _FEWEST_BATCHES, _LARGEST_ROUND, _LONGEST = 1.0, 4, 8, 6
"""Seconds before the window opens; the fewest batches in it; the most workers whose batches it takes in whole rounds;
its longest duration over the length asked for."""
_MEMORY_READINGS = 10
_SHOWN = ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory", "batch_size")


class TargetError(Exception):
    """The user's callable, or what it returned, cannot be used. The message says why."""


@dataclass(frozen=True)
class Experiment:
    """What one run does."""

    target: str
    """`module:callable`, which returns an iterable of batches or a Lightning DataModule."""
    folder: str
    """Where the module is looked for first."""
    seconds: float
    """Length of the window."""
    change: Change = field(default_factory=Change)


@dataclass(frozen=True)
class Observation:
    """What one run saw. Times are in seconds; a wait is the time from asking for a batch to having it."""

    kind: str
    """What people call the loader's class."""
    settings: dict[str, Any]
    """Of a DataLoader; empty for others."""
    batch: Batch
    open_s: float
    """How long the user's callable took."""
    first_s: float
    """Wait for the first batch of the first epoch."""
    window_s: float
    batches: int
    samples: int
    epochs: int
    """Epochs that began in the window."""
    epoch_waits_s: tuple[float, ...]
    """Waits for the first batches of those."""
    waits_s: tuple[float, ...]
    """All other waits."""
    inside_s: float | None
    """Time in the window that the main process spent in the DataLoader itself; None if the loader is none."""
    cpu_s: float
    """CPU time of all processes in the window."""
    main_cpu_s: float
    memory: tuple[tuple[int, float], ...]
    """(batches since the window opened, MiB that belong to the processes alone), over the window."""
    steps: dict[str, Step]
    """What was timed in all processes, by step; empty if nothing was."""
    decoded_pixels: float | None
    """Mean pixels of a decoded image; None if no known function decoded one."""

    @property
    def samples_per_s(self) -> float:
        """Return the speed over the window, the beginnings of epochs included."""
        return self.samples / self.window_s

    @property
    def batch_s(self) -> float:
        """Return the mean time per batch."""
        return self.window_s / self.batches


def run(experiment: Experiment) -> dict[str, Any]:
    """Run an experiment, as a task of a child process; return the report with the Observation."""
    sys.path.insert(0, experiment.folder)
    change, timer = experiment.change, steps.Timer()
    with changes.applied(change) as built:
        begun = time.perf_counter()
        make = callable_of(experiment.target)
        loader = opened(make)
        open_s = time.perf_counter() - begun
        built.choose(loader)
        if change.replayed or change.reader or change.timed:
            _prepare(built, change, timer)
        if change.without_wrapper:
            loader = built.loader
        inside = _Inside(built)
        observation = _observe(loader, make, built, inside, timer, experiment.seconds, open_s)
    return {"status": "ok", "reason": "", "observation": observation}


def time_step(task: tuple[Experiment, str]) -> dict[str, Any]:
    """Time the user's training step on one batch, again and again, as a task of a child process; return the report."""
    experiment, step = task
    sys.path.insert(0, experiment.folder)
    act, batch = callable_of(step), next(iter(opened(callable_of(experiment.target))))
    times: list[float] = []
    until = time.perf_counter() + experiment.seconds
    while len(times) < _FEWEST_BATCHES or time.perf_counter() < until:
        begun = time.perf_counter()
        act(batch)
        if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
            sys.modules["torch"].cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return {"status": "ok", "reason": "", "step_s": median(times)}


def callable_of(target: str) -> Callable[..., Any]:
    """Return the user's callable. Raises TargetError."""
    module, _, name = target.partition(":")
    found = import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise TargetError(f"module {module} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise TargetError(f"{target} is no function that returns a loader, but {type(found).__name__}")
    made: Callable[..., Any] = found
    return made


def opened(make: Callable[[], Any]) -> Any:
    """Return the iterable that the user's callable makes, of a Lightning DataModule that for training."""
    made = make()
    if hasattr(made, "train_dataloader"):
        made.prepare_data()
        made.setup("fit")
        made = made.train_dataloader()
    if not hasattr(made, "__iter__"):
        raise TargetError(f"the callable returned no iterable of batches, but {type(made).__name__}")
    return made


def _prepare(built: Built, change: Change, timer: steps.Timer) -> None:
    if built.loader is None or changes.name_of(built.loader) != "DataLoader":
        raise NotImplementedError("steps are known of torch DataLoaders with a data set by index only")
    found = list(steps.points(built.loader))
    if change.reader:
        readers.change(change.reader, found, steps.innermost(built.loader.dataset))
    for point in found:
        if point.name in change.replayed:
            steps.replay(point)
    if change.timed:
        timer.time_readers()
        for point in found:
            timer.time(point)


class _Inside:
    """Measures the main process's time in the DataLoader that the user's code iterates."""

    def __init__(self, built: Built) -> None:
        self.spent_s = 0.0
        self.known = built.loader is not None and changes.name_of(built.loader) == "DataLoader"
        if self.known:
            from torch.utils.data import dataloader

            kind: Any = dataloader._BaseDataLoaderIter  # noqa: SLF001 - what all its iterators have in common
            original = kind.__next__

            def following(iterator: Any) -> Any:
                begun = time.perf_counter()
                try:
                    return original(iterator)
                finally:
                    self.spent_s += time.perf_counter() - begun

            kind.__next__ = following


@dataclass(frozen=True)
class _Delivery:
    batch: Any
    wait_s: float
    first: bool
    """Whether it is the first one of its epoch."""


def _deliveries(loader: Any, make: Callable[[], Any]) -> Iterator[_Delivery]:
    """Yield batches, epoch after epoch. Calls `make` again for an iterator, which ends once. Raises TargetError."""
    begun = time.perf_counter()
    while True:
        first = True
        for batch in loader:
            yield _Delivery(batch, time.perf_counter() - begun, first)
            begun, first = time.perf_counter(), False
        if first:
            raise TargetError("the loader ended without a batch")
        if isinstance(loader, Iterator):
            loader = opened(make)


def _observe(  # noqa: PLR0913, PLR0917 - what a run consists of
    loader: Any,
    make: Callable[[], Any],
    built: Built,
    inside: _Inside,
    timer: steps.Timer,
    seconds: float,
    open_s: float,
) -> Observation:
    stream = _deliveries(loader, make)
    first = next(stream)
    batch = described(first.batch)
    _warm_up(stream, built)
    timer.reset()
    tree, inside_s = processes(), inside.spent_s
    cpu_s, main_s, opened_at = tree_seconds(tree), time.process_time(), time.perf_counter()
    waits: list[float] = []
    epoch_waits: list[float] = []
    memory: list[tuple[int, float]] = []
    samples = batches = 0
    window_s = 0.0
    workers = getattr(built.loader, "num_workers", 0)
    while goes_on(window_s, seconds, batches, workers):
        delivery = next(stream)
        batches, samples = batches + 1, samples + described(delivery.batch).samples
        (epoch_waits if delivery.first else waits).append(delivery.wait_s)
        window_s = time.perf_counter() - opened_at
        if len(memory) < _MEMORY_READINGS * window_s / seconds:
            memory.append((batches, _own_mib()))
    return Observation(
        kind=changes.name_of(loader if built.loader is None else built.loader),
        settings={name: getattr(built.loader, name, None) for name in _SHOWN} if built.loader is not None else {},
        batch=batch,
        open_s=open_s,
        first_s=first.wait_s,
        window_s=window_s,
        batches=batches,
        samples=samples,
        epochs=len(epoch_waits),
        epoch_waits_s=tuple(epoch_waits),
        waits_s=tuple(waits),
        inside_s=inside.spent_s - inside_s if inside.known else None,
        cpu_s=tree_seconds(processes()) - cpu_s,
        main_cpu_s=time.process_time() - main_s,
        memory=tuple(memory),
        steps=timer.steps(),
        decoded_pixels=timer.decoded_pixels(),
    )


def goes_on(window_s: float, seconds: float, batches: int, workers: int) -> bool:
    """Return whether a window takes another batch.

    Workers that began together deliver together, so a window of few batches ends with a whole round of theirs.
    """
    too_few = batches < _FEWEST_BATCHES or batches % max(min(workers, _LARGEST_ROUND), 1) != 0
    return window_s < seconds or (too_few and window_s < _LONGEST * seconds)


def _own_mib() -> float:
    """Return the memory of this process and its descendants, in MiB, without what is shared and without files.

    It is read from statm (proc(5)), which costs far less than the exact figure.
    """
    total = 0
    for process in processes():
        with suppress(psutil.Error):
            seen = process.memory_info()
            total += seen.rss - seen.shared
    return total / 2**20


def _warm_up(stream: Iterator[_Delivery], built: Built) -> None:
    """Take what is prefetched, so that the window begins with an empty store."""
    loader = built.loader
    ahead = (getattr(loader, "num_workers", 0) or 0) * (getattr(loader, "prefetch_factor", 0) or 0)
    until = time.perf_counter() + _WARM_UP_S
    while ahead > 0 or time.perf_counter() < until:
        next(stream)
        ahead -= 1
