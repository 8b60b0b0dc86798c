"""Check the sizes of a Parquet file's pages before pyarrow makes room for them.

pyarrow believes the header of each page, but does not show it, and it ends the process if it is asked for the places of
pages in some damaged footers. So both are read here, in Thrift's compact form.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

Fields = Mapping[int, tuple[int, Any]]
_BOOLEANS, _BYTE, _INT16, _INT32, _INT64, _DOUBLE, _TEXT, _LIST, _SET, _STRUCT = (1, 2), 3, 4, 5, 6, 7, 8, 9, 10, 12
"""Types of values. Parquet has no maps."""
_BITS = {_INT16: 16, _INT32: 32, _INT64: 64}
_COUNT_FOLLOWS = 15
_LAST_FIELD = (1 << 15) - 1
_LARGEST_FOOTER_BYTES = 4 << 20
"""pyarrow takes up to 250 times as much memory for a footer. That of 1,000 row groups of images has about 0.4 MiB."""
_MARK = b"PAR1"

_UNPACKED_BYTES, _PACKED_BYTES = 2, 3
_PAGE: Fields = {_UNPACKED_BYTES: (_INT32, {}), _PACKED_BYTES: (_INT32, {})}
_COLUMN_BYTES, _FIRST_PAGE, _DICTIONARY = 7, 9, 11
_COLUMN: Fields = {number: (_INT64, {}) for number in (_COLUMN_BYTES, _FIRST_PAGE, _DICTIONARY)}
_GROUPS, _CHUNKS, _CHUNK = 4, 1, 3
_FOOTER: Fields = {_GROUPS: (_LIST, {_CHUNKS: (_LIST, {_CHUNK: (_STRUCT, _COLUMN)})})}
"""Structs of Parquet's definition: the numbers of the fields that are needed here, each with its type and content."""


def check_pages(path: Path, most_bytes: int) -> None:
    """Raise ValueError if the pages of a row group unpack to more bytes in all, or if what says so is damaged."""
    with path.open("rb") as file:
        seek_footer(file)
        for group in _struct(file, _FOOTER)[_GROUPS]:
            unpacked_bytes = 0
            for chunk in group[_CHUNKS]:
                for page_bytes in _pages(file, chunk[_CHUNK]):
                    unpacked_bytes += page_bytes
                    if unpacked_bytes > most_bytes:
                        raise ValueError("a row group of far more than the file's size")


def seek_footer(file: IO[bytes]) -> None:
    """Go to where the footer begins. Raises ValueError if it is larger than any that loaderbench reads."""
    end = file.seek(-8, 2)
    footer_bytes = int.from_bytes(file.read(4), "little")
    if file.read() != _MARK or footer_bytes > _LARGEST_FOOTER_BYTES:
        raise ValueError(f"no footer, or one of more than {_LARGEST_FOOTER_BYTES >> 20} MiB")
    file.seek(end - footer_bytes)


def _pages(file: IO[bytes], column: Mapping[int, int]) -> Iterator[int]:
    """Yield the unpacked size of each page of a column chunk, in bytes."""
    place, dictionary = column[_FIRST_PAGE], column.get(_DICTIONARY, 0)
    if 0 < dictionary < place:
        place = dictionary
    end = place + column[_COLUMN_BYTES]
    while place < end:
        file.seek(place)
        header = _struct(file, _PAGE)
        if min(header.values()) < 0:
            raise ValueError("a page of negative size")
        yield header[_UNPACKED_BYTES]
        place = file.tell() + header[_PACKED_BYTES]


def _struct(file: IO[bytes], wanted: Fields) -> dict[int, Any]:
    """Read a struct and return the wanted fields. Raises ValueError where pyarrow may understand something else."""
    found: dict[int, Any] = {}
    seen = set[int]()
    number = 0
    while head := _byte(file):
        kind = head & 15
        number = number + (head >> 4) if head >> 4 else _integer(file, _INT16)
        expected, inner = wanted.get(number, (kind, {}))
        if number in seen or not 0 < number <= _LAST_FIELD or kind != expected:
            raise ValueError("a header with a field that comes again, or has another number or type")
        seen.add(number)
        value = None if kind in _BOOLEANS else _value(file, kind, inner)  # the head says which boolean it is
        if number in wanted:
            found[number] = value
    if wanted.keys() - found.keys() - {_DICTIONARY}:
        raise ValueError("a header that lacks a size or a place")
    return found


def _value(file: IO[bytes], kind: int, wanted: Fields) -> Any:
    """Read a value. Return it if it is an integer, a struct, or a list of structs with wanted fields."""
    if kind in _BITS:
        return _integer(file, kind)
    if kind == _STRUCT:
        return _struct(file, wanted)
    if kind in {*_BOOLEANS, _BYTE}:
        _byte(file)
    elif kind == _DOUBLE:
        file.seek(7, 1)
        _byte(file)
    elif kind == _TEXT:
        file.seek(_varint(file, 32), 1)
    elif kind in {_LIST, _SET}:
        head = _byte(file)
        count, each = head >> 4, head & 15
        if wanted and each != _STRUCT:
            raise ValueError("a header with a list of another type")
        count = _varint(file, 32) if count == _COUNT_FOLLOWS else count
        values = (_value(file, each, wanted) for _ in range(count))
        return list(values) if wanted else sum(1 for _ in values)
    else:
        raise ValueError(f"a header with a value of type {kind}")
    return None


def _byte(file: IO[bytes]) -> int:
    if not (found := file.read(1)):
        raise ValueError("a header beyond the end of the file")
    return found[0]


def _varint(file: IO[bytes], bits: int) -> int:
    value = 0
    for shift in range(0, bits, 7):
        byte = _byte(file)
        value |= (byte & 127) << shift
        if byte < 128 and value < 1 << bits:  # noqa: PLR2004 - its highest bit says whether another one follows
            return value
    raise ValueError("a header with an endless number")


def _integer(file: IO[bytes], kind: int) -> int:
    value = _varint(file, _BITS[kind])
    return value >> 1 ^ -(value & 1)
