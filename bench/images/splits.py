"""Choose the files of a split, such as training, by their names."""

import re
from collections.abc import Iterable
from pathlib import Path

from loaderbench.images.tree import SourceError
from loaderbench.machine.text import names, printable

TRAIN = "train"
"""The split that is read by default, if it is there."""
_WORD = re.compile(r"(?<![a-z])(train|val|valid|validation|test)(?![a-z])")
SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split by each of its names, in lower case."""


def files_of(split: str | None, files: list[Path], root: Path | None = None) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of a split, and a note unless these are all files and of training.

    The last word for a split in a file's name counts, or in its path below `root`. If no name says training, the files
    without such a word are training. None takes the only split if all files are of one, otherwise training. Raises
    SourceError.
    """
    named = {file: str(file.relative_to(root) if root else file.name).lower() for file in files}
    words = {file: found[-1] for file, name in named.items() if (found := _WORD.findall(name))}
    splits = {file: SPLITS[word] for file, word in words.items()}
    unnamed = [file for file in files if file not in splits]
    there = sorted(set(splits.values()))
    split = split or (there[0] if len(there) == 1 and not unnamed else TRAIN)
    chosen = [file for file in files if splits.get(file) == split] or (unnamed if split == TRAIN else [])
    if files and not chosen:
        raise no_split(split, files[0].parent, there)
    others = [file.name for file in files if file not in chosen]
    if split == TRAIN and not others:
        return chosen, ()
    skipped = f"; {len(others)} others are skipped: {names(others)}" if others else ""
    return chosen, (f"The files of the split {split} are read{skipped}.",)


def is_split(name: str) -> bool:
    """Return whether a name contains a split."""
    return bool(_WORD.search(name.lower()))


def no_split(split: str, where: Path, there: Iterable[str]) -> SourceError:
    """Return the error of a split that is not there. It names those that are."""
    known = ", ".join(sorted(set(there)))
    instead = f"there are: {known}" if known else "no file name contains a split; name the split's own folder"
    return SourceError(f"{printable(where)} has no split {split}: {instead}")
