"""Choose the files of a split, such as training, by their names."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from loaderbench.images.tree import SourceError
from loaderbench.machine.text import names, printable

TRAIN = "train"
"""The split that is read by default, if it is there."""
SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split by each of its names, in lower case."""
_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])")
_OF_IMAGES = {"image", "images", "img", "imgs", "jpg", "jpegimages"}
"""Names of folders of images beside folders of masks or labels, in lower case."""
_PART = re.compile(r"(?<![a-z])(images?|imgs?|part|batch|shard|chunk)(?![a-z])")


def files_of(split: str | None, files: list[Path], root: Path | None = None) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of a split, and a note unless these are all files and of training.

    The last word for a split in a file's name counts, or in its path below `root`. If no name says training, the files
    without such a word are training. None takes the only split if all files are of one, otherwise training. Raises
    SourceError.
    """
    named = {file: str(file.relative_to(root) if root else file.name).lower() for file in files}
    splits = {file: found[0] for file, name in named.items() if (found := split_in(name))}
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


def split_in(name: str) -> tuple[str, str] | None:
    """Return the split that a name contains, and the name without it and without numbers; None if there is no split."""
    if not (found := list(_WORD.finditer(name.lower()))):
        return None
    rest = name[: found[-1].start()] + name[found[-1].end() :]
    return SPLITS[found[-1][0]], re.sub(r"\d", "", rest).strip("_-. ").lower()


def is_images(name: str) -> bool:
    """Return whether a folder's name says that it holds the images of a data set."""
    return name.lower() in _OF_IMAGES


def are_parts(names: Sequence[str]) -> bool:
    """Return whether folders are parts of one set by their names, which differ in numbers only: images_001."""
    alike = {re.sub(r"\d", "", name.lower()) for name in names}
    return len(names) > 1 and len(alike) == 1 and bool(_PART.search(alike.pop()))


def no_split(split: str, where: Path, there: Iterable[str]) -> SourceError:
    """Return the error of a split that is not there. It names those that are."""
    known = ", ".join(sorted(set(there)))
    instead = f"there are: {known}" if known else "no file name contains a split; name the split's own folder"
    return SourceError(f"{printable(where)} has no split {split}: {instead}")
