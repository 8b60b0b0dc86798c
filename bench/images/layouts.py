"""Read folders that hold splits, or whose labels are in a file, besides plain folders of class folders."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from loaderbench.images import imagenet
from loaderbench.images.splits import SPLITS, TRAIN, no_split
from loaderbench.images.tree import EXTENSIONS, LABELS_BELOW, ImageTree, Rejected, SourceError, Walk, scan
from loaderbench.machine.text import names, printable

TABLES = ("metadata.csv", "metadata.jsonl", "labels.csv", "val_annotations.txt")
"""Files that give the labels of images, in the order of asking."""
_FILE_COLUMNS = ("file_name", "filename", "file", "path", "image", "image_name", "image_path", "image_id", "id", "name")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "species", "breed", "synset")
"""Names of columns in lower case, in the order of asking."""
_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
"""Where Kaggle's ImageNet has its splits."""
_LEVELS = 2
"""How far below a folder its splits may be, in folders that hold nothing else."""


@dataclass(frozen=True)
class _Table:
    """A file that gives the labels of images."""

    file: Path
    labels: Mapping[str, str]
    """Class names by the path, name or stem of an image."""

    def label(self, path: str) -> str | None:
        """Return the class of an image; `path`: relative to the folder of the file, or below it."""
        name = PurePosixPath(path)
        return next((self.labels[key] for key in (path, name.name, name.stem) if key in self.labels), None)


def read(path: Path, split: str | None) -> ImageTree:
    """Return the images of a folder, or of one split if its subfolders are splits. Raises SourceError.

    `split`: None takes training, or the only split that is there.
    """
    splits = _splits(path)
    if not splits:
        if split not in {None, TRAIN}:
            raise no_split(str(split), path, ())
        return _labelled(path, ())
    chosen = split or (TRAIN if TRAIN in splits else next(iter(splits)))
    if chosen not in splits:
        raise no_split(chosen, path, splits)
    known = set[str]() if chosen == TRAIN or TRAIN not in splits else _class_names(splits[TRAIN])
    tree = _labelled(splits[chosen], known)
    others = [str(splits[other].relative_to(path)) for other in splits if other != chosen]
    skipped = f"; {names(others)} are skipped, --split chooses another" if others else ""
    return replace(tree, notes=(f"The folder {printable(tree.root)} is read{skipped}.", *tree.notes))


def _splits(path: Path) -> dict[str, Path]:
    """Return the folders of splits below a path, training first; empty if its folders are no splits."""
    path = next((path / name for name in _KAGGLE if (path / name).is_dir()), path)
    for _ in range(_LEVELS + 1):
        folders = folders_in(path)
        splits = {SPLITS[folder.name.lower()]: folder for folder in folders if folder.name.lower() in SPLITS}
        others = [folder for folder in folders if folder.name.lower() not in SPLITS]
        parted = len(splits) > 1 or any(map(_is_labelled, splits.values()))
        if splits and parted and not any(map(_holds_image, others)):
            return dict(sorted(splits.items(), key=lambda item: item[0] != TRAIN))
        if len(folders) != 1:
            break
        [path] = folders
    return {}


def folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none if it cannot be read, which `scan` reports."""
    with suppress(OSError), os.scandir(path) as entries:
        return sorted(Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    return []


def _is_labelled(folder: Path) -> bool:
    return bool(folders_in(folder)) or _table(folder) is not None


def _holds_image(folder: Path) -> bool:
    return any(path.name.lower().endswith(EXTENSIONS) for path in folder.rglob("*"))


def _class_names(folder: Path) -> set[str]:
    """Return the names of all classes of a split."""
    table = _table(folder)
    return set(table.labels.values()) if table else {entry.name for entry in folders_in(folder)}


def _labelled(folder: Path, known: Iterable[str]) -> ImageTree:
    """Return the images of a folder, with the labels of its file if they are in no class folders.

    `known`: classes of another split of the same data. Raises SourceError.
    """
    if table := _table(folder):
        return _tabulated(folder, table, set(known))
    tree = scan(folder, known)
    if known and tree.classes == (tree.root.name,):
        raise SourceError(
            f"the images in {printable(folder)} have no labels: they are in no class folder, and no file gives them. "
            f"Put {TABLES[0]} with the columns file_name and label into that folder, or name another split"
        )
    return tree


def _tabulated(folder: Path, table: _Table, known: set[str]) -> ImageTree:
    """Return the images of a folder with the labels of a table. Raises SourceError."""
    walk, where = Walk(folder), printable(table.file)
    folder = walk.root
    below = folder.relative_to(table.file.parent) if folder.is_relative_to(table.file.parent) else Path()
    classes, labels = _numbered(known | set(table.labels.values()))

    def label_of(path: str) -> int:
        name = table.label(str(below / path))
        if name is None:
            walk.skipped.append(Rejected(path, f"no label in {table.file.name}"))
        return -1 if name is None else labels[name]

    tree = walk.tree(sorted(walk.folders), classes, label_of, (f"The labels are those in {where}.",))
    if not tree.paths:
        raise SourceError(f"no image in {printable(folder)} has a label in {where}; see its columns and its file names")
    return tree


def _numbered(names: set[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return all class names with the label of each. Numbers are labels themselves."""
    if all(name.isdecimal() and int(name) < LABELS_BELOW for name in names):
        return tuple(map(str, range(max(map(int, names)) + 1))), {name: int(name) for name in names}
    classes = tuple(sorted(names))
    return classes, {name: label for label, name in enumerate(classes)}


def _table(folder: Path) -> _Table | None:
    """Return the file that gives the labels of a folder without class folders. Raises SourceError if it is damaged."""
    if not folder.is_dir() or len(list(islice(filter(_holds_image, folders_in(folder)), 2))) > 1:
        return None
    above = [folder.parent] if folder.name.lower() in {"images", *SPLITS} else []
    for place in (folder, *above):
        for name in TABLES:
            if (place / name).is_file() and (labels := _labels(place / name)):
                return _Table((place / name).resolve(), labels)
    if any(path.name.startswith("ILSVRC2012_val_") for path in islice(folder.glob("*.JPEG"), 1)):
        for place in (folder, *folder.resolve().parents):
            if files := imagenet.truth(place):
                return _Table(files[0], imagenet.ground_truth(place))
    return None


def _labels(file: Path) -> dict[str, str]:
    """Return the classes that a file gives, by the names of images; empty if it names no files or no classes.

    Raises SourceError.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(_rows(file.suffix, lines))
    except (TypeError, ValueError, RecursionError, csv.Error) as error:
        raise SourceError(f"{printable(file)} is damaged: {' '.join(str(error).split())}") from None
    columns = {name.lower().strip(): name for name in (rows[0] if rows else ())}
    named, labelled = (
        next((columns[name] for name in candidates if name in columns), None)
        for candidates in (_FILE_COLUMNS, _LABEL_COLUMNS)
    )
    if named is None or labelled is None:
        return {}
    return {str(row[named]): str(row[labelled]) for row in rows if named in row and row.get(labelled) not in (None, "")}


def _rows(suffix: str, lines: Iterable[str]) -> Iterator[dict[str, str]]:
    if suffix == ".jsonl":
        yield from (dict(json.loads(line)) for line in lines if line.strip())
    elif suffix == ".txt":  # of tiny-imagenet: the image, its synset and a box
        yield from csv.DictReader(lines, ["file", "class"], restkey="", delimiter="\t")
    else:
        yield from csv.DictReader(lines, restkey="")
