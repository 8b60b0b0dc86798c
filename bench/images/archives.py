"""Read the regular files of a tar archive safely: none is extracted by its name.

Python's `tarfile` takes a damaged header, or a missing end, for the end of the archive. Here both are errors, so that
half a download is never taken for the whole archive. The `data` filter of `tarfile` makes extracting by name safe; it
is not needed here, because callers write members under names of their own.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import re
import tarfile
from _compression import DecompressReader
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, Self

from loaderbench.images.tree import EXTENSIONS, SourceError, is_ignored
from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import printable

Reject = Callable[[str, str], None]
"""Gets the path of each skipped entry and the reason."""

LARGEST_BYTES = 256 << 20
"""Largest member that may be an image. A larger one could fill the memory."""
_MOST_TIMES, _ALWAYS_BYTES = 100, 64 << 20
"""An archive may unpack to its own size times the first number, plus the second number of bytes."""
_MOST_MEMORY_BYTES = 256 << 20
"""For the dictionary of xz. `xz -9` needs 65 MiB."""
_TAKES_MEMORY = "Memory usage limit exceeded"
"""What `lzma` says of a larger one."""
_DOWNLOAD = "download it again, and compare its checksum"
_LONGEST_HEADER_BYTES, _HEADERS_BYTES = 8 << 10, 256 << 10
"""Limits of one header with content, and of all headers of one member."""
_LONG_NUMBER = re.compile(rb"\d{300}")
"""A header with this many digits in a row is refused: `tarfile` takes quadratic time to search them."""
_LONGEST_NAME = 4096
_LONG = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
"""Types of headers with content, which `tarfile` reads into memory."""
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def _xz(packed: IO[bytes]) -> Any:
    """Open as `lzma.open` does, which has no limit of memory: an archive says how much of it its dictionary takes."""
    unpacker = partial(lzma.LZMADecompressor, memlimit=_MOST_MEMORY_BYTES)
    return io.BufferedReader(DecompressReader(packed, unpacker, trailing_error=lzma.LZMAError))


_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": _xz,
    b"]\0\0": _xz,
}
"""What unpacks a compressed file, by its first bytes."""


class DamagedError(SourceError):
    """An archive that ends early or is damaged. The message names it, the place and the reason."""


@dataclass(frozen=True)
class Member:
    """One regular file of an archive. It must be read before the next one is requested."""

    name: str
    """As in the archive. It is not trusted: compare it, but never write to it."""
    archive: str
    file: IO[bytes]
    size_bytes: int

    @property
    def path(self) -> str:
        """Return where it comes from, for messages."""
        return f"{self.archive}: {self.name}"

    @property
    def key(self) -> str:
        """Return the name up to the first dot of its last part, which the files of a WebDataset's sample share."""
        return self.name[: len(self.name) - len(self.basename)] + self.basename.partition(".")[0]

    @property
    def basename(self) -> str:
        """Return the name without its folders; it contains no `/`."""
        return self.name.rpartition("/")[2]

    def read(self) -> bytes:
        """Return the content. Raises DamagedError."""
        with _damage_explained(self.archive, self.file):
            return self.file.read()


def most_bytes(packed_bytes: int) -> int:
    """Return the most bytes that archives of this size may unpack to."""
    return _ALWAYS_BYTES + _MOST_TIMES * packed_bytes


class _Stream:
    """An unpacked tar whose size is limited. `tarfile` reads from it."""

    def __init__(self, packed: IO[bytes]) -> None:
        packed_bytes = packed.seek(0, 2)
        packed.seek(0)
        first = packed.read(max(map(len, _OPENERS)))
        packed.seek(0)
        opener = next((opener for start, opener in _OPENERS.items() if first.startswith(start)), None)
        self._file = opener(packed) if opener else packed
        self._most_bytes = most_bytes(packed_bytes)
        self.headers_left: int | None = _HEADERS_BYTES
        """How much `tarfile` may read until the next member is found; None while a member's content is read."""
        self.tell = self._file.tell

    def seekable(self) -> bool:
        return True

    def seek(self, place: int) -> int:
        if place > self._most_bytes:
            raise tarfile.ReadError(f"it unpacks to more than {_MOST_TIMES} times its size")
        return int(self._file.seek(place))

    def read(self, size: int) -> bytes:
        if self.tell() + size > self._most_bytes:
            raise tarfile.ReadError(f"it unpacks to more than {_MOST_TIMES} times its size")
        if self.headers_left is not None and size > self.headers_left:
            raise tarfile.ReadError(f"headers of more than {_HEADERS_BYTES >> 10} KiB")
        content = bytes(self._file.read(size))
        if self.headers_left is not None:
            self.headers_left -= size
            if _LONG_NUMBER.search(content):
                raise tarfile.ReadError("a header with a number of hundreds of digits")
        return content


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) != tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends before tar's end mark")
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError(str(error)) from None
            raise  # zeros: the end mark
        if header.size < 0:
            raise tarfile.ReadError("a member of negative size")
        if header.type in _LONG and header.size > _LONGEST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


