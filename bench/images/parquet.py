"""Read Hugging Face data sets in Parquet files.

The schema's metadata names the columns: the first feature of type Image, and the first of type ClassLabel. A row's
image is a struct of the encoded file's bytes and its former path.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loaderbench.images.archives import LARGEST_BYTES, DamagedError, Reject, most_bytes
from loaderbench.images.parquet_pages import check_pages, seek_footer
from loaderbench.images.splits import files_of, split_in
from loaderbench.images.tree import SourceError
from loaderbench.images.unpack import Archive, Sample
from loaderbench.machine.text import names, printable, quoted

_SIGNATURES = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}
"""First bytes of the image formats that are read."""


def find(path: Path, split: str | None) -> Archive | None:
    """Return the archive for a Parquet file, or a folder that holds them up to two levels down, else None.

    Raises SourceError.
    """
    found = [path] if path.suffix == ".parquet" and path.is_file() else _in_folder(path)
    files, notes = files_of(split, found, path if path.is_dir() else None)
    if not files:
        return None
    images = sum(_open(file).metadata.num_rows for file in files)
    columns = _columns(files[0])
    what, shards = f"{len(files)} Parquet files", [partial(_samples, number, path) for number, path in enumerate(files)]
    return Archive(what, tuple(files), lambda _: shards, images, (*notes, *columns.notes), columns.classes)


def _in_folder(path: Path) -> list[Path]:
    """Return the Parquet files of one configuration in a folder. Raises SourceError if it holds several."""
    for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet"):
        found = sorted(file for file in path.glob(pattern) if file.is_file()) if path.is_dir() else []
        parents = sorted({file.relative_to(path).parts[0] for file in found if file.parent != path})
        if len(parents) > 1 and not all(map(split_in, parents)):
            first = quoted(path / parents[0])
            raise SourceError(
                f"{printable(path)} holds several configurations ({names(parents)}); name one of them: DATA={first}"
            )
        if found:
            return found
    return []


def _samples(number: int, path: Path, reject: Reject) -> Iterator[Sample]:
    columns = _columns(path)
    for place, row in enumerate(_rows(path, [columns.image, columns.label])):
        image, label = row[columns.image], row[columns.label]
        content = image["bytes"] if image else None
        origin = f"{path}: row {place}"
        suffix = next((suffix for first, suffix in _SIGNATURES.items() if (content or b"").startswith(first)), None)
        if not content:
            reject(origin, "no image bytes")
        elif len(content) > LARGEST_BYTES:
            reject(origin, f"larger than {LARGEST_BYTES >> 20} MiB")
        elif not suffix:
            reject(origin, "not an image by its first bytes")
        elif not isinstance(label, int) or label < 0:
            reject(origin, "no label")
        else:
            yield Sample(label, f"{number:05d}-{place:07d}.{suffix}", content, origin)


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield rows as dicts. Raises DamagedError.

    One row is read at a time, because a value that a file stores once can stand for many rows.
    """
    file, size_bytes = _open(path), path.stat().st_size
    try:
        if file.metadata.num_rows > size_bytes:  # rows without an image take no room, but time
            raise ValueError("more rows than bytes")  # noqa: TRY301
        check_pages(path, most_bytes(size_bytes))
        for batch in file.iter_batches(1, columns=columns, use_threads=False):
            yield from batch.to_pylist()
    except Exception as error:  # noqa: BLE001 - a damaged file can make the reader raise anything
        raise _damaged(path, error) from None


@dataclass(frozen=True)
class _Columns:
    """What the schema's metadata say of the columns."""

    image: str
    label: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def _columns(path: Path) -> _Columns:
    """Return the columns of image and class index, with a note if there are other candidates. Raises SourceError."""
    schema = _open(path).schema_arrow
    from pyarrow.types import is_integer

    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        typed = [(name, feature.get("_type")) for name, feature in features.items() if isinstance(feature, dict)]
        images = [name for name, type_ in typed if type_ == "Image" and _holds_bytes(schema.field(name).type)]
        labels = [name for name, type_ in typed if type_ == "ClassLabel" and is_integer(schema.field(name).type)]
        image, label = images[0], labels[0]
        listed = features[label].get("names")
        classes = tuple(map(str, listed)) if isinstance(listed, list) else ()
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError):
        raise SourceError(
            f"{printable(path)}: the schema's `huggingface` metadata name no column that holds images and one that "
            "holds class labels; write the file with the library datasets and its features Image and ClassLabel"
        ) from None
    others = [*images[1:], *labels[1:]]
    note = f"The columns {image} and {label} are read; {', '.join(others)} are skipped."
    return _Columns(image, label, classes, (note,) if others else ())


def _holds_bytes(type_: Any) -> bool:
    """Return whether a column's type is a struct with the field `bytes` of bytes."""
    from pyarrow.types import is_binary, is_large_binary, is_struct

    fields = [type_.field(place) for place in range(type_.num_fields)] if is_struct(type_) else []
    return any(field.name == "bytes" and (is_binary(field.type) or is_large_binary(field.type)) for field in fields)


def _open(path: Path) -> Any:
    """Open a file, and read only its metadata. Raises SourceError."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise SourceError(
            f"reading {printable(path)} needs pyarrow: pip install '.[parquet]' in the checkout"
        ) from None
    try:
        with path.open("rb") as file:
            seek_footer(file)
        return ParquetFile(path)
    except Exception as error:  # noqa: BLE001 - a damaged file can make the reader raise anything
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DamagedError:
    reason = " ".join(str(error).split())
    return DamagedError(f"{printable(path)} cannot be read as Parquet ({reason}); download it again")
