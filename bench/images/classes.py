"""Number class folders by links or by renaming, and undo that.

The number is the position of the folder's name in sorted order: for ImageNet's 1000 synsets, the standard class index.
Numbers have leading zeros because torchvision's ImageFolder sorts names as text: 000002 comes before 000010, but 10
before 2.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from loaderbench.images.tree import SourceError
from loaderbench.images.unpack import class_folder
from loaderbench.machine.files import force_to_disk, write_whole
from loaderbench.machine.text import names, printable, quoted

JOURNAL = ".loaderbench-classes.json"
"""In the folder of class-index folders as long as one of them exists: where each came from."""


@dataclass(frozen=True)
class _Numbering:
    """Which class folders were numbered, and how."""

    source: str
    classes: list[str]
    """Names of the class folders, sorted."""
    move: bool

    def folders(self, out: Path) -> list[tuple[Path, Path]]:
        """Return each class folder with its class-index folder."""
        return [(Path(self.source, name), out / class_folder(label)) for label, name in enumerate(self.classes)]


def number(source: Path, out: Path, *, move: bool) -> int:
    """Number the class folders in `source`: link to them in `out`, or with `move` rename them into `out`.

    Return the number of classes. After a kill the same call resumes, and `undo` restores. Raises SourceError.
    """
    source, out = source.resolve(), out.resolve()
    numbering = _read(out) or _begin(source, out, move=move)
    if (numbering.source, numbering.move) != (str(source), move):
        raise SourceError(
            f"{printable(out)} was made from another folder or with another --move setting. "
            f"First undo it: loaderbench classes {quoted(out)} --undo"
        )
    for folder, numbered in numbering.folders(out):
        if move and folder.exists():
            _rename(folder, numbered)
        elif not move and not numbered.is_symlink():
            numbered.symlink_to(folder, target_is_directory=True)
    return len(numbering.classes)


def moves_back(out: Path) -> str:
    """Return what `undo` would move and where to; empty if it only removes links. Raises SourceError.

    The journal says where, and whoever made the folder wrote the journal.
    """
    numbering = _made(out.resolve())
    return f"{names(numbering.classes)} to {printable(numbering.source)}" if numbering.move else ""


def undo(out: Path) -> int:
    """Restore what `number` changed, and remove `out`.

    Return the number of classes. After a kill the same call resumes. Raises SourceError before anything is changed.
    """
    out = out.resolve()
    numbering = _made(out)
    folders = numbering.folders(out)
    ours = {JOURNAL, *(numbered.name for _, numbered in folders)}
    if strange := sorted({path.name for path in out.iterdir()} - ours):
        raise SourceError(f"{printable(out)} holds other files: {names(strange)}; move them away first")
    taken = [str(folder) for folder, numbered in folders if folder.exists() and numbered.exists()]
    if numbering.move and taken:
        raise SourceError(f"these folders exist again where they came from: {names(taken)}; move them away first")
    for folder, numbered in folders:
        if not numbering.move:
            numbered.unlink(missing_ok=True)
        elif numbered.exists():
            _rename(numbered, folder)
    (out / JOURNAL).unlink()
    out.rmdir()
    return len(folders)


def _begin(source: Path, out: Path, *, move: bool) -> _Numbering:
    """Check that the folders can be numbered, and write the numbering. Raises SourceError."""
    if not source.is_dir():
        raise SourceError(f"{printable(source)} is no folder; name the folder of class folders")
    if out.is_relative_to(source):
        raise SourceError(f"{printable(out)} is inside {printable(source)}; name a folder outside it")
    if out.exists() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise SourceError(f"{printable(out)} is not empty; name a folder that does not exist yet")
    folders = sorted(entry for entry in source.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise SourceError(f"{printable(source)} holds no class folders; name a folder that does")
    if move and (links := [folder.name for folder in folders if folder.is_symlink()]):
        raise SourceError(f"these class folders are links: {names(links)}; omit --move to link to them")
    numbering = _Numbering(str(source), [folder.name for folder in folders], move)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / JOURNAL, json.dumps(asdict(numbering)))
    force_to_disk(out)
    return numbering


def _made(out: Path) -> _Numbering:
    if numbering := _read(out):
        return numbering
    raise SourceError(f"{printable(out)} was not made by loaderbench classes (no {JOURNAL}); nothing is changed")


def _read(out: Path) -> _Numbering | None:
    """Return the numbering of a folder, which may be a download; None if it has none. Raises SourceError."""
    path = out / JOURNAL
    if not path.is_file():
        return None
    try:
        numbering = _Numbering(**json.loads(path.read_bytes()))
        listed = [numbering.source, *numbering.classes]
        is_whole = isinstance(numbering.move, bool) and all(isinstance(each, str) for each in listed)
    except (RecursionError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise SourceError(f"{printable(path)} is damaged; nothing is changed")
    if odd := [name for name in numbering.classes if not name or name[0] == "." or "/" in name or "\0" in name]:
        raise SourceError(f"{printable(path)} names {names(odd)}, which is no class folder; nothing is changed")
    return numbering


def _rename(before: Path, after: Path) -> None:
    try:
        before.rename(after)
    except OSError as error:
        raise SourceError(
            f"{printable(before)} cannot be moved to {printable(after)} ({os.strerror(error.errno or 0).lower()}); "
            f"loaderbench classes {quoted(after.parent)} --undo restores all; links need no --move"
        ) from None
