"""Change one thing of a loader that the user's code builds, without changing that code."""

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any, Literal

Reader = Literal["256 px copies", "local copies", "torchvision.io"]
_TORCH = "torch.utils.data.dataloader"
_CLASSES = {
    f"{_TORCH}.DataLoader": "DataLoader",
    "ffcv.loader.loader.Loader": "FFCV Loader",
    "litdata.streaming.dataloader.StreamingDataLoader": "LitData StreamingDataLoader",
}
"""Loaders whose settings can be changed: import path of the class, and what people call it."""
_FEW = 16
"""Parts of a list among which a loader is looked for."""
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
    """Collate and hand over floating-point samples as one byte per value. The values are lost; the bytes count."""
    replayed: tuple[str, ...] = ()
    """Steps of the loader's work that return their first result again and again, and so cost nothing."""
    reader: Reader | None = None
    """What the data set's function that reads a file does instead."""
    without_wrapper: bool = False
    """Iterate the DataLoader itself, and not what the user's code makes of its batches."""
    by_workers: int | None = None
    """Number of worker processes that do all of the work, also what the main process does with batches."""
    timed: bool = False
    """Time each step."""


class Built:
    """The loaders of known classes that the user's code has built."""

    def __init__(self) -> None:
        self.loaders: list[Any] = []
        self.loader: Any | None = None
        """The one under examination; None: it is of no known class."""

    def choose(self, returned: Any) -> None:
        """Choose the loader that was returned, or the first one that what was returned holds."""
        held = list(_held(returned))
        self.loader = next((loader for loader in self.loaders if any(loader is each for each in held)), None)


def _held(value: Any, depth: int = 3) -> Iterator[Any]:
    """Yield an object, the values of its attributes, the variables of a generator, the parts of a list, and so on."""
    yield value
    frame = getattr(value, "gi_frame", None)
    attributes, variables = getattr(value, "__dict__", {}), frame.f_locals if frame else {}
    parts = value[:_FEW] if isinstance(value, list | tuple) else ()
    for part in [*attributes.values(), *variables.values(), *parts] if depth else ():
        yield from _held(part, depth - 1)


@contextmanager
def applied(change: Change) -> Iterator[Built]:
    """Build loaders with the change inside the block."""
    built, originals = Built(), []

    def put(kind: Any) -> None:
        originals.append((kind, kind.__init__))
        kind.__init__ = _changed(kind, change, built)

    if change.sharing:
        import_module("torch.multiprocessing").set_sharing_strategy(change.sharing)
    try:
        with when_imported(put):
            yield built
    finally:
        for kind, original in originals:
            kind.__init__ = original


@contextmanager
def when_imported(act: Callable[[Any], None]) -> Iterator[None]:
    """Call `act` with each known class of loaders: now, if it is imported, or else as soon as the block imports it."""
    finder = _Finder(act)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds the modules of known classes as Python does, and acts on the classes once such a module is imported."""

    def __init__(self, act: Callable[[Any], None]) -> None:
        self._act = act
        self._awaited = {path.rpartition(".")[0]: path.rpartition(".")[2] for path in _CLASSES}
        for module in set(self._awaited) & set(sys.modules):
            self._imported(sys.modules[module])

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        """Return how to import a module, if a known class is in it."""
        if fullname not in self._awaited:
            return None
        name = self._awaited.pop(fullname)
        spec = importlib.util.find_spec(fullname)
        self._awaited[fullname] = name
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def executing(module: Any) -> None:
                execute(module)
                self._imported(module)

            spec.loader.exec_module = executing  # type: ignore[method-assign] # of this module's loader alone
        return spec

    def _imported(self, module: Any) -> None:
        if kind := getattr(module, self._awaited.pop(module.__name__), None):
            self._act(kind)


def is_torch(loader: Any) -> bool:
    """Return whether an object is a torch DataLoader, or one of a class derived from it."""
    return _TORCH in sys.modules and isinstance(loader, sys.modules[_TORCH].DataLoader)


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
        bound = signature.bind(self, *given, **named)
        settings = dict(change.settings) | ({"num_workers": 0} if change.by_workers else {})
        if settings.get("num_workers", bound.arguments.get("num_workers", 0)) == 0:
            settings |= _OF_WORKERS
        bound.arguments.update({name: value for name, value in settings.items() if name in signature.parameters})
        original(*bound.args, **bound.kwargs)
        if any(self is each for each in built.loaders):
            return  # the class that this one is derived from has done the rest
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
    """Converts floating-point tensors to bytes: those of samples before they are collated, and those of the batch."""

    collate: Callable[[Any], Any]

    def __call__(self, samples: Any) -> Any:
        import torch
        from torch.utils._pytree import tree_map

        def narrow(value: Any) -> Any:
            wide = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 1
            return value.to(torch.uint8) if wide else value

        return tree_map(narrow, self.collate(tree_map(narrow, samples)))
