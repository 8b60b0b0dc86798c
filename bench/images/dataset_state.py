"""Digest what a dataset in Python is made of, so that the cache notices when that changes."""

import hashlib
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderbench.machine.code_digest import code_digest

_PLAIN = (str, bytes, int, float, complex, type(None), PurePath, np.generic)
_DEEPEST = 20
"""Levels of values in values that are read."""


def state(value: Any) -> str:
    """Return a digest of the values that an object holds, of the files that they name, and of its code.

    Values are numbers, texts, lists, dicts, arrays and tensors, also in other objects, such as transforms. A file
    counts by size and time; none is read. The code is that of the modules that define the objects, except Python's own.
    """
    walk = _Walk()
    walk.add(value)
    files = {Path(getattr(sys.modules.get(name), "__file__", None) or "none") for name in walk.modules}
    code = code_digest(sorted(file for file in files if file.suffix == ".py" and file.is_file()))
    return f"{walk.digest.hexdigest()} {code}"


def _array(value: Any) -> NDArray[Any] | None:
    """Return an array, a tensor or a data frame as an array, and None for another object."""
    if isinstance(value, np.ndarray):
        return value
    with suppress(Exception):
        if hasattr(value, "detach") and hasattr(value, "dtype"):  # text files have another `detach`
            return np.asarray(value.detach().cpu())
        if hasattr(value, "to_numpy"):
            return np.asarray(value.to_numpy())
    return None


class _Walk:
    """Visits all values of an object, each once."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.modules: set[str] = set()
        self._seen: dict[int, Any] = {}

    def add(self, value: Any, depth: int = 0) -> None:
        """Add a value and those in it to the digest."""
        self.digest.update(f"{type(value).__qualname__} ".encode())
        if isinstance(value, _PLAIN):
            self.digest.update(repr(value).encode())
            if isinstance(value, str | PurePath):
                self._add_file(value)
        elif id(value) not in self._seen and depth < _DEEPEST:
            self._seen[id(value)] = value  # kept, because the number of a freed object is used again
            for part in self._parts(value):
                self.add(part, depth + 1)
            self.digest.update(b";")

    def _add_file(self, path: str | PurePath) -> None:
        with suppress(OSError, ValueError):  # most texts are no paths
            status = os.stat(path)  # noqa: PTH116, a million Paths would take their time
            if stat.S_ISREG(status.st_mode):
                self.digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())

    def _parts(self, value: Any) -> Iterable[Any]:
        """Return the values that are in a value."""
        if isinstance(value, dict):
            return [part for pair in value.items() for part in pair]
        if isinstance(value, set | frozenset):
            return sorted(map(repr, value))
        if isinstance(value, list | tuple):
            return value
        if (array := _array(value)) is not None:
            return self._array_parts(array)
        return self._object_parts(value)

    def _array_parts(self, array: NDArray[Any]) -> Iterable[Any]:
        if isinstance(array, np.memmap):
            return str(array.filename), array.shape
        if array.dtype.hasobject:
            return [array.tolist()]
        self.digest.update(np.ascontiguousarray(array).data)
        return array.dtype.str, array.shape

    def _object_parts(self, value: Any) -> Iterable[Any]:
        """Return what a function, class, module or other object holds, and note the module that defines it."""
        is_code = hasattr(value, "__qualname__") or isinstance(value, ModuleType)
        defines = value.__name__ if isinstance(value, ModuleType) else (value if is_code else type(value)).__module__
        if not defines or defines.partition(".")[0] in sys.stdlib_module_names:
            return []
        self.modules.add(defines)
        return [] if is_code else [getattr(value, "__dict__", {})]
