"""Parquet files that are made to take all memory or to fill the disk are refused."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loaderbench.images import SourceError, archives, parquet_pages
from loaderbench.images.parquet_pages import check_pages
from tests.archives import image, read
from tests.parquet import dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20


@contextmanager
def arrow_memory_below(most_mib: float) -> Iterator[None]:
    """Check what pyarrow asks for, which `tracemalloc` does not see."""
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        yield
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < most_mib * MIB


def test_a_parquet_value_that_stands_for_many_rows_is_read_one_row_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_BYTES", 2 * MIB)
    bomb = b"\xff\xd8\xff" + bytes(MIB)
    path = dataset(tmp_path / "x.parquet", [(bomb, 0)] * 30, row_group_size=30, compression="zstd")
    assert path.stat().st_size < 100_000
    with arrow_memory_below(8), pytest.raises(SourceError, match=r"it unpacks to more than \d+ MiB, far more than its"):
        read(path, tmp_path / "cache")


def varint(number: int, width: int = 0) -> bytes:
    """Return how Parquet's headers hold a number. `width`: of the result."""
    left, found = 2 * number, b""
    while left >= 128 or len(found) + 1 < width:
        found, left = found + bytes([left & 127 | 128]), left >> 7
    return found + bytes([left])


def test_a_parquet_file_whose_pages_are_far_larger_than_it_is_refused_whatever_its_footer_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_BYTES", MIB)
    rows = [(b"\xff\xd8\xff" + bytes([number]) + bytes(MIB), 0) for number in range(10)]
    path = dataset(tmp_path / "x.parquet", rows, row_group_size=10, compression="zstd")
    group = pq.ParquetFile(path).metadata.row_group(0)
    content = path.read_bytes()
    pages = content[: -8 - int.from_bytes(content[-8:-4], "little")]
    footer = content[len(pages) :]
    for size_bytes in {group.total_byte_size, group.column(0).total_uncompressed_size}:
        assert varint(size_bytes) in footer
        footer = footer.replace(varint(size_bytes), varint(1000, len(varint(size_bytes))))
    for number, tail in enumerate((content[len(pages) :], footer)):
        path.write_bytes(pages + tail)
        with arrow_memory_below(4), pytest.raises(SourceError, match="a row group of far more than the file's size"):
            read(path, tmp_path / f"cache{number}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda size: varint(100 * MIB, len(size)), "a row group of far more than the file's size"),
        (lambda size: varint(-1 % (1 << 27), len(size)), "a row group of far more than the file's size"),
        (lambda _: b"\xff" * 4, "a header with an endless number"),
    ],
    ids=["large", "largest", "endless"],
)
def test_a_parquet_page_that_asks_for_more_memory_than_the_file_explains_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes], reason: str
) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_BYTES", 8 * MIB)
    path = dataset(tmp_path / "x.parquet", [(b"\xff\xd8\xff" + bytes(2 * MIB), 0)], compression="zstd")
    content = path.read_bytes()
    place = pq.ParquetFile(path).metadata.row_group(0).column(0).dictionary_page_offset
    size = next(varint(size) for size in range(2 * MIB, 3 * MIB) if varint(size) in content[place : place + 16])
    path.write_bytes(content[:place] + content[place:].replace(size, change(size), 1))
    with arrow_memory_below(12), pytest.raises(SourceError, match=reason):
        read(path, tmp_path / "cache")


FOOTER = "49 1c 19 1c 3c 76 10 26 00 00 00 00 00"
"""Of one row group with one column of 8 bytes, whose page begins where the file begins."""


@pytest.mark.parametrize(
    ("header", "footer", "reason"),
    [
        ("15 00 15 08 15 08 00", FOOTER, ""),
        ("15 00 15 08 15 08 05 06 08 00", FOOTER, "comes again"),
        ("15 00 15 08 00", FOOTER, "lacks a size"),
        ("15 00 15 08 16 08 00", FOOTER, "another number or type"),
        ("15 00 15 08 15 07 00", FOOTER, "negative size"),
        ("15 00 15 08 15 8c80808020 00", FOOTER, "endless number"),
        ("15 00 15 08 15 08 19 f5 ffffffff0f 02", FOOTER, "beyond the end|endless number"),
        ("15 00 15 08 15 08 1b 01 55 02 02 00", FOOTER, "a value of type 11"),
        ("1c" * 5000, FOOTER, "recursion"),
        ("15 00 15 08 15 08 00", FOOTER.replace("76", "75"), "another number or type"),
        ("15 00 15 08 15 08 00", FOOTER.replace("49 1c", "49 15"), "a list of another type"),
        ("15 00 15 08 15 08 00", FOOTER.replace("26 00", "26 7f"), "negative|Invalid argument"),
    ],
    ids=[
        *("sound", "repeated", "missing", "other type", "negative", "beyond its type", "list", "map", "nested"),
        *("other type in footer", "other list in footer", "before the file"),
    ],
)
def test_headers_and_footers_that_readers_may_understand_differently_are_refused(
    tmp_path: Path, header: str, footer: str, reason: str
) -> None:
    path, content = tmp_path / "pages", bytes.fromhex(footer)
    path.write_bytes(bytes.fromhex(header) + bytes(64) + content + len(content).to_bytes(4, "little") + b"PAR1")
    if reason:
        with pytest.raises((ValueError, OSError, RecursionError), match=reason):
            check_pages(path, MIB)
    else:
        check_pages(path, MIB)
        with pytest.raises(ValueError, match="a row group of far more"):
            check_pages(path, 3)


def test_a_large_footer_is_refused_before_pyarrow_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dataset(tmp_path / "x.parquet", [(image(1), 0)] * 5, row_group_size=1)
    monkeypatch.setattr(parquet_pages, "_LARGEST_FOOTER_BYTES", 1000)
    monkeypatch.setattr(pq, "ParquetFile", pytest.fail)
    with pytest.raises(SourceError, match=r"no footer, or one of more than \d+ MiB"):
        read(path, tmp_path / "cache")


def test_a_parquet_file_of_endless_empty_rows_is_refused(tmp_path: Path) -> None:
    rows = [(b"", 0)] * 100_000
    path = dataset(tmp_path / "x.parquet", rows, row_group_size=len(rows))
    with pytest.raises(SourceError, match="more rows than bytes"):
        read(path, tmp_path / "cache")


def test_deeply_nested_metadata_of_parquet_are_refused(tmp_path: Path) -> None:
    path = dataset(tmp_path / "x.parquet", [(image(1), 0)], metadata="[" * 100_000)
    with pytest.raises(SourceError, match="metadata name no column that holds images"):
        read(path, tmp_path / "cache")
