"""Read folders that hold splits, whose labels are in a file, or that lie in each other, besides plain class folders."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from loaderbench.images import tables
from loaderbench.images.class_folders import class_names, scan
from loaderbench.images.splits import SPLITS, TRAIN, are_parts, is_images, no_split, split_in
from loaderbench.images.tables import Table
from loaderbench.images.tree import (
    LABELS_BELOW,
    ImageTree,
    Rejected,
    SourceError,
    Walk,
    folders_in,
    holds_image,
    is_ignored,
)
from loaderbench.machine.text import names, printable, quoted

_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
"""Where Kaggle's ImageNet has its splits."""
_LEVELS = 5
"""How many folders may lie in each other above those of splits or classes."""
_BESIDE_IMAGES = re.compile(r"(mask|label|annotation|segmentation|ground_?truth|gt|trimap|depth).*")
"""Names of folders that are skipped beside a folder of images, in lower case."""


def read(path: Path, split: str | None) -> ImageTree:
    """Return the images of a folder, or of one split if its subfolders are splits. Raises SourceError.

    `split`: None takes training, or the only split that is there.
    """
    root = _inner(path, ())
    splits = _splits(root)
    if not splits:
        in_classes = _splits_in_classes(root)
        if split and split not in (in_classes or {TRAIN}):
            raise no_split(split, path, in_classes)
        tree = _labelled(root, ())
        if in_classes:
            tree = _of_split(tree, split or (TRAIN if TRAIN in in_classes else min(in_classes)))
        return tree if root == path else _noted(tree, _beside(root, path), "")
    chosen = split or (TRAIN if TRAIN in splits else next(iter(splits)))
    if chosen not in splits:
        raise no_split(chosen, path, splits)
    known = () if chosen == TRAIN or TRAIN not in splits else _class_names(_inner(_one(splits[TRAIN], TRAIN), ()))
    folder = _inner(_one(splits[chosen], chosen), known)
    others = [entry for entry in folders_in(root) if not folder.is_relative_to(entry) and holds_image(entry)]
    tree = _noted(
        _labelled(folder, known), [str(entry.relative_to(path)) for entry in others], ", --split chooses another"
    )
    if known and (new := tree.classes[len(known) :]):
        note = f"Classes that {TRAIN} lacks have the labels after its own: {names(new)}."
        return replace(tree, notes=(*tree.notes, note))
    return tree


def _noted(tree: ImageTree, skipped: Sequence[str], choice: str) -> ImageTree:
    """Return the tree with a note that names the folder that was read and what was skipped."""
    told = f"; {names(skipped)} are skipped{choice}" if skipped else ""
    return replace(tree, notes=(f"The folder {printable(tree.root)} is read{told}.", *tree.notes))


def _beside(root: Path, path: Path) -> list[str]:
    """Return what lies beside `root` and beside the folders between it and `path`, relative to `path`."""
    places = [place for place in (root, *root.parents) if place != path and place.is_relative_to(path)]
    entries = [entry for place in places for entry in place.parent.iterdir() if entry not in places]
    return sorted(str(entry.relative_to(path)) for entry in entries if not is_ignored(entry.name))


def _inner(path: Path, known: Sequence[str]) -> Path:
    """Return the first folder, at or in `path`, of splits, of several class folders, or of images with a table.

    `known`: names of classes, whose folders are not entered.
    """
    found = place = next((path / name for name in _KAGGLE if (path / name).is_dir()), path)
    for _ in range(_LEVELS):
        folders = folders_in(place)
        inner = _images_of(folders) or list(islice(filter(holds_image, folders), 2))
        if len(inner) > 1 or _splits(place) or _table(place):
            return place
        if not inner or inner[0].name in known or not all(any(folder.iterdir()) for folder in folders):
            break
        [place] = inner
        if is_images(place.name):
            found = place
    return found


def _images_of(folders: Sequence[Path]) -> list[Path]:
    """Return the folder of images if all others that hold images are its masks or labels by name; else nothing."""
    images = [folder for folder in folders if is_images(folder.name)]
    others = [folder for folder in folders if not _BESIDE_IMAGES.fullmatch(folder.name.lower())]
    return images if len(images) == 1 and [*filter(holds_image, others)] == images else []


def _splits(path: Path) -> dict[str, list[Path]]:
    """Return the folders of each split in a folder, training first; empty if its folders are no splits.

    Folders are splits if two of them differ in the split and in numbers only, as seg_train and seg_test do; if each
    that holds images is named by a split; or if a single one holds folders.
    """
    folders = folders_in(path)
    found = {folder: word for folder in folders if (word := split_in(folder.name))}
    for rest in sorted({rest for _, rest in found.values()}):
        alike = [folder for folder in found if found[folder][1] == rest]
        if len({found[folder][0] for folder in alike}) > 1 and any(map(holds_image, alike)):
            return _grouped(alike, found)
    if found and not any(holds_image(folder) for folder in folders if folder not in found):
        single = next(iter(found))
        if len({split for split, _ in found.values()}) > 1 or (single.name.lower() in SPLITS and _is_labelled(single)):
            return _grouped(found, found)
    return {}


