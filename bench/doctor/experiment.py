"""Run the user's loader once in this process, with one thing changed, and return what was seen."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from loaderbench.doctor import changes, readers, steps, targets
from loaderbench.doctor.batches import Batch, described
from loaderbench.doctor.changes import Built, Change
from loaderbench.doctor.deliveries import Delivery, by_workers, deliveries
from loaderbench.doctor.memory import lasting, own_mib
from loaderbench.doctor.steps import Step
from loaderbench.doctor.targets import Make
from loaderbench.machine import child
from loaderbench.machine.cores import Cores, allowed_cores, cores
from loaderbench.machine.counters import processes, tree_seconds

_WARM_UP, _FEWEST_BATCHES, _LARGEST_ROUND, _LONGEST = 0.25, 4, 8, 6
"""Time before the window opens, over its length; the fewest batches in it; the most workers whose batches it takes in
whole rounds; its longest duration over the length asked for."""
_MOST_STEPS = 1000
_MEMORY_READINGS = 10
_SHOWN = ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory", "batch_size")


@dataclass(frozen=True)
class Experiment:
    """What one run does."""

    target: str
    """What names the loader: `module:callable`, `module:loader`, or a command that trains."""
    folder: str
    """Where the module or script is looked for first."""
    seconds: float
    """Length of the window."""
    change: Change = field(default_factory=Change)


@dataclass(frozen=True)
class Observation:
    """What one run saw. Times are in seconds; a wait is the time from asking for a batch to having it."""

    kind: str
    """What people call the loader's class."""
    settings: dict[str, Any]
    """Of a loader of a known class; empty for others. Those of a torch DataLoader include `prefetch_factor`."""
    batch: Batch
    open_s: float
    """How long the user's code took until it had the loader."""
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
    elsewhere: float
    """Share of the cores' time that other programs and the hypervisor took in the window, 0 to 1."""
    memory: tuple[tuple[int, float], ...]
    """(batches since the window opened, MiB that belong to its processes alone) of those that lived throughout."""
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
    begun = time.perf_counter()
    with changes.applied(experiment.change) as built:

        def observe(loader: Any, make: Make) -> dict[str, Any]:
            open_s = time.perf_counter() - begun
            return {"status": "ok", "reason": "", "observation": _observed(experiment, built, loader, make, open_s)}

        return targets.reach(experiment.target, experiment.folder, observe)


def _observed(experiment: Experiment, built: Built, loader: Any, make: Make, open_s: float) -> Observation:
    change, timer = experiment.change, steps.Timer()
    built.choose(loader)
    if change.replayed or change.reader or change.timed:
        _prepare(built, change, timer)
    inside = _Inside(built)
    if change.without_wrapper:
        loader = built.loader
    elif change.by_workers:
        loader = by_workers(loader, make, change.by_workers)
    return _observe(loader, make, built, inside, timer, experiment.seconds, open_s)


def time_step(task: tuple[Experiment, str | None]) -> dict[str, Any]:
    """Time the user's training step on one batch, again and again, as a task of a child process; return the report.

    The step is a function, or without its name what the command that trains does with a batch.
    """
    experiment, step = task
    times: list[float] = []

    def repeated(batch: Any) -> Iterator[Any]:
        while needs_step(times, experiment.seconds):
            begun = time.perf_counter()
            yield batch
            if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
                sys.modules["torch"].cuda.synchronize()
            times.append(time.perf_counter() - begun)

    def report() -> dict[str, Any]:
        return {"status": "ok", "reason": "", "step_s": median(times[1:])}  # the first one also sets up

    def by_function(loader: Any, make: Make) -> dict[str, Any]:
        act = targets.named(str(step), experiment.folder)
        for batch in repeated(next(deliveries(loader, make)).batch):
            act(batch)
        return report()

    def trained(batch: Any) -> Iterator[Any]:
        yield from repeated(batch)
        child.end(report)

    if step:
        return targets.reach(experiment.target, experiment.folder, by_function)
    words = targets.command_of(experiment.target)
    return targets.plainly(
        lambda: targets.run_command(words, experiment.folder, lambda loader: trained(next(iter(loader))))
    )


def needs_step(times: Sequence[float], seconds: float) -> bool:
    """Return whether another step must be timed after the first one, which also sets up."""
    if len(times) <= _FEWEST_BATCHES:
        return len(times) < 2 or sum(times) < _LONGEST * seconds  # noqa: PLR2004 - the first one does not count
    return sum(times) < seconds and len(times) < _MOST_STEPS


