"""Archives and data sets that are made to hang, to fill the disk or to take all memory are refused."""

from __future__ import annotations

import io
import lzma
import signal
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from loaderbench.images import SourceError, archives, journal, tables, tree
from loaderbench.images.archives import DamagedError, members
from tests.archives import contents, image, link, packed, read, reasons, tar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
GOOD = ("a/1.jpg", image(1)), ("b/2.jpg", image(2))


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """End a test that hangs."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@contextmanager
def memory_below(most_mib: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most_mib * MIB
    finally:
        tracemalloc.stop()


def pax(content: bytes | None = None, **headers: str) -> bytes:
    """Return a tar of one file with an extended header: these fields, or this raw content."""
    info = tarfile.TarInfo("1.jpg")
    info.pax_headers = headers
    if content is None:
        return packed([info])
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(content)
    return header.tobuf() + content + bytes(-len(content) % 512) + packed([info])


def negative(size: int) -> bytes:
    """Return a tar of one file whose header has a negative size, as GNU tar writes large numbers."""
    block = bytearray(tarfile.TarInfo("1.jpg").tobuf())
    block[124:136] = b"\xff" + size.to_bytes(11, "big", signed=True)
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block) + bytes(1024)


def long_names(count: int) -> bytes:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 5
    return (header.tobuf() + b"1.jpg".ljust(512, b"\0")) * count + packed([("x", b"")])


SPARSE_MAP = pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "1.jpg"})[:1536]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pax(size="-1536"), "a member of negative size"),
        (pax(size="-1"), "a member of negative size"),
        (negative(-512), "a member of negative size"),
        (pax(b"1" * (32 << 10)), "a header of 32,768 bytes"),
        (pax(b"1" * (8 << 10)), "a number of hundreds of digits"),
        (pax(b"9" * 5000 + b" a=b\n"), "a number of hundreds of digits"),
        (pax(**{"GNU.sparse.map": "x,y"}), "invalid literal"),
        (long_names(1200), r"headers of more than 256 KiB|recursion"),
        (SPARSE_MAP + b"9999999\n" + b"1\n" * (1 << 20), "headers of more than 256 KiB"),
    ],
    ids=[
        *("size in PAX", "small size in PAX", "size", "long PAX", "digits", "length", "sparse map", "long names"),
        "endless sparse map",
    ],
)
def test_a_hostile_header_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(DamagedError, match=rf"x.tar cannot be read.* \(.*({reason}).*\); download it again"):
        list(members(io.BytesIO(content), "x.tar", lambda *_: None))


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_small_tar_that_unpacks_to_far_more_is_refused_and_leaves_nothing(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_BYTES", MIB)
    entries = [*GOOD, *((f"a/{number}.bmp", bytes(MIB)) for number in range(3, 9))]
    path = tar(tmp_path / f"x.tar.{suffix}", entries, f"w:{suffix}")
    with pytest.raises(SourceError, match=r"it unpacks to more than (100 times its size|\d+ MiB)"):
        read(path, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.*"))


@pytest.mark.parametrize(("format_", "place"), [(lzma.FORMAT_XZ, 16), (lzma.FORMAT_ALONE, 1)], ids=["xz", "lzma"])
def test_an_archive_whose_dictionary_takes_more_memory_than_any_image_is_refused(
    tmp_path: Path, format_: int, place: int
) -> None:
    """The header of the archive says 1.5 GiB, and that is all of it that is changed."""
    path = tmp_path / "x.tar.xz"
    content = bytearray(lzma.compress(packed(GOOD), format_))
    if format_ == lzma.FORMAT_XZ:
        content[place] = 37
        content[20:24] = zlib.crc32(content[12:20]).to_bytes(4, "little")
    else:
        content[place : place + 4] = (3 << 29).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"\(Memory usage limit exceeded\); unpack it, and name its folder"):
        read(path, tmp_path / "cache")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_small_zip_that_unpacks_to_far_more_is_refused_and_leaves_nothing(
    tmp_path: Path, method: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_BYTES", MIB)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as out:
        for number in range(6):
            out.writestr(f"a/{number}.bmp", bytes(MIB))
    with pytest.raises(SourceError, match=r"it unpacks to more than \d+ MiB, far more than its size; if you trust"):
        read(tmp_path / "x.zip", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.bmp"))


@pytest.mark.slow
def test_a_file_of_a_zip_that_is_larger_than_it_says_is_not_unpacked_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_BZIP2) as out:
        out.writestr("a/1.jpg", bytes(400 * MIB))
    content = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(content.replace(struct.pack("<I", 400 * MIB), struct.pack("<I", 1000)))
    with memory_below(200), pytest.raises(SourceError, match="cannot be read"):
        read(tmp_path / "x.zip", tmp_path / "cache")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_within_a_file_of_a_zip_is_explained(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as out:
        for name, content in GOOD:
            out.writestr(name, content)
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(SourceError, match=r"x.zip cannot be read .*; download it again"):
        read(tmp_path / "x.zip", tmp_path / "cache")


def test_long_names_are_refused_before_they_are_kept() -> None:
    files = [(f"{number}{'x' * 5000}.jpg", b"") for number in range(100)]
    found: list[str] = []
    assert not list(members(io.BytesIO(packed(files)), "x.tar", lambda _, reason: found.append(reason)))
    assert found == ["name too long"] * 100


def test_skipped_entries_beyond_a_number_are_counted_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_MOST_LISTED", 3)
    path = tar(tmp_path / "x.tar", [*GOOD, *(link(f"a/{number}.jpg", "x") for number in range(9))])
    assert reasons(read(path, tmp_path / "cache")) == {
        "a/0.jpg": "a link",
        "a/1.jpg": "a link",
        "a/2.jpg": "a link",
        "": "too many to list",
    }


def test_unpacking_stops_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LOOK_BYTES", 500)
    monkeypatch.setattr(journal, "_RESERVE_BYTES", 1 << 60)
    with pytest.raises(SourceError.__base__, match=r"the unpacked images and a reserve need about .*; use --cache DIR"):
        read(tar(tmp_path / "x.tar", GOOD), tmp_path / "cache")


def test_fields_of_one_sample_are_limited_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loaderbench.images.webdataset.LARGEST_BYTES", len(image(1)) + 100)
    path = tar(tmp_path / "x.tar", [("1.jpg", image(1)), ("1.cls", b"4"), ("1.back.jpg", image(2))])
    found = read(path, tmp_path / "cache")
    assert list(contents(found).values()) == [image(1)]
    assert reasons(found) == {"1.back.jpg": "larger than 0 MiB, with the rest of its sample"}


def test_deeply_nested_json_costs_its_sample_only(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "x.tar", [("1.jpg", image(1)), ("1.cls", b"4"), ("2.jpg", image(2)), ("2.json", b"[" * 100_000)]
    )
    found = read(path, tmp_path / "cache")
    assert list(contents(found).values()) == [image(1)]
    assert reasons(found) == {"2": "no label: no number in cls, and none as label in json"}


def test_a_table_of_labels_whose_short_lines_stand_for_many_cells_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MOST_CELLS", 5000)
    columns = ["file_name", "label", *map(str, range(1000))]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(image(1))
    (tmp_path / "images" / "metadata.csv").write_text("\n".join([",".join(columns), *["1.jpg,a"] * 9]))
    with pytest.raises(SourceError, match=r"metadata.csv is damaged: it has more than 5,000 cells"):
        read(tmp_path / "images", tmp_path / "cache")


def test_limits_grow_with_the_archive() -> None:
    assert archives.most_bytes(0) == 64 * MIB
    assert archives.most_bytes(10**9) > 10**11
