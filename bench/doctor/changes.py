"""Change one thing of a loader that the user's code builds, without changing that code."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Reader = Literal["256 px copies", "local copies", "torchvision.io"]
_CLASSES = {"torch.utils.data.DataLoader": "DataLoader", "ffcv.loader.loader.Loader": "FFCV Loader"}
"""Loaders whose settings can be changed: import path of the class, and what people call it."""
_OF_WORKERS = {"prefetch_factor": None, "persistent_workers": False, "multiprocessing_context": None, "timeout": 0}
"""Settings that torch accepts only with workers, and their values without."""


@dataclass(frozen=True)
class Change:
    """What an experiment changes; the defaults change nothing."""

    settings: tuple[tuple[str, Any], ...] = ()
    """Arguments of the loader's class that replace those of the user's code."""
    sharing: str | None = None
    """How torch shares tensors between processes: `file_descriptor` or `file_system`."""
    library_threads: int | None = None
    """Threads of torch, OpenCV and Numba in each worker process."""
    as_bytes: bool = False
    """Hand floating-point batches over as one byte per value. The values are lost; the number of bytes counts."""
    replayed: tuple[str, ...] = ()
    """Steps of the loader's work that return their first result again and again, and so cost nothing."""
    reader: Reader | None = None
    """What the data set's function that reads a file does instead."""
    without_wrapper: bool = False
    """Iterate the DataLoader itself, and not what the user's code makes of its batches."""
    timed: bool = False
    """Time each step."""


class Built:
    """The loaders of known classes that the user's code has built."""

    def __init__(self) -> None:
        self.loaders: list[Any] = []
        self.loader: Any | None = None
        """The one under examination; None: it is of no known class."""

    def choose(self, returned: Any) -> None:
        """Choose the loader that was returned, or else the last one, whose batches the user's code changes."""
        chosen = [loader for loader in self.loaders if loader is returned] or self.loaders
        self.loader = chosen[-1] if chosen else None


@contextmanager
def applied(change: Change) -> Iterator[Built]:
    """Build loaders with the change inside the block."""
    built, originals = Built(), []
    if change.sharing:
        import_module("torch.multiprocessing").set_sharing_strategy(change.sharing)
    try:
        for path in _CLASSES:
            with suppress(ImportError):
                module, _, name = path.rpartition(".")
                kind = getattr(import_module(module), name)
                originals.append((kind, kind.__init__))
                kind.__init__ = _changed(kind, change, built)
        yield built
    finally:
        for kind, original in originals:
            kind.__init__ = original


def name_of(loader: Any) -> str:
    """Return what people call the loader's class."""
    kind = type(loader)
    return _CLASSES.get(f"{kind.__module__}.{kind.__qualname__}", _plain(kind))


def _plain(kind: type) -> str:
    package = kind.__module__.partition(".")[0]
    return kind.__qualname__ if package in ("builtins", "__main__", "torch") else f"{kind.__qualname__} of {package}"


def _changed(kind: type, change: Change, built: Built) -> Callable[..., None]:
    original: Callable[..., None] = kind.__init__  # type: ignore[misc] # the class's own
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *given: Any, **named: Any) -> None:
        if type(self).__init__ is not init:  # a subclass that has decided by its settings already
            original(self, *given, **named)
            return
        bound = signature.bind(self, *given, **named)
        bound.arguments.update(change.settings)
        if bound.arguments.get("num_workers", 0) == 0:
            bound.arguments.update({name: value for name, value in _OF_WORKERS.items() if name in signature.parameters})
        original(*bound.args, **bound.kwargs)
        if change.library_threads:
            self.worker_init_fn = _WithThreads(getattr(self, "worker_init_fn", None), change.library_threads)
        if change.as_bytes:
            self.collate_fn = _AsBytes(self.collate_fn)
        built.loaders.append(self)

    return init


@dataclass
class _WithThreads:
    """Sets the threads of all libraries after what the user's own function does in a new worker."""

    of_user: Callable[[int], None] | None
    threads: int

    def __call__(self, worker: int) -> None:
        if self.of_user:
            self.of_user(worker)
        for module, function in (("torch", "set_num_threads"), ("cv2", "setNumThreads"), ("numba", "set_num_threads")):
            with suppress(ImportError):
                getattr(import_module(module), function)(self.threads)


@dataclass
class _AsBytes:
    """Converts each floating-point tensor of a batch to bytes, in the worker that made it."""

    collate: Callable[[Any], Any]

    def __call__(self, samples: Any) -> Any:
        import torch
        from torch.utils._pytree import tree_map

        def narrow(value: Any) -> Any:
            wide = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 1
            return value.to(torch.uint8) if wide else value

        return tree_map(narrow, self.collate(samples))
