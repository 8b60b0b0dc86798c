"""Which members of a tar archive may be read? Regular files with plain names, each once; none is extracted by name.

Python's `tarfile` takes a damaged header, or a missing end, for the end of the archive. Here both are damage, so that
half a download is never taken for the whole. Its `data` filter, which makes extracting by name safe, has nothing to do
where nothing is extracted by name: whoever reads members here writes them under names of its own.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from loaderbench.images.tree import SourceError
from loaderbench.machine.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

    Reject = Callable[[str, str], None]
    """Is told the path and the reason of each entry that is left out."""

LARGEST_BYTES = 256 << 20
"""What is larger is no image, and could fill the memory."""
_LONGEST_HEADER_BYTES = 1 << 20
_LONG = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
"""Headers that go on in blocks of their own, which `tarfile` reads into memory."""
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, OSError)


class DamagedError(SourceError):
    """An archive that ends early, or that is not what it seems. The message says which, where and why."""


@dataclass(frozen=True)
class Member:
    """One regular file of an archive, to be read before the next one is asked for."""

    name: str
    """As in the archive: to be compared, not to be written to."""
    archive: str
    file: IO[bytes]

    @property
    def path(self) -> str:
        """Where it comes from, for messages."""
        return f"{self.archive}: {self.name}"

    @property
    def basename(self) -> str:
        """Return the name without its folders: no `/` is in it."""
        return self.name.rpartition("/")[2]

    def read(self) -> bytes:
        """Return the content. Raises DamagedError."""
        with _damage_explained(self.archive, self.file):
            return self.file.read()


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
        if header.type in _LONG and header.size > _LONGEST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


def is_tar(path: Path) -> bool:
    """Return whether this is a tar archive by its name."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def members(
    file: IO[bytes], archive: str, reject: Reject, *, largest_bytes: int | None = LARGEST_BYTES
) -> Iterator[Member]:
    """Yield the regular files of a tar archive, compressed or not, in one pass; what is refused goes to `reject`.

    `archive` names it in messages. Raises DamagedError.
    """
    names: set[str] = set()
    with _damage_explained(archive, file), tarfile.open(fileobj=file, mode="r:*", tarinfo=_Header) as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined] # the headers of a million images must not add up
            if info.isdir():
                continue
            if reason := _refusal(info, largest_bytes):
                reject(f"{archive}: {info.name}", reason)
            elif info.name in names:
                reject(f"{archive}: {info.name}", "a file of this name came before")
            elif content := tar.extractfile(info):
                names.add(info.name)
                yield Member(info.name, archive, content)


def first_name(path: Path) -> str:
    """Return the name of an archive's first regular file, or nothing. Raises DamagedError."""
    with path.open("rb") as file:
        first = next(members(file, str(path), lambda *_: None, largest_bytes=None), None)
        return first.name if first else ""


def _refusal(info: tarfile.TarInfo, largest_bytes: int | None) -> str:
    """Return why a member is not to be read, or nothing."""
    if info.issym() or info.islnk():
        return "a link"
    if not info.isreg() or info.issparse():
        return "not a regular file"
    if info.name.startswith("/"):
        return "an absolute name"
    if ".." in info.name.split("/") or "\0" in info.name:
        return "a name that leads astray"
    if largest_bytes is not None and info.size > largest_bytes:
        return f"larger than {largest_bytes >> 20} MiB"
    return ""


@contextmanager
def _damage_explained(archive: str, file: IO[bytes]) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(
            f"{printable(archive)} cannot be read on from byte {file.tell():,} ({reason}): "
            "get it again, and compare its checksum"
        ) from None
