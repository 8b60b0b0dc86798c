"""Read pickles of text, numbers and arrays of integers, and build nothing that a pickle can shape."""

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INTEGERS = re.compile(r"[<>|][iu][1248]")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": object()}
_PLAIN = re.compile(r"INT|BININT[12]?|LONG[14]?|FLOAT|BINFLOAT|(SHORT_)?BINBYTES8?|(SHORT_BIN|BIN)?UNICODE8?")
"""Opcodes that push their argument."""


@dataclass
class _Type:
    """Stands for `numpy.dtype`."""

    code: str
    order: str = "|"

    def build(self, state: Any) -> None:
        self.order = _text(state[1])


class Array:
    """Stands for `numpy.ndarray`."""

    _state: Any = None

    def build(self, state: Any) -> None:
        """Keep the shape, the type and the content."""
        self._state = state

    def integers(self) -> NDArray[Any]:
        """Return the array, which is read only. Raises ValueError if it is not one of integers."""
        _, shape, kind, by_column, content = self._state
        if not isinstance(kind, _Type) or not _INTEGERS.fullmatch(kind.order + kind.code):
            raise ValueError("it has an array of something else than integers")
        return np.frombuffer(content, kind.order + kind.code).reshape(shape, order="F" if by_column else "C")


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


def _text(given: str | bytes) -> str:
    return given.decode("ascii") if isinstance(given, bytes) else given


_GLOBALS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": lambda *_: Array(),  # before numpy 2
    "numpy._core.multiarray._reconstruct": lambda *_: Array(),
    "numpy.ndarray": Array,
    "numpy.dtype": lambda code, *_: _Type(_text(code)),
    "_codecs.encode": _encoded,  # how Python 3 writes bytes in protocol 2
}


def load(content: bytes) -> Any:  # noqa: C901, PLR0912 - a case for each opcode
    """Return what is pickled. Text of Python 2 becomes bytes, and an array an `Array`.

    Raises UnpicklingError if the pickle refers to anything else, and any other exception if it is damaged.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    encodes_at_most = len(content)
    for opcode, argument, _ in pickletools.genops(content):
        match opcode.name:
            case "STOP":
                return stack.pop()
            case "PROTO" | "FRAME":
                pass
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if _PLAIN.fullmatch(name):
                stack.append(argument)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument.encode("latin1"))
            case "GLOBAL":
                stack.append(_global(*argument.split(" ")))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case name:
                _combine(name, stack)
                if isinstance(stack[-1], bytes):  # from a text that may be in the memo, for many more
                    encodes_at_most -= len(stack[-1])
                    if encodes_at_most < 0:
                        raise UnpicklingError("it encodes the same text again and again")
    raise UnpicklingError("it has no end")


def _combine(name: str, stack: list[Any]) -> None:
    """Do an opcode that takes objects from the stack."""
    match name:
        case "EMPTY_LIST":
            stack.append([])
        case "EMPTY_DICT":
            stack.append({})
        case "LIST" | "TUPLE" | "DICT":
            items = _since_mark(stack)
            stack.append(items if name == "LIST" else tuple(items) if name == "TUPLE" else _filled({}, items))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            stack[-int(name[-1]) :] = [tuple(stack[-int(name[-1]) :])]
        case "APPEND" | "APPENDS":
            items = _since_mark(stack) if name == "APPENDS" else [stack.pop()]
            stack[-1].extend(items)
        case "SETITEM" | "SETITEMS":
            items = _since_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _filled(stack[-1], items)
        case "STACK_GLOBAL":
            attribute = stack.pop()
            stack.append(_global(stack.pop(), attribute))
        case "REDUCE":
            arguments = stack.pop()
            stack.append(stack.pop()(*arguments))
        case "BUILD":
            state = stack.pop()
            stack[-1].build(state)
        case _:
            raise UnpicklingError(f"it uses the opcode {name}, which no batch needs; nothing was run")


def _since_mark(stack: list[Any]) -> list[Any]:
    """Remove and return the objects above the last mark, and remove the mark."""
    place = len(stack) - 1
    while stack[place] is not _CONSTANTS["MARK"]:
        place -= 1
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _filled(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    keys = items[::2]
    if not isinstance(target, dict) or not all(isinstance(key, bytes | str | int) for key in keys):
        raise UnpicklingError("it has a dictionary with other keys than text and numbers")
    target.update(zip(keys, items[1::2], strict=True))
    return target


def _global(module: str, name: str) -> Callable[..., Any]:
    found = f"{module}.{name}"
    if found not in _GLOBALS:
        raise UnpicklingError(f"it refers to {found}, which no batch needs; nothing was run")
    return _GLOBALS[found]
