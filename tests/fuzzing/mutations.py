"""Make a mutated file of each number: the same number always gives the same file."""

from __future__ import annotations

import random
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
"""Lengths at the ends of their types."""
_HEADER_BYTES = 512


def mutated(seeds: Sequence[bytes], kind: str, number: int) -> bytes:
    """Return the file of a number: one of the seeds with one to three mutations. Often its checksums are mended."""
    draw = random.Random(f"{kind} {number}")
    content = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 2, 3))):
        draw.choice(_MUTATIONS)(content, draw)
    if draw.random() < 0.7:
        _MENDED.get(kind, lambda _: None)(content)
    return bytes(content)


def _place(content: bytearray, draw: random.Random) -> int:
    """Return a place in the content; half of them are near its start or its end, where most lengths are."""
    size = max(len(content), 1)
    near = draw.randrange(min(size, _HEADER_BYTES))
    return draw.choice((near, size - 1 - near, draw.randrange(size), draw.randrange(size)))


def _flip(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 2, 8))):
        if content:
            content[_place(content, draw)] ^= 1 << draw.randrange(8)


def _overwrite(content: bytearray, draw: random.Random) -> None:
    place = _place(content, draw)
    content[place : place + draw.randrange(1, 9)] = draw.randbytes(draw.randrange(9))


def _cut(content: bytearray, draw: random.Random) -> None:
    del content[_place(content, draw) :]


def _remove(content: bytearray, draw: random.Random) -> None:
    place = _place(content, draw)
    del content[place : place + draw.choice((1, 4, 64, 512))]


def _repeat(content: bytearray, draw: random.Random) -> None:
    place = _place(content, draw)
    part = bytes(content[place : place + draw.choice((1, 8, 64, 512, 2048))])
    content[place:place] = part * draw.choice((1, 2, 16))


def _swap(content: bytearray, draw: random.Random) -> None:
    source, target, size = _place(content, draw), _place(content, draw), draw.choice((4, 64, 512))
    content[target : target + size] = content[source : source + size]


def _length(content: bytearray, draw: random.Random) -> None:
    """Write a number at the end of its type, in any size and order."""
    place, code = _place(content, draw), draw.choice("BHIQ")
    packed = struct.pack(draw.choice("<>") + code, draw.choice(_NUMBERS) % (1 << (8 * struct.calcsize(code))))
    content[place : place + len(packed)] = packed


def _digits(content: bytearray, draw: random.Random) -> None:
    """Replace a number that is written in digits."""
    place = _place(content, draw)
    while place < len(content) and not chr(content[place]).isdigit():
        place += 1
    end = place
    while end < len(content) and chr(content[end]).isdigit():
        end += 1
    content[place:end] = draw.choice((b"-1536", b"-1", b"0", b"9" * (end - place), b"77777777777", b"9" * 20))


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _overwrite, _cut, _remove, _repeat, _swap),
    *(_length, _length, _digits),
)


def _mend_png(content: bytearray) -> None:
    place = 8
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        end = place + 8 + size
        if end + 4 > len(content):
            return
        content[end : end + 4] = zlib.crc32(content[place + 4 : end]).to_bytes(4, "big")
        place = end + 4


def _mend_tar(content: bytearray) -> None:
    for place in range(0, len(content) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
        if content[place + 257 : place + 262] == b"ustar":
            content[place + 148 : place + 156] = b" " * 8
            content[place + 148 : place + 155] = b"%06o\0" % sum(content[place : place + tarfile.BLOCKSIZE])


_MENDED: dict[str, Callable[[bytearray], None]] = {"PNG": _mend_png, "tar": _mend_tar}
"""What puts right the checksums of a kind, so that a mutation is not refused for them."""
