"""Let all of FFCV's loaders in one process share compiled functions. Otherwise each compiles its own, for seconds."""

from __future__ import annotations

from collections.abc import Hashable
from types import FunctionType
from typing import Any

import numpy as np


def compile_once() -> None:
    """Replace FFCV's way of compiling by one that compiles each function once for the same values that it uses."""
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.graph import Graph, Node

    compiling, begin = Compiler.compile, Graph.__init__
    compiled: dict[Hashable, tuple[FunctionType, Any]] = {}

    def compile_(code: Any, signature: Any = None) -> Any:
        if not isinstance(code, FunctionType):
            return compiling(code, signature)
        how = (signature, Compiler.num_threads, getattr(code, "is_parallel", False))
        key = (code.__code__, *how, *map(_comparable, _used(code)))
        if key not in compiled:
            compiled[key] = code, compiling(code, signature)  # what `code` uses lives on, so that no `id` comes again
        return compiled[key][1]

    def numbered_from_0(self: Any, *args: Any, **keys: Any) -> None:
        Node.last_node_id = 0  # the numbers are in the names of the functions that are compiled
        begin(self, *args, **keys)

    Compiler.compile, Graph.__init__ = compile_, numbered_from_0


def _used(code: FunctionType) -> list[Any]:
    """Return the values from outside that a function uses; numba compiles them in as constants."""
    names = code.__code__.co_names
    return [cell.cell_contents for cell in code.__closure__ or ()] + [code.__globals__.get(name) for name in names]


def _comparable(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value