def is_tar(path: Path) -> bool:
    """Return whether a file's name is that of a tar archive."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def members(
    file: IO[bytes], archive: str, reject: Reject, *, largest_bytes: int | None = LARGEST_BYTES
) -> Iterator[Member]:
    """Yield the regular files of a tar archive, compressed or not, in one pass. `reject` gets the skipped members.

    `archive`: its name in messages. Raises DamagedError.
    """
    names: set[bytes] = set()
    with _damage_explained(archive, file):
        stream = _Stream(file)
        tar = tarfile.TarFile(fileobj=stream, tarinfo=_Header)  # type: ignore[arg-type]
        for info in _infos(tar, stream):
            if info.isdir():
                continue
            name = hashlib.blake2b(info.name.encode(errors="surrogateescape"), digest_size=16).digest()
            if reason := _refusal(info, largest_bytes):
                reject(f"{archive}: {info.name}", reason)
            elif name in names:
                reject(f"{archive}: {info.name}", "a file of this name came before")
            elif content := tar.extractfile(info):
                names.add(name)
                yield Member(info.name, archive, content, info.size)


def _infos(tar: tarfile.TarFile, stream: _Stream) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of a tar. Raises ReadError where they take too much, or lead back."""
    while (info := tar.next()) is not None:
        if info.size < 0 or tar.offset < stream.tell():
            raise tarfile.ReadError("a member of negative size")
        stream.headers_left = None
        tar.members.clear()  # type: ignore[attr-defined] # the headers of a million images must not add up
        yield info
        stream.headers_left = _HEADERS_BYTES
    stream.headers_left = None
    while content := stream.read(tarfile.RECORDSIZE):
        if content.strip(b"\0"):
            raise tarfile.ReadError("more follows after tar's end mark: name archives that were joined one by one")


def first_name(path: Path) -> str:
    """Return the name of an archive's first regular file, or an empty string. Raises DamagedError."""
    with path.open("rb") as file:
        first = next(members(file, str(path), lambda *_: None, largest_bytes=None), None)
        return first.name if first else ""


def holds_folders(path: Path) -> bool:
    """Return whether a tar holds folders of images instead of a WebDataset's samples. Raises DamagedError.

    Then no other kind of file shares the name of the first image up to its first dot. Without folders, several images
    share it: cat.0.jpg, cat.1.jpg.
    """
    with path.open("rb") as file:
        named = (member for member in members(file, str(path), lambda *_: None) if not is_ignored(member.basename))
        for key, files in groupby(named, attrgetter("key")):
            found = [member.name for member in files]
            if images := [name for name in found if name.lower().endswith(EXTENSIONS)]:
                return images == found and ("/" in key or len(images) > 1)
    return False


def _refusal(info: tarfile.TarInfo, largest_bytes: int | None) -> str:
    """Return why a member is skipped, or an empty string."""
    if info.issym() or info.islnk():
        return "a link"
    if not info.isreg() or info.issparse():
        return "not a regular file"
    if info.name.startswith("/"):
        return "an absolute name"
    if ".." in info.name.split("/") or "\0" in info.name:
        return "a name that leads out of the archive"
    if largest_bytes is not None and info.size > largest_bytes:
        return f"larger than {largest_bytes >> 20} MiB"
    return "name too long" if len(info.name) > _LONGEST_NAME else ""


@contextmanager
def _damage_explained(archive: str, file: IO[bytes]) -> Iterator[None]:
    try:
        yield
    except FixableError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file can make `tarfile` raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        place = f" from byte {file.tell():,} on" if file.tell() else ""
        cure = "unpack it, and name its folder" if reason == _TAKES_MEMORY else _DOWNLOAD
        raise DamagedError(f"{printable(archive)} cannot be read{place} ({reason}); {cure}") from None
