"""Archives cannot write outside the cache, and a truncated archive is refused."""

from __future__ import annotations

import os
import resource
import shutil
import tarfile
from pathlib import Path

import pytest

from loaderbench.images import SourceError
from loaderbench.images import archives as reading
from loaderbench.machine.disk import DiskSpaceError
from tests import archives
from tests.archives import image, link, packed, reasons, tar


def synset(entries, name="n01440764") -> tuple[str, bytes]:
    return f"{name}.tar", packed(entries)


def evil(folder: Path) -> list[tuple[str, bytes] | tarfile.TarInfo]:
    """Return members that would do harm if they were extracted by name, and some that would not."""
    sparse = tarfile.TarInfo("sparse.jpg")
    sparse.type = tarfile.GNUTYPE_SPARSE
    return [
        ("../up.jpg", image(1)),
        ("a/../../up.jpg", image(2)),
        (f"{folder}/absolute.jpg", image(3)),
        link("link.jpg", "/etc/passwd"),
        link("out", str(folder)),
        ("out/through.jpg", image(4)),
        link("hard.jpg", "../up.jpg", tarfile.LNKTYPE),
        link("pipe.jpg", "", tarfile.FIFOTYPE),
        link("device.jpg", "", tarfile.CHRTYPE),
        sparse,
        (".hidden.jpg", image(5)),
        ("README", b"no image"),
        (f"{'long' * 64}.jpg", image(6)),
        ("empty.jpg", b""),
        ("good.jpg", image(7)),
        ("good.jpg", image(8)),
        ("deep/good.jpg", image(9)),
    ]


REASONS = {
    "../up.jpg": "a name that leads out of the archive",
    "a/../../up.jpg": "a name that leads out of the archive",
    "link.jpg": "a link",
    "out": "a link",
    "hard.jpg": "a link",
    "pipe.jpg": "not a regular file",
    "device.jpg": "not a regular file",
    "sparse.jpg": "not a regular file",
    ".hidden.jpg": "not an image by name",
    "README": "not an image by name",
    f"{'long' * 64}.jpg": "name too long",
    "empty.jpg": "empty file",
    "good.jpg": "a file of this name came before",
    "deep/good.jpg": "an image of this name and class came before",
}


def everything(folder: Path) -> set[str]:
    return {str(Path(root, name)) for root, folders, files in os.walk(folder) for name in folders + files}


def test_harmful_members_are_skipped_with_reasons_and_write_nothing_elsewhere(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    path = tar(tmp_path / "train.tar", [synset(evil(outside))])
    before = everything(tmp_path)
    tree = archives.read(path, tmp_path / "cache")
    assert archives.contents(tree) == {"000000/good.jpg": image(7), "000000/through.jpg": image(4)}
    found = {name.removeprefix("n01440764.tar: "): reason for name, reason in reasons(tree).items()}
    assert found == {**REASONS, f"{outside}/absolute.jpg": "an absolute name"}
    new = everything(tmp_path) - before
    assert all(path.startswith(str(tmp_path / "cache")) for path in new)
    assert not any(Path(path).is_symlink() for path in new)


def test_a_member_with_nul_in_its_name_is_skipped(tmp_path):
    info = tarfile.TarInfo("x.jpg")
    info.pax_headers = {"path": "a\0b.jpg"}
    path = tar(tmp_path / "train.tar", [synset([info, ("good.jpg", image(1))])])
    assert list(reasons(archives.read(path, tmp_path / "cache")).values()) == ["a name that leads out of the archive"]


def test_members_too_large_for_an_image_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(reading.members, "__kwdefaults__", {"largest_bytes": 1 << 20})
    path = tar(tmp_path / "train.tar", [synset([("bomb.jpg", bytes(2 << 20)), ("good.jpg", image(1))])])
    assert reasons(archives.read(path, tmp_path / "cache")) == {"n01440764.tar: bomb.jpg": "larger than 1 MiB"}


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path):
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 2 << 20
    content = long.tobuf(tarfile.GNU_FORMAT) + b"a" * (2 << 20) + packed([("1.jpg", image(1))])
    path = tar(tmp_path / "train.tar", [("n01440764.tar", content)])
    with pytest.raises(SourceError, match=r"a header of 2,097,152 bytes"):
        archives.read(path, tmp_path / "cache")


def test_links_and_escaping_names_in_the_outer_tar_are_skipped(tmp_path):
    outer = [
        link("n00.tar", "/etc/passwd"),
        ("../n01.tar", packed([("x.jpg", image(1))])),
        synset([("a.jpg", image(2))]),
    ]
    tree = archives.read(tar(tmp_path / "train.tar", outer), tmp_path / "cache")
    assert archives.contents(tree) == {"000000/a.jpg": image(2)}
    assert reasons(tree) == {"n00.tar": "a link", "../n01.tar": "a name that leads out of the archive"}


