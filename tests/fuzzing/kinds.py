"""The kinds of files to mutate: the sound files, and what reads one."""

from __future__ import annotations

import bz2
import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from loaderbench.images import cifar, packed_tree, parquet, webdataset
from loaderbench.images.canonical_form import canonical_form
from loaderbench.images.decoding import Unreadable
from loaderbench.machine.errors import FixableError
from tests import parquet as parquets
from tests.archives import image, link, packed, python2_pickle
from tests.cifar import HUNDRED


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    file: str
    """Its path in the folder of a case."""
    seeds: Callable[[Path], Sequence[bytes]]
    """Return sound files. The folder is for temporary files."""
    read: Callable[[Path, Path], str]
    """Read a file, and write what it holds into a folder; return why it is refused, or an empty string."""


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right
    return exif


def _decode(path: Path, _: Path) -> str:
    try:
        canonical_form(path, 64, 90)
    except Unreadable as error:
        return str(error)
    return ""


def _unpack(kinds: Sequence[Any], path: Path, out: Path) -> str:
    try:
        archive = next((found for kind in kinds if (found := kind.find(path, None))), None)
        if archive is None:
            return "not of this kind"
        archive.write(out, lambda _: None)
    except FixableError as error:
        return str(error)
    return ""


def _images(format_: str, *options: dict[str, Any]) -> Callable[[Path], list[bytes]]:
    def seeds(_: Path) -> list[bytes]:
        found = []
        for number, given in enumerate(options):
            pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
            stream = io.BytesIO()
            saved = {name: value for name, value in given.items() if name != "mode"}
            Image.fromarray(pixels).convert(given.get("mode", "RGB")).save(stream, format_, **saved)
            found.append(stream.getvalue())
        return found

    return seeds


def _tars(_: Path) -> list[bytes]:
    small = image(1)[:300]
    folders = [("a/1.jpg", small), ("b/2.jpg", small), link("b/3.jpg", "/etc/passwd")]
    long = [(f"a/{'x' * 150}.jpg", small), ("b/é.jpg", small)]
    samples = [("1.jpg", small), ("1.cls", b"3"), ("2.jpg", small), ("2.json", b'{"label": 4}')]
    sparse = tarfile.TarInfo("a/sparse.jpg")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    gnu = io.BytesIO()
    with tarfile.open(fileobj=gnu, mode="w", format=tarfile.GNU_FORMAT) as out:
        for name, content in long:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    plain = [packed(folders), packed(long), packed(samples), packed([sparse, *folders]), gnu.getvalue()]
    inner = packed([("n01440764_1.JPEG", small)])
    return [*plain, packed([("n01440764.tar", inner)]), gzip.compress(plain[0]), bz2.compress(plain[2])]


def _zips(_: Path) -> list[bytes]:
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as out:
            for name in ("train/a/1.jpg", "train/b/2.jpg", "labels.csv"):
                out.writestr(name, image(1)[:300])
        found.append(stream.getvalue())
    return found


def _parquets(folder: Path) -> list[bytes]:
    rows = [(image(number)[:100], number % 3) for number in range(4)]
    return [
        parquets.dataset(folder / f"{compression}.parquet", rows, compression=compression).read_bytes()
        for compression in ("none", "snappy", "zstd")
    ]


def _batches(_: Path) -> list[bytes]:
    dumps = (python2_pickle, partial(pickle.dumps, protocol=2), pickle.dumps)
    return [dump(HUNDRED["train"]) for dump in dumps]


KINDS = {
    "JPEG": Kind(
        "1.jpg", _images("JPEG", {}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}, {"exif": _exif()}), _decode
    ),
    "PNG": Kind("1.png", _images("PNG", {}, {"mode": "P"}, {"mode": "1"}, {"mode": "LA"}, {"mode": "I;16"}), _decode),
    "TIFF": Kind(
        "1.tif",
        _images(
            "TIFF",
            *({"compression": name} for name in ("raw", "tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate")),
            {"mode": "1", "compression": "group4"},
            {"mode": "CMYK"},
        ),
        _decode,
    ),
    "WebP": Kind("1.webp", _images("WEBP", {}, {"lossless": True}, {"mode": "RGBA"}), _decode),
    "tar": Kind("1.tar", _tars, partial(_unpack, [packed_tree, webdataset])),
    "zip": Kind("1.zip", _zips, partial(_unpack, [packed_tree])),
    "Parquet": Kind("1.parquet", _parquets, partial(_unpack, [parquet])),
    "CIFAR": Kind("train", _batches, lambda path, out: _unpack([cifar], path.parent, out)),
}
