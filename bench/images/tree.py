"""Walk through a folder: its images with their sizes and times, and what is skipped."""

import errno
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaderbench.images import foreign
from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import printable, quoted

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Extensions that torchvision's ImageFolder reads, in lower or upper case."""
LABELS_BELOW = 1_000_000
"""A larger number is not taken for a class index."""
_OF_SYSTEMS = {"@eaDir", "__MACOSX", "#recycle", "lost+found"}
"""Names of folders that systems add, some with thumbnails."""


_MOST_LISTED, _LONGEST_LISTED = 100_000, 1000
_MOST_VISITS = 64
"""How often one folder is read under different names. Links in each folder to the next ones could be without end."""


class SourceError(FixableError):
    """Images that cannot be used."""


@dataclass(frozen=True)
class Rejected:
    """An image or another entry that is skipped, in every format."""

    path: str
    """Relative to the root."""
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


class SkippedEntries(list[Rejected]):
    """The first 100,000 skipped entries of an archive, and the number of the others."""

    more = 0

    def add(self, path: str, reason: str) -> None:
        """Add an entry. Its path, which an archive gives, is cut at 1,000 characters."""
        if len(self) < _MOST_LISTED:
            self.append(Rejected(path[:_LONGEST_LISTED], reason))
        else:
            self.more += 1

    def listed(self) -> list[dict[str, str]]:
        """Return the entries as dicts, and a last one for those that are not listed."""
        more = [Rejected(f"{self.more} more entries", "too many to list")] if self.more else []
        return [asdict(entry) for entry in (*self, *more)]


@dataclass(frozen=True, eq=False)
class ImageTree:
    """The images of a folder in the order of torchvision's ImageFolder.

    Paths and class names are as `os.fsdecode` gives them; `printable` makes them fit for messages.
    """

    root: Path
    classes: tuple[str, ...]
    """Sorted. A label is an index into them; a class may have no image."""
    paths: tuple[str, ...]
    """Relative to the root."""
    labels: NDArray[np.int32]
    sizes_bytes: NDArray[np.int64]
    times_ns: NDArray[np.int64]
    skipped: tuple[Rejected, ...]
    """Entries that are no readable file, sorted by path."""
    notes: tuple[str, ...]
    """What the user may want to know, one sentence each."""

    @property
    def digest(self) -> str:
        """SHA-256 over the paths and sizes of the images."""
        return hashlib.sha256(os.fsencode("\0".join(self.paths)) + self.sizes_bytes.tobytes()).hexdigest()

    @cached_property
    def state(self) -> str:
        """SHA-256 over the root, what is skipped, the classes, and the paths, labels, sizes and times of the images."""
        skipped = [asdict(entry) for entry in self.skipped]
        state = hashlib.sha256(json.dumps([str(self.root), skipped]).encode())
        for texts in (self.paths, self.classes):
            state.update(os.fsencode("\0".join([*texts, ""])))
        for numbers in (self.labels, self.sizes_bytes, self.times_ns):
            state.update(numbers.tobytes())
        return state.hexdigest()


def changed_ns(status: os.stat_result) -> int:
    """Return a number that differs after a file's content was changed, also if its modification time was put back."""
    return status.st_mtime_ns ^ status.st_ctime_ns << 1  # one of both never hides the other


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder that `scan` reads, sorted; none if it cannot be read, which `scan` reports."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not is_ignored(entry.name))
    return []


def holds_image(folder: Path) -> bool:
    """Return whether a folder, or one below it, holds a file that is an image by name."""
    pending, seen = [folder], set[tuple[int, int]]()
    while pending:
        place = pending.pop()
        with suppress(OSError):
            if (identity := _identity(place.stat())) in seen:
                continue
            seen.add(identity)
            pending += folders_in(place)
            with os.scandir(place) as entries:
                if any(entry.name.lower().endswith(EXTENSIONS) and not is_ignored(entry.name) for entry in entries):
                    return True
    return False


def is_ignored(name: str) -> bool:
    """Return whether an entry is hidden, or a folder that systems add."""
    return name.startswith(".") or name in _OF_SYSTEMS


@dataclass(frozen=True)
class _Files:
    """The images of one folder, sorted by name."""

    names: tuple[str, ...]
    sizes_bytes: NDArray[np.int64]
    times_ns: NDArray[np.int64]


