"""Time each step of a loader's work in the process that does it, or let one step cost nothing."""

import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from loaderbench.doctor.batches import described

_READERS = {
    "PIL.Image": {"open": "read (PIL)"},
    "torchvision.io": {"read_file": "read", "read_image": "decode", "decode_image": "decode", "decode_jpeg": "decode"},
    "cv2": {"imread": "decode", "imdecode": "decode"},
    "simplejpeg": {"decode_jpeg": "decode"},
    "numpy": {"load": "read", "fromfile": "read"},
}
"""Functions that read and decode, by module, and the step that each belongs to."""
_METHODS = {"PIL.ImageFile": ("ImageFile", "load", "decode (PIL)"), "PIL.Image": ("Image", "convert", "convert (PIL)")}
SAMPLE, COLLATE, READER, DECODE = "sample", "collate", "the data set's loader", "decode"
_SLOTS, _NS = 65, 1e-9
_COLUMNS = 5  # calls, own wall, wall, CPU, queued


@dataclass(frozen=True)
class Step:
    """One step of a loader's work, over all processes."""

    calls: int
    """Calls that returned; of the step SAMPLE, the samples that they returned."""
    own_s: float
    """Wall time without that of other steps inside."""
    wall_s: float
    cpu_s: float
    """CPU time of the thread that does it."""
    queued_s: float
    """Time in which that thread could have run, but other processes had the cores."""

    @property
    def blocked_s(self) -> float:
        """Time in which it waited for something that was no core: storage, a network, a lock, other threads."""
        return max(self.wall_s - self.cpu_s - self.queued_s, 0.0)


def _once(_: Any) -> int:
    return 1


