"""Check the sizes in the page headers of a Parquet file before the reader makes room for the pages.

The sizes in the file's footer are no limit: the reader makes room for what the header of each page says.
"""

from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

_UNPACKED_BYTES, _PACKED_BYTES = 2, 3
"""Numbers of two fields of a page header in Parquet's definition."""
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _TEXT, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
"""Types of values in Thrift's compact form. Page headers hold no maps."""
_COUNT_FOLLOWS = 15
_LAST_FIELD, _LARGEST_PAGE_BYTES, _VARINT_BITS = (1 << 15) - 1, (1 << 31) - 1, 64


def check_pages(path: Path, group: Any, columns: Collection[str], most_bytes: int) -> None:
    """Raise ValueError if the pages of a row group unpack to more bytes in all, or if their headers are damaged.

    `group`: the row group's metadata. `columns`: the names of those that are read.
    """
    unpacked_bytes = 0
    with path.open("rb") as file:
        for column in map(group.column, range(group.num_columns)):
            if not any(f"{column.path_in_schema}.".startswith(f"{name}.") for name in columns):
                continue
            place = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
            end = place + column.total_compressed_size
            while place < end:
                file.seek(place)
                header = _struct(file)
                sizes_bytes = [header.get(number, -1) for number in (_UNPACKED_BYTES, _PACKED_BYTES)]
                if not 0 <= min(sizes_bytes) <= max(sizes_bytes) <= _LARGEST_PAGE_BYTES:
                    raise ValueError("a page without a size, or of an impossible one")
                unpacked_bytes += sizes_bytes[0]
                if unpacked_bytes > most_bytes:
                    raise ValueError("a row group of far more than the file's size")
                place = file.tell() + sizes_bytes[1]


def _struct(file: IO[bytes]) -> dict[int, int]:
    """Read a struct; return its integers by the numbers of their fields.

    Raises ValueError where another reader may understand something else.
    """
    found: dict[int, int] = {}
    number = 0
    while head := _byte(file):
        number = number + (head >> 4) if head >> 4 else _integer(file)
        if number in found or not 0 < number <= _LAST_FIELD:
            raise ValueError("a page header with a field that comes again, or has no number")
        found[number] = 0 if head & 15 in _BOOLEANS else _value(file, head & 15)  # the head says which boolean it is
    return found


def _value(file: IO[bytes], kind: int) -> int:
    """Read a value; return it if it is an integer, else 0."""
    if kind in _INTEGERS:
        return _integer(file)
    if kind in {*_BOOLEANS, _BYTE}:
        _byte(file)
    elif kind == _DOUBLE:
        file.seek(7, 1)
        _byte(file)
    elif kind == _TEXT:
        file.seek(_varint(file), 1)
    elif kind in _LISTS:
        head = _byte(file)
        count = head >> 4
        for _ in range(_varint(file) if count == _COUNT_FOLLOWS else count):
            _value(file, head & 15)
    elif kind == _STRUCT:
        _struct(file)
    else:
        raise ValueError(f"a page header with a value of type {kind}")
    return 0


def _byte(file: IO[bytes]) -> int:
    if not (found := file.read(1)):
        raise ValueError("a page header beyond the end of the file")
    return found[0]


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, _VARINT_BITS, 7):
        byte = _byte(file)
        value |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004 - its highest bit says whether another one follows
            return value
    raise ValueError("a page header with an endless number")


def _integer(file: IO[bytes]) -> int:
    value = _varint(file)
    return value >> 1 ^ -(value & 1)