class Walk:
    """What is below a root, folder by folder; paths are relative to it. Raises SourceError."""

    def __init__(self, root: Path) -> None:
        self.root = root = Path(os.path.realpath(root))
        """Without links, so that a folder is the same by any name."""
        self.folders: dict[str, _Files] = {}
        self.top: set[str] = set()
        """First-level folders."""
        self.foreign: set[str] = set()
        """Those of them that hold files that are not images."""
        self.left_out: list[str] = []
        """First-level folders that are hidden or that a system added."""
        self.others: Counter[str] = Counter()
        """Files that are not images, by extension."""
        self.examples: dict[str, str] = {}
        """The first of them for each extension, by path."""
        self.skipped: list[Rejected] = []
        self._pending: list[tuple[str, frozenset[tuple[int, int]]]] = []
        self._visits: Counter[tuple[int, int]] = Counter()
        try:
            # A link to a folder above the root leads back into the root: a loop as well.
            above = frozenset(_identity(parent.stat()) for parent in root.parents)
            self._visit("", above | {_identity(root.stat())})
        except OSError as error:
            raise SourceError(_root_message(root, error)) from None
        while self._pending:
            folder, ancestors = self._pending.pop()
            try:
                self._visit(folder, ancestors)
            except OSError as error:
                self._skip(folder, error)

    def tree(
        self, folders: Iterable[str], classes: tuple[str, ...], label_of: Callable[[str], int], notes: tuple[str, ...]
    ) -> ImageTree:
        """Return the images of these folders, sorted by label and else in this order; a label below 0 omits one."""
        files = {folder: self.folders[folder] for folder in folders}
        paths = [f"{folder}/{name}" if folder else name for folder, of in files.items() for name in of.names]
        labels = np.array([label_of(path) for path in paths], np.int32)
        order = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
        return ImageTree(
            self.root,
            classes,
            tuple(paths[place] for place in order),
            labels[order],
            np.concatenate([of.sizes_bytes for of in files.values()])[order],
            np.concatenate([of.times_ns for of in files.values()])[order],
            tuple(sorted(self.skipped, key=lambda entry: entry.path)),
            notes,
        )

    def _visit(self, folder: str, ancestors: frozenset[tuple[int, int]]) -> None:
        images: list[tuple[str, int, int]] = []
        with os.scandir(self.root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if is_ignored(entry.name):
                    if not folder and entry.is_dir():
                        self.left_out.append(entry.name)
                    continue
                try:
                    if entry.is_dir():
                        self._descend(path, _identity(entry.stat()), ancestors)
                    else:
                        images += self._image(path, entry)
                except OSError as error:
                    self._skip(path, error)
        if images:
            names, sizes_bytes, times_ns = zip(*sorted(images), strict=True)
            self.folders[folder] = _Files(names, np.array(sizes_bytes, np.int64), np.array(times_ns, np.int64))

    def _descend(self, path: str, identity: tuple[int, int], ancestors: frozenset[tuple[int, int]]) -> None:
        if identity in ancestors:
            raise OSError(errno.ELOOP, "")
        self._visits[identity] += 1
        if self._visits[identity] > _MOST_VISITS:
            self.skipped.append(Rejected(path, f"a link to a folder that is read {_MOST_VISITS} times already"))
            return
        if "/" not in path:
            self.top.add(path)
        self._pending.append((path, ancestors | {identity}))

    def _image(self, path: str, entry: os.DirEntry[str]) -> Iterable[tuple[str, int, int]]:
        """Return the name, size and modification time of a file that is an image by name."""
        is_image = entry.name.lower().endswith(EXTENSIONS)
        if is_image or entry.is_symlink():  # a dangling link may have been a folder of images
            status = entry.stat()
            if is_image and not stat.S_ISREG(status.st_mode):
                self.skipped.append(Rejected(path, "not a regular file"))
            elif is_image and not status.st_size:
                self.skipped.append(Rejected(path, "empty file"))
            elif is_image:
                return [(entry.name, status.st_size, changed_ns(status))]
        if not is_image:
            self.foreign.add(path.partition("/")[0])
            extension = os.path.splitext(entry.name)[1].lower() or "no extension"  # noqa: PTH122
            self.others[extension] += 1
            self.examples[extension] = min(path, self.examples.get(extension, path))
        return []

    def _skip(self, path: str, error: OSError) -> None:
        reasons = {errno.ENOENT: "dangling link", errno.ELOOP: "link loop"}
        number = error.errno or 0
        self.skipped.append(Rejected(path, reasons.get(number, os.strerror(number).lower())))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _root_message(root: Path, error: OSError) -> str:
    where = printable(root)
    if isinstance(error, FileNotFoundError):
        return f"{where} does not exist; name a folder: make bench DATA=/path/to/imagefolder"
    if isinstance(error, NotADirectoryError) and (told := foreign.advice([root.name])):
        return f"{where} holds no image files: {told}"
    if isinstance(error, NotADirectoryError):
        return f"{where} is a file; name its folder: make bench DATA={quoted(root.parent)}"
    if isinstance(error, PermissionError):
        return f"{where} may not be read by this user; allow it: chmod -R u+rX {quoted(root)}"
    return f"{where} cannot be read: {os.strerror(error.errno or 0).lower()}"
