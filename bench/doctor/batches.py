"""Describe a batch of any make: tensors and arrays in tuples, lists, dicts and objects."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Batch:
    """What a batch consists of."""

    samples: int
    bytes: int
    arrays: tuple[str, ...]
    """Shape and type of each array, for example "128 x 3 x 224 x 224 float32"."""
    float_bytes: int
    """Bytes of the floating-point arrays with two or more dimensions."""


def described(batch: Any, expected: int | None = None) -> Batch:
    """Return what a batch consists of. Raises TypeError for one without an array or a length.

    `expected`: the size of a full batch, if it is known. It decides if the batch may be read in several ways: a list of
    64 images of three channels each is a batch of 64 or of three.
    """
    arrays, sizes = list(_arrays(batch)), list(_sizes(batch))
    if not sizes:
        raise TypeError(f"a batch is {type(batch).__name__}, which holds no tensor or array")
    return Batch(
        samples=expected if expected in sizes else sizes[0],
        bytes=sum(int(array.nbytes) for array in arrays),
        arrays=tuple(_shown(array) for array in arrays),
        float_bytes=sum(int(array.nbytes) for array in arrays if "float" in str(array.dtype) and len(array.shape) > 1),
    )


def _shown(array: Any) -> str:
    shape = " x ".join(map(str, array.shape)) or "one"
    return f"{shape} {str(array.dtype).removeprefix('torch.')}"


def _is_array(value: Any) -> bool:
    return isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype") and hasattr(value, "nbytes")


def _parts(value: Any) -> list[Any] | None:
    """Return what a container holds, but no text; None if the value is no container."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    if is_dataclass(value):
        return [getattr(value, part.name) for part in fields(value)]
    return None


def _arrays(value: Any) -> Iterator[Any]:
    if _is_array(value):
        yield value
    else:
        for part in _parts(value) or ():
            yield from _arrays(part)


def _sizes(value: Any) -> Iterator[int]:
    """Yield how many samples a batch may have, the most likely number first."""
    if _is_array(value):
        yield int(value.shape[0]) if len(value.shape) else 1
        return
    parts = _parts(value)
    if parts is None:
        if hasattr(value, "__len__") and not isinstance(value, str | bytes):
            yield len(value)
        return
    inner = next(filter(None, (list(_sizes(part)) for part in parts)), [])
    if isinstance(value, Mapping) or is_dataclass(value):
        yield from inner
        return
    # A list of fields has the samples inside; a list of samples has few parts in each, all alike.
    if _alike(parts) and len(parts) > max(inner[:1], default=0):
        yield len(parts)
        yield from inner
    else:
        yield from inner
        yield len(parts)


def _alike(parts: Sequence[Any]) -> bool:
    """Return whether all parts may be samples: containers, or arrays of as many dimensions."""
    kinds = {len(part.shape) if _is_array(part) else type(part) for part in parts}
    return len(kinds) <= 1
