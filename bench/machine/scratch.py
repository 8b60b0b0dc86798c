"""Keep all temporary files of a run in one folder below the cache, and remove those that a kill has left."""

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import printable

_LONGEST_SOCKET = "x" * 52
"""`multiprocessing` makes sockets in a folder of its own below that of a rank, which is below that of its trial."""


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Give a new folder in which this process, and all that it starts, keep temporary files until the block ends.

    It is below `cache`, unless sockets there would have too long a name; then it is in the folder for temporary files.
    Folders of processes that were killed are removed, with all processes that still use them. If there is no `cache`
    yet, it is made so that only this user can enter it: the images in it may be private. It is removed again if nothing
    was kept in it.

    Raises FixableError if no folder takes sockets.
    """
    is_new = not cache.exists()
    with suppress(OSError):  # a cache that cannot be made is reported later
        cache.resolve().parent.mkdir(parents=True, exist_ok=True)
        cache.resolve().mkdir(mode=0o700)
    roots = _usual(), "/tmp"  # noqa: S108 - `mkdtemp` makes a folder in it that nobody else can enter
    places = [cache.resolve() / "tmp" / "r", *(Path(root, "loaderbench.") for root in roots)]
    for place in places:
        _sweep(place)
    made = next(filter(None, map(_new, places)), None)
    if made is None:
        tried = ", ".join(printable(place.parent) for place in places)
        raise FixableError(
            f"no folder for temporary files takes sockets, whose paths have at most 107 bytes; tried {tried}. "
            "Set TMPDIR to a folder with a short path"
        )
    folder, end = made
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        with end:
            yield folder
    finally:
        tempfile.tempdir = before[0]
        del os.environ["TMPDIR"]
        if before[1] is not None:
            os.environ["TMPDIR"] = before[1]
        if is_new:
            with suppress(OSError):  # not empty
                (cache / "tmp").rmdir()
                cache.rmdir()


def _usual() -> str:
    """Return the folder for temporary files, or the one that there should be if none can be written."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "/tmp"  # noqa: S108 - as above


def _new(place: Path) -> tuple[Path, ExitStack] | None:
    """Return a new locked folder and what removes it; None where files, locks or sockets cannot be made.

    `place`: the path with which the folder's begins.
    """
    with suppress(OSError), ExitStack() as end:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=place.name, dir=place.parent))
        end.callback(shutil.rmtree, folder, ignore_errors=True)
        end.callback(os.close, _locked(folder))
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(folder / _LONGEST_SOCKET))
        (folder / _LONGEST_SOCKET).unlink()
        return folder, end.pop_all()
    return None


def _locked(folder: Path) -> int:
    """Return a descriptor that holds the lock of a folder. Raises OSError if a living process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(place: Path) -> None:
    """Remove this user's folders at a place whose owner has ended, and end the processes that still use them."""
    for folder in place.parent.glob(f"{place.name}*"):
        with suppress(OSError), ExitStack() as end:
            if folder.lstat().st_uid != os.geteuid():
                continue
            end.callback(os.close, _locked(folder))
            for process in psutil.process_iter(["environ"]):
                if Path((process.info["environ"] or {}).get("TMPDIR", "/")).is_relative_to(folder):
                    with suppress(psutil.Error):
                        process.kill()
            shutil.rmtree(folder, ignore_errors=True)
