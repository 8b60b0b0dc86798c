"""Describe a batch of any make: tensors and arrays in tuples, lists, dicts and objects."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Batch:
    """What a batch consists of."""

    samples: int
    """The length of its first array; of a batch without arrays, its own."""
    bytes: int
    arrays: tuple[str, ...]
    """Shape and type of each array, for example "128 x 3 x 224 x 224 float32"."""
    float_bytes: int
    """Bytes of the floating-point arrays with two or more dimensions."""


def described(batch: Any) -> Batch:
    """Return what a batch consists of. Raises TypeError for one without an array or a length."""
    arrays = list(_arrays(batch))
    if not arrays:
        if not hasattr(batch, "__len__"):
            raise TypeError(f"a batch is {type(batch).__name__}, which holds no tensor or array")
        return Batch(len(batch), 0, (), 0)
    return Batch(
        samples=int(next((array.shape[0] for array in arrays if len(array.shape)), 1)),
        bytes=sum(int(array.nbytes) for array in arrays),
        arrays=tuple(_shown(array) for array in arrays),
        float_bytes=sum(int(array.nbytes) for array in arrays if "float" in str(array.dtype) and len(array.shape) > 1),
    )


def _shown(array: Any) -> str:
    shape = " x ".join(map(str, array.shape)) or "one"
    return f"{shape} {str(array.dtype).removeprefix('torch.')}"


def _arrays(value: Any) -> Iterator[Any]:
    if hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "nbytes"):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _arrays(part)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for part in value:
            yield from _arrays(part)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _arrays(getattr(value, part.name))
