"""Locks and drafts follow no links, and a folder is complete only when its files have reached the disk."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loaderbench import Artifact
from loaderbench.api import Encoding
from loaderbench.machine import files
from loaderbench.machine.disk import DiskSpaceError
from loaderbench.machine.errors import FixableError
from loaderbench.machine.files import building, locked, new_file, write_whole


def describe(folder: Path) -> None:
    Artifact("f", str(folder / "files"), 1, 1, 1, 1, Encoding("jpeg"), classes=1).describe()


@pytest.mark.parametrize(
    ("link", "write"),
    [
        ("env.partial", lambda folder: write_whole(folder / "env.json", "{}")),
        ("artifact.partial", describe),
        ("log", lambda folder: new_file(folder / "log").close()),
    ],
    ids=["draft", "description", "log"],
)
def test_a_file_is_written_in_the_place_of_a_link_and_not_through_it(
    tmp_path: Path, link: str, write: Callable[[Path], None]
) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("important")
    folder.mkdir()
    (folder / link).symlink_to(victim)
    write(folder)
    assert victim.read_text() == "important"


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("important")
    (tmp_path / ".lock").symlink_to("victim")
    with pytest.raises(FixableError, match=r"\.lock is a link, which no lock follows; remove it"), locked(tmp_path, ""):
        pass
    assert (tmp_path / "victim").read_text() == "important"


@pytest.mark.parametrize(("folder", "lock"), [(0o700, 0o600), (0o755, 0o644), (0o2775, 0o664)])
def test_whoever_may_write_to_a_folder_may_lock_it(tmp_path: Path, folder: int, lock: int) -> None:
    tmp_path.chmod(folder)
    with locked(tmp_path, ""):
        assert (tmp_path / ".lock").stat().st_mode & 0o777 == lock


def test_the_lock_of_another_user_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.FileLock, "acquire", refused)
    reason = r"\.lock cannot be opened: it is another user's; use another folder"
    with pytest.raises(FixableError, match=reason), locked(tmp_path, ""):
        pass


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_folder_is_not_built_through_a_link(tmp_path: Path, *, goes_on: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ("new.begun" if goes_on else "new.partial")).symlink_to("elsewhere")
    with building(tmp_path / "new", goes_on=goes_on) as partial:
        (partial / "file").touch()
    assert not any((tmp_path / "elsewhere").iterdir())
    assert (tmp_path / "new" / "file").exists()


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_folder_whose_files_did_not_reach_the_disk_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, goes_on: bool
) -> None:
    def lost(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "flush_disk", lost)
    expected = DiskSpaceError if number == errno.ENOSPC else FixableError
    with pytest.raises(expected, match="new"), building(tmp_path / "new", goes_on=goes_on) as partial:
        (partial / "file").write_text("x")
    assert not any(tmp_path.iterdir())


@pytest.fixture
def losing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 64 MiB on which only about 6 MiB can be kept: the kernel notices when it writes the pages."""
    monkeypatch.setattr(files, "_syncfs", ctypes.CDLL(None, use_errno=True).syncfs)  # other tests do without
    small, mounted = tmp_path / "small", tmp_path / "mounted"
    small.mkdir()
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)
    try:
        with (small / "disk").open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", small / "disk"], check=True)
        subprocess.run(["mount", "-o", "loop", small / "disk", mounted], check=True)
        try:
            yield mounted
        finally:
            subprocess.run(["umount", mounted], check=True)
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")
def test_a_disk_that_loses_pages_after_the_write_makes_no_complete_folder(losing: Path) -> None:
    told = "the disk lost what was written|filled up"  # the kernel reports either, depending on when it writes
    with pytest.raises(FixableError, match=told), building(losing / "new") as partial:
        (partial / "file").write_bytes(os.urandom(20 << 20))
    assert not (losing / "new").exists()
