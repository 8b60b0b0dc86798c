"""Read any torch dataset of (image, label) pairs, named as `module:object`; its pixels become PNG files, losslessly.

The object is a dataset, or a callable that returns one. It is imported from the current folder or the environment, and
so runs the user's own code, in worker processes too.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache, partial
from operator import index
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loaderbench.images.archives import Reject
from loaderbench.images.decoding import Unreadable, rgb
from loaderbench.images.tree import SourceError
from loaderbench.images.unpack import Archive, Sample, Shard
from loaderbench.machine.workers import Mapping, map_processes

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_PER_SHARD = 4096
_CHANNELS = 3


def find(name: str) -> Archive | None:
    """Return the images of the dataset with a name `module:object`, else None for another name. Raises SourceError."""
    if not _NAME.fullmatch(name) or Path(name).exists():
        return None
    dataset = _load(name)
    length = len(dataset)
    if not length:
        raise SourceError(f"{name} is empty")
    key = hashlib.sha256(f"{name} {length}".encode())
    for place in sorted({0, length // 2, length - 1}):
        key.update(str(_sample(name, place)).encode())
    classes = tuple(map(str, getattr(dataset, "classes", None) or ()))
    shards = partial(_shards, name, length)
    return Archive(f"the dataset {name}", (), shards, length, classes=classes, key=key.hexdigest())


@cache
def _load(name: str) -> Any:
    """Return the dataset. Raises SourceError."""
    module, _, path = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
        found = found() if callable(found) and not hasattr(found, "__getitem__") else found
    except Exception as error:
        raise SourceError(f"{name} cannot be made: {type(error).__name__}: {error}") from error
    if not (hasattr(found, "__getitem__") and hasattr(found, "__len__")):
        what = "is iterable only" if hasattr(found, "__iter__") else f"is of type {type(found).__name__}"
        raise SourceError(f"{name} {what}; a dataset with __getitem__ and __len__ is needed")
    return found


def _shards(name: str, length: int, _: Reject) -> Iterator[Shard]:
    with map_processes(partial(_sample, name)) as read:
        for start in range(0, length, _PER_SHARD):
            yield Shard(partial(_samples, name, read, range(start, min(start + _PER_SHARD, length))))


def _samples(name: str, read: Mapping, places: range, _: Reject) -> Iterator[Sample]:
    for place, (label, png) in zip(places, read(places), strict=True):
        yield Sample(label, f"{place:09d}.png", png, f"{name}[{place}]")


def _sample(name: str, place: int) -> tuple[int, bytes]:
    """Return the label and the PNG file of an item. Raises SourceError."""
    try:
        item = _load(name)[place]
    except Exception as error:
        raise SourceError(f"{name}[{place}] raised {type(error).__name__}: {error}") from error
    try:
        image, label = item
        pixels, number = _pixels(image), index(label.item() if hasattr(label, "item") else label)
    except Unreadable as error:
        raise SourceError(f"{name}[{place}] {error}") from None
    except (TypeError, ValueError):
        told = f"is {type(item).__name__}, not a pair of an image and an integer label"
        raise SourceError(f"{name}[{place}] {told}") from None
    return number, cv2.imencode(".png", pixels[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _pixels(image: Any) -> NDArray[np.uint8]:
    """Return the pixels of a PIL image, an array (H x W or H x W x C) or a tensor (C x H x W): RGB, H x W x 3.

    Raises Unreadable.
    """
    if isinstance(image, Image.Image):
        return np.asarray(rgb(image))
    if image is None:
        raise Unreadable("has None for its image")
    is_tensor = hasattr(image, "permute")
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise Unreadable(f"has an image of {array.dtype}; return PIL images or uint8, without ToTensor and Normalize")
    array = array.transpose(1, 2, 0) if is_tensor and array.ndim == _CHANNELS else array
    array = array[:, :, None] if array.ndim < _CHANNELS else array
    if array.ndim != _CHANNELS or array.shape[2] not in {1, _CHANNELS}:
        raise Unreadable(f"has an image of shape {array.shape}; 1 or 3 channels are needed")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], _CHANNELS)))