def _prepare(built: Built, change: Change, timer: steps.Timer) -> None:
    loader = built.loader
    if loader is None or not changes.is_torch(loader):
        raise NotImplementedError("steps are known of torch DataLoaders only")
    if loader.num_workers and _start_method(loader) != "fork":
        raise NotImplementedError("steps can be changed in forked workers only, and these are started in another way")
    found = list(steps.points(loader))
    if change.reader:
        readers.change(change.reader, found, loader.dataset)
    for point in found:
        if point.name in change.replayed:
            steps.replay(point)
    if change.timed:
        timer.time_readers()
        for point in found:
            timer.time(point)


def _start_method(loader: Any) -> str:
    """Return how the loader starts its workers, for example by fork."""
    context = loader.multiprocessing_context or sys.modules["torch"].multiprocessing
    return str(context.get_start_method())


class _Inside:
    """Measures the main process's time in the DataLoader that the user's code iterates."""

    def __init__(self, built: Built) -> None:
        self.spent_s = 0.0
        self.known = changes.is_torch(built.loader)
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


def _observe(  # noqa: PLR0913, PLR0917 - what a run consists of
    loader: Any,
    make: Make,
    built: Built,
    inside: _Inside,
    timer: steps.Timer,
    seconds: float,
    open_s: float,
) -> Observation:
    stream = deliveries(loader, make)
    first = next(stream)
    size = getattr(built.loader, "batch_size", None)
    batch = described(first.batch, size)
    _warm_up(stream, built, _WARM_UP * seconds)
    timer.reset()
    tree, inside_s = processes(), inside.spent_s
    cpu_s, machine, opened_at = tree_seconds(tree), cores(), time.perf_counter()
    waits: list[float] = []
    epoch_waits: list[float] = []
    memory: list[tuple[int, dict[int, float]]] = []
    samples, batches, epoch, window_s = 0, 0, 0, 0.0
    workers = getattr(built.loader, "num_workers", 0)
    while goes_on(window_s, seconds, batches, workers, epoch):
        delivery = next(stream)
        batches, samples = batches + 1, samples + described(delivery.batch, size).samples
        (epoch_waits if delivery.first else waits).append(delivery.wait_s)
        epoch = delivery.last_epoch if epoch_waits else 0
        window_s = time.perf_counter() - opened_at
        if len(memory) < _MEMORY_READINGS * window_s / seconds:
            memory.append((batches, own_mib()))
    cpu_s = tree_seconds(processes()) - cpu_s
    return Observation(
        kind=changes.name_of(loader if built.loader is None else built.loader),
        settings={name: getattr(built.loader, name) for name in _SHOWN if hasattr(built.loader, name)},
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
        cpu_s=cpu_s,
        elsewhere=_elsewhere_s(machine, cores(), cpu_s) / window_s / allowed_cores(),
        memory=tuple(lasting(memory)),
        steps=timer.steps(),
        decoded_pixels=timer.decoded_pixels(),
    )


def _elsewhere_s(opened: Cores, closed: Cores, own_s: float) -> float:
    """Return the CPU seconds that other programs and the hypervisor took between two readings."""
    return max(0.0, closed.busy_s - opened.busy_s - own_s) + closed.steal_s - opened.steal_s


def goes_on(window_s: float, seconds: float, batches: int, workers: int, epoch: int) -> bool:
    """Return whether a window takes another batch. `epoch`: batches in one, if one began in the window; otherwise 0.

    A window in which an epoch began lasts for whole epochs, so that it has its share of their beginnings. Workers that
    began together deliver together, so another window ends with a whole round of theirs.
    """
    whole = epoch or max(min(workers, _LARGEST_ROUND), 1)
    too_few = batches < _FEWEST_BATCHES or batches % whole != 0
    return window_s < seconds or (too_few and window_s < _LONGEST * seconds)


def _warm_up(stream: Iterator[Delivery], built: Built, shortest_s: float) -> None:
    """Take what is prefetched, so that the window begins with an empty store."""
    loader = built.loader
    ahead = (getattr(loader, "num_workers", 0) or 0) * (getattr(loader, "prefetch_factor", 0) or 0)
    until = time.perf_counter() + shortest_s
    while ahead > 0 or time.perf_counter() < until:
        next(stream)
        ahead -= 1
