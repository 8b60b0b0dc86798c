"""How do synset folders become class-index folders, and back? By links, or by renaming them, with a journal.

The index is the place of the folder's name among the sorted names: for ImageNet's 1000 synsets, the standard index. A
loader that sorts class-index folders as text, as torchvision's ImageFolder does, gives the same labels only if they
have leading zeros: 000002 stands before 000010, but 10 before 2.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from loaderbench.images.tree import SourceError
from loaderbench.images.unpack import class_folder
from loaderbench.machine.files import force_to_disk, write_whole
from loaderbench.machine.text import names, printable

JOURNAL = ".loaderbench-classes.json"
"""In the folder of class-index folders, from before the first is made until the last is gone: where each came from."""


@dataclass(frozen=True)
class _Journal:
    source: str
    classes: list[str]
    """Names of the class folders, sorted."""
    move: bool

    def folders(self, out: Path) -> list[tuple[Path, Path]]:
        """Return each class folder with its class-index folder."""
        return [(Path(self.source, name), out / class_folder(label)) for label, name in enumerate(self.classes)]


def number(source: Path, out: Path, *, move: bool) -> int:
    """Give each class folder in `source` its class index, as a link in `out`, or with `move` by renaming it into `out`.

    Returns the number of classes. After a kill the same call goes on, and `undo` restores. Raises SourceError.
    """
    source, out = source.resolve(), out.resolve()
    journal = _read(out) or _begin(source, out, move=move)
    if (journal.source, journal.move) != (str(source), move):
        raise SourceError(f"{printable(out)} was made otherwise; first loaderbench classes '{printable(out)}' --undo")
    for folder, numbered in journal.folders(out):
        if move and folder.exists():
            _rename(folder, numbered)
        elif not move and not numbered.is_symlink():
            numbered.symlink_to(folder, target_is_directory=True)
    return len(journal.classes)


def undo(out: Path) -> int:
    """Put everything back to where `number` found it, and remove `out`.

    Returns the number of classes. After a kill the same call goes on. Raises SourceError, before anything is changed.
    """
    out = out.resolve()
    journal = _read(out)
    if not journal:
        raise SourceError(f"{printable(out)} was not made by loaderbench classes (no {JOURNAL}); nothing is changed")
    folders = journal.folders(out)
    ours = {JOURNAL, *(numbered.name for _, numbered in folders)}
    if strange := sorted({path.name for path in out.iterdir()} - ours):
        raise SourceError(f"{printable(out)} holds other things: {names(strange)}; move these away first")
    taken = [str(folder) for folder, numbered in folders if folder.exists() and numbered.exists()]
    if journal.move and taken:
        raise SourceError(f"something else is where these came from: {names(taken)}; move that away first")
    for folder, numbered in folders:
        if not journal.move:
            numbered.unlink(missing_ok=True)
        elif numbered.exists():
            _rename(numbered, folder)
    (out / JOURNAL).unlink()
    out.rmdir()
    return len(folders)


def _begin(source: Path, out: Path, *, move: bool) -> _Journal:
    """Check that it can be done, and write the journal. Raises SourceError."""
    if not source.is_dir():
        raise SourceError(f"{printable(source)} is no folder; name the one that holds the class folders")
    if out.is_relative_to(source):
        raise SourceError(f"{printable(out)} lies within {printable(source)}; name a folder outside it")
    if out.exists() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise SourceError(f"{printable(out)} is not empty; name a folder that is not there yet")
    folders = sorted(entry for entry in source.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise SourceError(f"{printable(source)} holds no class folders; name the one that does")
    if move and (links := [folder.name for folder in folders if folder.is_symlink()]):
        raise SourceError(f"these class folders are links: {names(links)}; leave out --move to link to them")
    journal = _Journal(str(source), [folder.name for folder in folders], move)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / JOURNAL, json.dumps(asdict(journal)))
    force_to_disk(out)
    return journal


def _read(out: Path) -> _Journal | None:
    path = out / JOURNAL
    return _Journal(**json.loads(path.read_text())) if path.exists() else None


def _rename(before: Path, after: Path) -> None:
    try:
        before.rename(after)
    except OSError as error:
        raise SourceError(
            f"{printable(before)} cannot be moved to {printable(after)} ({os.strerror(error.errno or 0).lower()}); "
            f"loaderbench classes '{printable(after.parent)}' --undo moves all back; links need no --move"
        ) from None
