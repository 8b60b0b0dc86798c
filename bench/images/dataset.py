"""Read any torch dataset of (image, label) pairs; its pixels become PNG files, losslessly.

It is given as an object, or named as `module:object`: a dataset, or a callable that returns one. Both run the user's
own code, in worker processes too. A module is imported from the current folder or the environment.
"""

import hashlib
import importlib
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from operator import index
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loaderbench.images.archives import Reject
from loaderbench.images.dataset_state import state
from loaderbench.images.decoding import Unreadable, rgb
from loaderbench.images.tree import SourceError
from loaderbench.images.unpack import Archive, Sample, Shard
from loaderbench.machine.workers import Mapping, WorkerDiedError, map_processes

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_PER_SHARD = 4096
_PROBED = 16
"""Items, spread over the dataset, whose change is noticed."""
_CHANNELS = 3
_IN_A_MODULE = "put what makes it into a module, and name that: my_project.data:make_dataset"
_NEEDED = "a dataset with __getitem__ and __len__ is needed"


def find(data: Any) -> Archive | None:
    """Return the images of a dataset, or of the one with a name `module:object`; None for other text.

    Raises SourceError.
    """
    named = isinstance(data, str)
    if named and (not _NAME.fullmatch(data) or Path(data).exists()):
        return None
    name = data if named else type(data).__name__
    maker, dataset = _made(data) if named else (None, data)
    _check_usable(dataset, name)
    length = len(dataset)
    probed = sorted({round(part * (length - 1) / (_PROBED - 1)) for part in range(_PROBED)})
    key = hashlib.sha256(f"{name} {length} {state((maker, dataset))}".encode())
    for place in probed:
        sample = _sample(dataset, name, place)
        if sample != _sample(dataset, name, place):
            raise SourceError(f"{name}[{place}] differs each time that it is read; leave out random transforms")
        key.update(str(sample).encode())
    shards = partial(_shards, None if named else dataset, name, length)
    return Archive(f"the dataset {name}", (), shards, length, classes=_classes(dataset), key=key.hexdigest())


def _made(name: str) -> tuple[tuple[Any, Any], Any]:
    """Return what makes the dataset of this name, its module first, and the dataset. Raises SourceError."""
    module, _, path = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last, so that it hides no installed module
    try:
        found: Any = importlib.import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
        makes = callable(found) and (isinstance(found, type) or not hasattr(found, "__getitem__"))
        return (sys.modules[module], found), found() if makes else found
    except Exception as error:
        raise SourceError(f"{name} cannot be made: {type(error).__name__}: {error}") from error


def _check_usable(dataset: Any, name: str) -> None:
    """Raise SourceError unless the dataset has items that can be read by number."""
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        what = "is iterable only" if hasattr(dataset, "__iter__") else f"is of type {type(dataset).__name__}"
        raise SourceError(f"{name} {what}; {_NEEDED}")
    try:
        length = len(dataset)
    except Exception as error:
        raise SourceError(f"the length of {name} is unknown: {type(error).__name__}: {error}") from error
    if not length:
        raise SourceError(f"{name} is empty")


def _classes(dataset: Any) -> tuple[str, ...]:
    """Return the names of the classes, also of the dataset that a `Subset` is of; empty if there are none."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    return tuple(map(str, classes)) if isinstance(classes, Sequence) and not isinstance(classes, str) else ()


def _shards(given: Any, name: str, length: int, _: Reject) -> Iterator[Shard]:
    """Yield the parts of the dataset `given`, or of the one with this name if that is None."""
    with TemporaryDirectory(prefix="loaderbench-") as folder:
        origin = name if given is None else _pickled(given, name, Path(folder))
        with map_processes(partial(_sample_of, origin, name)) as read:
            for start in range(0, length, _PER_SHARD):
                yield partial(_samples, name, read, range(start, min(start + _PER_SHARD, length)))


def _pickled(dataset: Any, name: str, folder: Path) -> Path:
    """Pickle the dataset into a file, because worker processes would get a copy for each item otherwise."""
    path = folder / "dataset.pickle"
    try:
        with path.open("wb") as file:
            pickle.dump(dataset, file)
    except Exception as error:
        raise SourceError(f"{name} cannot be pickled for worker processes ({error}); {_IN_A_MODULE}") from error
    return path


@cache
def _opened(origin: str | Path, name: str) -> Any:
    """Return the dataset of this name, or from the file into which it was pickled. Raises SourceError."""
    if isinstance(origin, str):
        return _made(origin)[1]
    try:
        return pickle.loads(origin.read_bytes())  # noqa: S301 - written by our own process
    except Exception as error:
        told = f"cannot be read in worker processes: {type(error).__name__}: {error}"
        raise SourceError(f"{name} {told}; {_IN_A_MODULE}") from error


def _samples(name: str, read: Mapping, places: range, _: Reject) -> Iterator[Sample]:
    try:
        for place, (label, png) in zip(places, read(places), strict=True):
            yield Sample(label, f"{place:09d}.png", png, f"{name}[{place}]")
    except WorkerDiedError as error:
        told = f"a process that reads {name} died at or soon after item {error.item}; if memory was short, run again"
        raise SourceError(told) from None


def _sample_of(origin: str | Path, name: str, place: int) -> tuple[int, bytes]:
    return _sample(_opened(origin, name), name, place)


def _sample(dataset: Any, name: str, place: int) -> tuple[int, bytes]:
    """Return the label and the PNG file of an item. Raises SourceError."""
    try:
        item = dataset[place]
    except Exception as error:
        if isinstance(error, NotImplementedError) and hasattr(dataset, "__iter__"):  # torch's IterableDataset
            raise SourceError(f"{name} is iterable only; {_NEEDED}") from None
        raise SourceError(f"{name}[{place}] raised {type(error).__name__}: {error}") from error
    try:
        image, label = _pair(item)
        return _number(label), _png(_pixels(image))
    except Unreadable as error:
        raise SourceError(f"{name}[{place}] {error}") from None


def _pair(item: Any) -> tuple[Any, Any]:
    """Return image and label. Raises Unreadable."""
    if isinstance(item, tuple | list) and len(item) == len(("image", "label")):
        return item[0], item[1]
    length = f" of {len(item)}" if isinstance(item, tuple | list) else ""
    raise Unreadable(f"is {type(item).__name__}{length}, not a pair of an image and a label")


def _number(label: Any) -> int:
    """Return a label, which may be an array or a tensor, as a number. Raises Unreadable."""
    try:
        return index(label.item() if hasattr(label, "item") else label)
    except (TypeError, ValueError, RuntimeError):
        raise Unreadable(f"has the label {label!r:.50}; a whole number is needed") from None


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


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
    array = array[:, :, None] if array.ndim == _CHANNELS - 1 else array
    if not array.size or array.ndim != _CHANNELS or array.shape[2] not in {1, _CHANNELS}:
        raise Unreadable(f"has an image of shape {array.shape}; 1 or 3 channels are needed")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], _CHANNELS)))
