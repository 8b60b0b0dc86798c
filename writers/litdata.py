"""Write LitData's format: chunks made by `litdata.optimize`."""

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

requires = ("litdata", "PIL")  # in mode `jpeg-reencoded` the result depends on the version of PIL
modes = ("raw", "jpeg", "jpeg-reencoded")
resumes = True
PART = 16_384
"""Samples per worker between two updates of the index. A stopped run resumes at the last update."""
_LEAF = {"type": None, "context": None, "children_spec": []}
_DATA_SPEC = [1, {"type": "builtins.dict", "context": '["image", "label"]', "children_spec": [_LEAF, _LEAF]}]
"""What an index says of the samples, in torch's form."""


def _order(samples: int) -> list[int]:
    """Return the index of the sample at each position."""
    return random.Random(0).sample(range(samples), samples)


def _raw(source: Source, index: int) -> dict[str, Any]:
    from PIL import Image

    return {"image": Image.fromarray(source.pixels(index)), "label": source.label(index)}


def _jpeg(source: Source, index: int) -> dict[str, Any]:
    from litdata.types import Jpeg

    # LitData may re-encode images; max_quality=None prevents that for JPEG bytes, but nothing does for PIL images.
    return {"image": Jpeg(bytes=source.jpeg(index), max_quality=None), "label": source.label(index)}


def _reencoded(source: Source, index: int) -> dict[str, Any]:
    from PIL import Image

    return {"image": Image.open(io.BytesIO(source.jpeg(index))), "label": source.label(index)}


_SAMPLE = {"raw": _raw, "jpeg": _jpeg, "jpeg-reencoded": _reencoded}


def write(source: Source, out: Path, encoding: Encoding, workers: int) -> None:
    """Write the chunks.

    `raw` gives LitData a PIL image, whose pixels it stores; `jpeg` gives it the canonical bytes. `jpeg-reencoded` gives
    it these bytes opened by PIL in memory: LitData finds no file to copy, and encodes with PIL's defaults.

    Samples are stored in random order, as LitData's own scripts do, because its shuffling keeps a chunk's samples
    together. Parts are appended one by one, each to the index of the parts before. LitData's `use_checkpoint` is not
    used: after a second stop, 0.2.76 stores samples again that it had stored before the first stop.
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
                start_method="fork",  # so that its processes end with the harness, however that ends
            )


@contextmanager
def _own_caches(out: Path) -> Iterator[None]:
    """Give LitData temporary folders of its own, in `out`, where `_written` removes what a kill leaves.

    By default LitData uses and empties `$TMPDIR/chunks` and `$TMPDIR/data`, even if they are not its own.
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
    """Return the number of samples in the index, and remove files that are not in it: a stop left them."""
    index = out / "index.json"
    chunks = json.loads(index.read_bytes())["chunks"] if index.exists() else []
    whole = {index.name, *(chunk["filename"] for chunk in chunks)}
    for path in out.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in whole:
            path.unlink()
    return sum(chunk["chunk_size"] for chunk in chunks)


def _check(index: dict[str, Any]) -> None:
    """Raise ValueError if an index has what `write` does not put there. It may be a stranger's, from a bucket.

    LitData's serializer `pickle` would run a program, and a `data_spec` can import any module.
    """
    config = index["config"]
    if others := set(config["data_format"]) - {"pil", "jpeg", "int"}:
        raise ValueError(f"its index asks for the serializers {sorted(others)}, which are not used here")
    if json.loads(config["data_spec"]) != _DATA_SPEC or config["compression"]:
        raise ValueError("its index describes other samples than an image and a label, uncompressed")
    if outside := [chunk["filename"] for chunk in index["chunks"] if "/" in chunk["filename"]]:
        raise ValueError(f"its index names a file outside of it, {outside[0]!r}")


def payloads(out: Path) -> Iterator[bytes]:
    _check(json.loads((out / "index.json").read_bytes()))
    from litdata import StreamingDataset
    from litdata.streaming.serializers import _SERIALIZERS, Serializer

    class Stored(Serializer):
        def __init__(self, *, header: bool) -> None:
            self.header = header

        def serialize(self, item: Any) -> tuple[bytes, str | None]:
            raise NotImplementedError

        def deserialize(self, data: bytes) -> bytes:
            # A PIL item starts with width, height and the length of its mode's name, 4 bytes each, then the name.
            return bytes(data[12 + int.from_bytes(data[8:12], "little") :] if self.header else data)

        def can_serialize(self, item: Any) -> bool:  # noqa: ARG002
            return False

    dataset = StreamingDataset(
        str(out), serializers={**_SERIALIZERS, "pil": Stored(header=True), "jpeg": Stored(header=False)}
    )
    places = {index: place for place, index in enumerate(_order(len(dataset)))}
    for index in range(len(dataset)):
        yield dataset[places[index]]["image"]