def _splits_in_classes(path: Path) -> set[str]:
    """Return the splits that each class folder holds, judged by two of them; empty if they hold none or only one."""
    first = [set(_splits(folder)) for folder in islice(filter(holds_image, folders_in(path)), 2)]
    common = set.intersection(*first) if len(first) > 1 else set()
    return common if len(common) > 1 else set()


def _of_split(tree: ImageTree, split: str) -> ImageTree:
    """Return the images that are in a split's folder of their class folder."""
    found = [split_in(path.split("/")[1]) for path in tree.paths]
    kept = [place for place, (of, _) in enumerate(word or ("", "") for word in found) if of == split]
    note = f"The class folders hold splits: {split} is read; the others are skipped, --split chooses another."
    return replace(
        tree,
        paths=tuple(tree.paths[place] for place in kept),
        labels=tree.labels[kept],
        sizes_bytes=tree.sizes_bytes[kept],
        times_ns=tree.times_ns[kept],
        notes=(note, *tree.notes),
    )


def _grouped(folders: Iterable[Path], found: Mapping[Path, tuple[str, str]]) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for folder in sorted(folders, key=lambda folder: (found[folder][0] != TRAIN, folder)):
        splits.setdefault(found[folder][0], []).append(folder)
    return splits


def _one(folders: Sequence[Path], split: str) -> Path:
    """Return the only folder of a split, or the one that is named by it alone. Raises SourceError."""
    exact = [folder for folder in folders if folder.name.lower() in SPLITS]
    if len(chosen := exact or folders) > 1:
        linked = " ".join(f"{quoted(folder.resolve())}/*" for folder in chosen)
        raise SourceError(
            f"{printable(chosen[0].parent)} holds several folders of the split {split}: "
            f"{names([folder.name for folder in chosen])}. Name one of them with --data; or, if the classes are "
            f"distributed over them, link all into one folder and name that: mkdir {split} && ln -s {linked} {split}"
        )
    return chosen[0]


def _is_labelled(folder: Path) -> bool:
    return bool(folders_in(folder)) or _table(folder) is not None


def _table(folder: Path) -> Table | None:
    """Return the file that gives the labels of a folder without class folders. Raises SourceError if it is damaged."""
    folders = folders_in(folder)
    several = len(list(islice(filter(holds_image, folders), 2))) > 1 and not are_parts([of.name for of in folders])
    return tables.find(folder) if not several and holds_image(folder) else None


def _class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of all classes of a split."""
    table = _table(folder)
    return _numbered(set(table.labels.values()) - {""})[0] if table else class_names(folder)


def _labelled(folder: Path, known: Sequence[str]) -> ImageTree:
    """Return the images of a folder, with the labels of its file if they are in no class folders.

    `known`: classes of another split of the same data. Raises SourceError.
    """
    if (table := _table(folder)) and (tabulated := _tabulated(folder, table, known)):
        return tabulated
    tree = scan(folder, known)
    if known and tree.classes == (tree.root.name,):
        raise SourceError(
            f"the images in {printable(folder)} have no labels: they are in no class folder, and no file gives them. "
            f"Put {tables.USUAL} with the columns file_name and label into that folder, or name another split"
        )
    return tree


def _tabulated(folder: Path, table: Table, known: Sequence[str]) -> ImageTree | None:
    """Return the images of a folder with the labels of a table; None if it has other ones. Raises SourceError."""
    walk, where = Walk(folder), printable(table.file)
    folder = walk.root
    below = folder.relative_to(table.file.parent) if folder.is_relative_to(table.file.parent) else Path()
    classes, labels = _numbered(set(table.labels.values()) - {""}, known)

    def label_of(path: str) -> int:
        if name := table.label(str(below / path)):
            return labels[name]
        reason = "no label" if name is None else "several labels"
        walk.skipped.append(Rejected(path, f"{reason} in {table.file.name}"))
        return -1

    tree = walk.tree(sorted(walk.folders), classes, label_of, (f"The labels are those in {where}.",))
    if not tree.paths:
        if not tables.is_certain(table.file.name):
            return None
        raise SourceError(f"no image in {printable(folder)} has a label in {where}; see its columns and its file names")
    return tree


def _numbered(found: set[str], known: Sequence[str] = ()) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return all class names with the label of each, those `known` first. Numbers are labels themselves."""
    if known == tuple(map(str, range(len(known)))) and all(_is_label(name) for name in found):
        count = max(len(known), *(int(name) + 1 for name in found))
        return tuple(map(str, range(count))), {name: int(name) for name in found}
    classes = (*known, *sorted(found.difference(known)))
    return classes, {name: label for label, name in enumerate(classes)}


def _is_label(name: str) -> bool:
    return name.isdecimal() and int(name) < LABELS_BELOW
