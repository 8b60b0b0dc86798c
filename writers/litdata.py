"""LitData: chunks made by `litdata.optimize`."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loaderbench.api import Encoding, Source

requires = ("litdata", "PIL")  # which encodes again, as its version does
modes = ("raw", "jpeg", "jpeg-reencoded")
resumes = True
PART = 16_384
"""Samples per worker that are written before the index is: from there a writing that was stopped goes on."""


def _order(samples: int) -> list[int]:
    """Return which sample is stored in each place."""
    return random.Random(0).sample(range(samples), samples)


def _raw(source: Source, index: int) -> dict[str, Any]:
    from PIL import Image

    return {"image": Image.fromarray(source.pixels(index)), "label": source.label(index)}


def _jpeg(source: Source, index: int) -> dict[str, Any]:
    from litdata.types import Jpeg

    # Without max_quality=None, and always for a PIL image, LitData may encode again.
    return {"image": Jpeg(bytes=source.jpeg(index), max_quality=None), "label": source.label(index)}


def _reencoded(source: Source, index: int) -> dict[str, Any]:
    from PIL import Image

    return {"image": Image.open(io.BytesIO(source.jpeg(index))), "label": source.label(index)}


_SAMPLE = {"raw": _raw, "jpeg": _jpeg, "jpeg-reencoded": _reencoded}


def write(source: Source, out: Path, encoding: Encoding, workers: int) -> None:
    """`raw` is a PIL image, which LitData stores as its pixels; `jpeg` is the canonical bytes; `jpeg-reencoded` is
    these opened by PIL in memory: LitData finds no file that it could copy, and encodes as PIL does by default.

    Samples are stored in a random order, as LitData's own scripts do: its shuffling leaves together what is in a chunk.

    Parts are appended one by one, each to the index of those before. LitData's `use_checkpoint` would not do: after a
    second stop, 0.2.76 stores samples again that it had stored before the first.
    """
    from litdata import optimize

    order = _order(len(source))
    while part := order[_written(out) :][: PART * workers]:
        with _own_caches(out):
            optimize(
                fn=partial(_SAMPLE[encoding.mode], source),
                inputs=part,
                output_dir=str(out),
                num_workers=min(workers, len(part)),
                chunk_bytes=encoding.chunk_mib << 20 if encoding.chunk_mib else "64MB",
                keep_data_ordered=True,
                mode="append",
                start_method="fork",  # so that its processes die with the harness, however it ends
            )


@contextmanager
def _own_caches(out: Path) -> Iterator[None]:
    """Give LitData folders of its own for what is under way: it empties them, by default `$TMPDIR/chunks` and
    `$TMPDIR/data`, whosever these are. In `out`, so that what a kill leaves there is removed.
    """
    before = dict(os.environ)
    with TemporaryDirectory(dir=out) as folder:
        os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = f"{folder}/chunks"
        os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = f"{folder}/data"
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _written(out: Path) -> int:
    """Return how many samples are in the index. What is not, a stop has left; it is removed."""
    index = out / "index.json"
    chunks = json.loads(index.read_bytes())["chunks"] if index.exists() else []
    whole = {index.name, *(chunk["filename"] for chunk in chunks)}
    for path in out.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in whole:
            path.unlink()
    return sum(chunk["chunk_size"] for chunk in chunks)


def payloads(out: Path) -> Iterator[bytes]:
    from litdata import StreamingDataset
    from litdata.streaming.serializers import _SERIALIZERS, Serializer

    class Stored(Serializer):
        def __init__(self, *, header: bool) -> None:
            self.header = header

        def serialize(self, item: Any) -> tuple[bytes, str | None]:
            raise NotImplementedError

        def deserialize(self, data: bytes) -> bytes:
            # A PIL item starts with width, height and the length of its mode's name, 4 bytes each, and that name.
            return bytes(data[12 + int.from_bytes(data[8:12], "little") :] if self.header else data)

        def can_serialize(self, item: Any) -> bool:  # noqa: ARG002
            return False

    dataset = StreamingDataset(
        str(out), serializers={**_SERIALIZERS, "pil": Stored(header=True), "jpeg": Stored(header=False)}
    )
    places = {index: place for place, index in enumerate(_order(len(dataset)))}
    for index in range(len(dataset)):
        yield dataset[places[index]]["image"]