def cuts() -> dict[str, tuple[bytes, str]]:
    """Return archives that end early or are damaged, with the message about the images before that."""
    two = packed([("1.jpg", image(1)), ("2.jpg", image(2))])
    second = two.index(b"2.jpg")
    bad_header = two[:second] + b"X" + two[second + 1 :]
    return {
        "within an image": (two[: second + 700], "The 1 images before it"),
        "within a header": (two[: second + 100], "The 1 images before it"),
        "between two members": (two[:second], "The 1 images before it"),
        "before the end mark": (two[: second + 512 + (len(image(2)) + 511) // 512 * 512], "The 2 images before it"),
        "with another one joined to it": (two + packed([("3.jpg", image(3))]), "The 2 images before it"),
        "damaged header": (bad_header, "The 1 images before it"),
    }


@pytest.mark.parametrize("cut", cuts())
def test_error_for_a_damaged_archive_names_the_place_and_nothing_is_kept(tmp_path, cut):
    content, before = cuts()[cut]
    path = tar(tmp_path / "train.tar", [("n01440764.tar", content)])
    with pytest.raises(
        SourceError, match=r"train.tar: n01440764.tar cannot be read( from byte [1-9][\d,]* on)? \(.+\)"
    ) as error:
        archives.read(path, tmp_path / "cache")
    assert before in str(error.value)
    assert list((tmp_path / "cache" / "ingested").iterdir()) == []


def test_a_truncated_outer_tar_is_refused_before_anything_is_written(tmp_path):
    path = tar(tmp_path / "train.tar", [synset([("1.jpg", image(1))]), synset([("2.jpg", image(2))], "n02")])
    path.write_bytes(path.read_bytes()[:-11_000])
    with pytest.raises(SourceError, match=r"train.tar cannot be read( from byte [1-9][\d,]* on)? .*; download"):
        archives.read(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_truncated_compressed_archive_is_refused(tmp_path, suffix):
    path = tar(tmp_path / f"shard.tar.{suffix}", [(f"{n}.{s}", c) for n in range(9) for s, c in SAMPLE], f"w:{suffix}")
    assert len(archives.read(path, tmp_path / "cache").paths) == 9
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(SourceError, match=r"cannot be read( from byte [1-9][\d,]* on)? \("):
        archives.read(path, tmp_path / "cache")


SAMPLE = (("jpg", image(0)), ("cls", b"0"))


@pytest.mark.parametrize("content", [b"", b"no tar at all", bytes(5000)[:100]])
def test_a_file_that_is_only_named_like_a_tar_is_refused(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(SourceError, match=r"x.tar cannot be read( from byte \d+ on)? \("):
        archives.read(tmp_path / "x.tar", tmp_path / "cache")


def test_error_for_an_archive_without_images_says_what_it_holds(tmp_path):
    path = tar(tmp_path / "x.tar", [synset([("1.txt", b"x")])])
    with pytest.raises(SourceError, match=r"no images in .*x.tar: 1 entries .*not an image by name.*make bench DATA="):
        archives.read(path, tmp_path / "cache")


def test_only_a_changed_archive_is_read_again(tmp_path):
    path = tar(tmp_path / "train.tar", [synset([("1.jpg", image(1))])])
    first = archives.read(path, tmp_path / "cache").root
    made = (first / "000000" / "1.jpg").stat()
    assert archives.read(path, tmp_path / "cache").root == first
    assert (first / "000000" / "1.jpg").stat() == made
    tar(path, [synset([("2.jpg", image(2))])])
    assert archives.read(path, tmp_path / "cache").root != first


def test_partial_data_of_an_earlier_version_is_removed(tmp_path):
    path = tar(tmp_path / "train.tar", [synset([("1.jpg", image(1))])])
    made = archives.read(path, tmp_path / "cache").root
    made.rename(made.with_name(made.name.partition("-")[0] + "-earlier.begun"))
    (other := made.with_name("other-earlier.begun")).mkdir()
    assert archives.read(path, tmp_path / "cache").root == made
    assert set(made.parent.iterdir()) == {made, other}


def test_an_archive_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    path = tar(tmp_path / "train.tar", [synset([("1.jpg", image(1))])])
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskSpaceError, match=r"need about .* are free; use --cache DIR"):
        archives.read(path, tmp_path / "cache")
    assert list((tmp_path / "cache" / "ingested").iterdir()) == []


def test_a_disk_that_fills_up_is_reported_and_no_image_is_kept(tmp_path):
    path = tar(tmp_path / "train.tar", [synset([("1.jpg", b"0" * 500), ("2.jpg", b"0" * 2000)])])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # a write stops after so many bytes, as on a full disk
    try:
        with pytest.raises(DiskSpaceError, match=r"filled up \(File too large\); .* not kept; use --cache DIR"):
            archives.read(path, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "cache" / "ingested").iterdir()) == []


def test_class_folders_are_used_in_place(tree, tmp_path):
    assert archives.read(tree, tmp_path / "cache").root == tree
    assert not (tmp_path / "cache").exists()


def test_error_for_a_forbidden_archive_says_permission_denied(tmp_path, monkeypatch):
    path = tar(tmp_path / "train.tar", [synset([("1.jpg", image(1))])])
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "")))
    with pytest.raises(SourceError, match=r"train.tar cannot be read: permission denied"):
        archives.read(path, tmp_path / "cache")