@dataclass(frozen=True)
class Point:
    """A place in the user's loader where a function can be replaced."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], None]
    count: Callable[[Any], int] = _once
    """For how many calls a call counts that returned this result."""


def points(loader: Any) -> Iterator[Point]:
    """Yield the steps of a torch DataLoader: each transform, the data set's reader, a whole sample, and collate.

    Raises NotImplementedError for samples of a class that is not written in Python.
    """
    yield _sample(loader)
    for dataset in levels(loader.dataset):
        if callable(getattr(dataset, "loader", None)):
            yield _attribute(READER, dataset, "loader")
        if callable(getattr(dataset, "transform", None)):
            yield from _transforms(dataset, "transform")
    yield _attribute(COLLATE, loader, "collate_fn")


def levels(dataset: Any) -> Iterator[Any]:
    """Yield a data set, then the one that it takes its samples from, as a Subset does, and so on."""
    seen: list[Any] = []
    while dataset is not None and not any(dataset is each for each in seen):
        yield dataset
        seen.append(dataset)
        dataset = getattr(dataset, "dataset", None)


def _sample(loader: Any) -> Point:
    """Return the step that makes a sample, or several at once, the way in which torch asks this data set for them."""
    from torch.utils.data import IterableDataset, Subset

    dataset = loader.dataset
    whole = loader.batch_sampler is None  # the data set makes batches itself
    count = (lambda batch: described(batch).samples) if whole else _once
    if isinstance(dataset, IterableDataset):
        return _iteration(type(dataset), count)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if not whole and callable(getattr(dataset, "__getitems__", None)):
        return _method(SAMPLE, type(dataset), "__getitems__", len)
    return _method(SAMPLE, type(dataset), "__getitem__", count)


def _attribute(name: str, of: Any, attribute: str) -> Point:
    return Point(name, lambda: getattr(of, attribute), lambda function: setattr(of, attribute, function))


def _method(name: str, kind: type, method: str, count: Callable[[Any], int] = _once) -> Point:
    if not isinstance(getattr(kind, method, None), FunctionType):
        raise NotImplementedError(f"steps are known of data sets written in Python, not of {kind.__name__}")
    return Point(name, lambda: getattr(kind, method), lambda function: setattr(kind, method, function), count)


def _iteration(kind: type, count: Callable[[Any], int]) -> Point:
    """Return the step that takes the next sample of a data set without an index."""
    original = kind.__iter__  # type: ignore[attr-defined] # every IterableDataset has it

    def put(following: Callable[[Iterator[Any]], Any]) -> None:
        def iterate(dataset: Any) -> Iterator[Any]:
            samples = original(dataset)  # `iter` would call this function again for one that iterates over itself
            with suppress(StopIteration):
                while True:
                    yield following(samples)

        kind.__iter__ = iterate  # type: ignore[attr-defined] # see above

    return Point(SAMPLE, lambda: next, put, count)


def _transforms(of: Any, attribute: str) -> Iterator[Point]:
    """Yield each transform of a Compose, also of one inside another object, or the transform that stands there."""
    transform = parts = getattr(of, attribute)
    while not isinstance(parts, list) and hasattr(parts, "transforms"):
        parts = parts.transforms
    if isinstance(parts, list):
        seen: dict[str, int] = {}
        for place, part in enumerate(parts):
            name = _name(part)
            seen[name] = seen.get(name, 0) + 1
            label = f"transform {name}" + (f" ({seen[name]})" if seen[name] > 1 else "")
            yield Point(label, lambda p=place: parts[p], lambda f, p=place: parts.__setitem__(p, f))  # type: ignore[misc]
    else:
        yield _attribute(f"transform {_name(transform)}", of, attribute)


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def replay(point: Point) -> None:
    """Let a step return its first result again and again; collate copies it into new memory, which a batch needs."""
    original = point.get()
    results: list[Any] = []

    def first(*given: Any, **named: Any) -> Any:
        if not results:
            results.append(original(*given, **named))
        return _copied(results[0]) if point.name == COLLATE else results[0]

    point.put(first)


def _copied(batch: Any) -> Any:
    """Return a batch with copies of its tensors; in a worker they lie in shared memory, as torch collates them."""
    import torch
    from torch.utils._pytree import tree_map
    from torch.utils.data import default_collate

    return tree_map(lambda value: default_collate([value])[0] if isinstance(value, torch.Tensor) else value, batch)


class Timer:
    """Times steps in this process and in worker processes that are forked later."""

    def __init__(self) -> None:
        self._names: list[str] = []
        size = _SLOTS * 64 * _COLUMNS * 8
        self._table = np.frombuffer(mmap.mmap(-1, size)).reshape(_SLOTS, 64, _COLUMNS)
        self._pixels = np.frombuffer(mmap.mmap(-1, _SLOTS * 2 * 8)).reshape(_SLOTS, 2)  # their sum, and images
        self._local = threading.local()

    def time(self, point: Point) -> None:
        """Time the step at this point from now on."""
        point.put(self._timed(point.name, point.get(), point.count))

    def time_readers(self) -> None:
        """Time the functions of imported libraries that read and decode, wherever the user's modules hold them."""
        for module, functions in _READERS.items():
            for function, name in functions.items():
                if module in sys.modules and hasattr(sys.modules[module], function):
                    original = getattr(sys.modules[module], function)
                    _replace_everywhere(original, self._timed(name, original))
        for module, (kind, method, name) in _METHODS.items():
            if module in sys.modules:
                self.time(_method(name, getattr(sys.modules[module], kind), method))

    def reset(self) -> None:
        """Forget what was timed so far."""
        self._table[:] = 0
        self._pixels[:] = 0

    def steps(self) -> dict[str, Step]:
        """Return what was timed in all processes, by step."""
        sums = self._table.sum(axis=0)
        return {
            name: Step(int(sums[i, 0]), *(float(value) for value in sums[i, 1:]))
            for i, name in enumerate(self._names)
            if sums[i, 0]
        }

    def decoded_pixels(self) -> float | None:
        """Return the mean pixels of a decoded image; None if no function decoded one."""
        pixels, images = self._pixels.sum(axis=0)
        return float(pixels / images) if images else None

    def _timed(
        self, name: str, function: Callable[..., Any], count: Callable[[Any], int] = _once
    ) -> Callable[..., Any]:
        if name not in self._names:
            self._names.append(name)
        place, local = self._names.index(name), self._local

        def run(*given: Any, **named: Any) -> Any:
            outer, local.inner = getattr(local, "inner", 0.0), 0.0
            calls = 0
            queued, cpu, begun = _queued_s(), time.thread_time(), time.perf_counter()
            try:
                result = function(*given, **named)
                calls = count(result)
                if name.startswith(DECODE) and (pixels := _pixels_of(given[0] if result is None else result)):
                    self._pixels[_slot()] += (pixels, 1)
                return result
            finally:
                wall = time.perf_counter() - begun
                own = wall - local.inner
                spent = (calls, own, wall, time.thread_time() - cpu, _queued_s() - queued)
                self._table[_slot(), place] += spent
                local.inner = outer + wall

        return run


def _pixels_of(image: Any) -> int:
    """Return height times width of a tensor, an array or an image of Pillow."""
    if hasattr(image, "size") and isinstance(image.size, tuple):
        return int(image.size[0] * image.size[1])
    return max(int(np.prod(image.shape)) // 3, 0) if hasattr(image, "shape") else 0


def _slot() -> int:
    """Return the row of this process: the main process has the first one."""
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return info.id % (_SLOTS - 1) + 1 if info else 0


def _queued_s() -> float:
    """Return how long this thread has waited for a core so far; 0 where the kernel does not tell (proc(5))."""
    try:
        descriptor = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
    except OSError:
        return 0.0
    try:
        return int(os.read(descriptor, 100).split()[1]) * _NS
    finally:
        os.close(descriptor)


def _replace_everywhere(original: Any, function: Any) -> None:
    """Replace a library's function in every module that holds it by name."""
    for module in list(sys.modules.values()):
        names = [name for name, value in list(getattr(module, "__dict__", {}).items()) if value is original]
        for name in names:
            setattr(module, name, function)
