"""List the images of a folder of class folders, as torchvision's ImageFolder orders them."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from loaderbench.images import foreign
from loaderbench.images.splits import are_parts, split_in
from loaderbench.images.tree import EXTENSIONS, ImageTree, SourceError, Walk, folders_in, holds_image, is_ignored
from loaderbench.machine.text import names, printable, quoted

_NAMED_EXTENSIONS = 5
_HOW_TO_LABEL = "For other classes, put metadata.csv with the columns file_name and label beside them."


def scan(root: Path, known: Sequence[str] = ()) -> ImageTree:
    """List the images below `root`: the first-level folder is the class, links are followed.

    An empty folder is a class too, so that it can keep the labels of two sets equal. Those `known` come first. Hidden
    entries are ignored, and nothing is written. Raises SourceError.
    """
    walk = Walk(root)
    classes, folders, notes = _classes(walk.root, walk, known)
    label_of = {name: label for label, name in enumerate(classes)}
    class_of = _class_of(walk.folders)
    return walk.tree(folders, classes, lambda path: label_of[class_of(path)] if folders != [""] else 0, notes)


def class_names(root: Path) -> tuple[str, ...]:
    """Return the names of the classes that `scan` finds, mostly without listing all images. Raises SourceError."""
    folders = folders_in(root)
    if folders and all(len(folder.name) == 1 for folder in folders):
        return scan(root).classes
    return tuple(folder.name for folder in folders if holds_image(folder) or not any(map(_is_other, folder.rglob("*"))))


def _is_other(path: Path) -> bool:
    return path.is_file() and not is_ignored(path.name)


def _class_of(folders: Iterable[str]) -> Callable[[str], str]:
    """Return what gives the class of a path: its first folder, or all if those are in folders by their first letter.

    Places365 and SUN397 have such folders: a/abbey, b/bakery/shop.
    """
    if all(path[1:3] == f"/{path[0]}" for path in folders if path):
        return lambda path: path.rpartition("/")[0]
    return lambda path: path.partition("/")[0]


def _classes(root: Path, walk: Walk, known: Sequence[str]) -> tuple[tuple[str, ...], list[str], tuple[str, ...]]:
    """Return class names, the folders with images in torchvision's order, and notes. Raises SourceError."""
    folders = sorted(filter(None, walk.folders), key=lambda path: (path.partition("/")[0], path))
    with_images = set(map(_class_of(folders), (f"{path}/" for path in folders)))
    ignored = [f"{_count(walk.others)} are ignored."] if walk.others else []
    if walk.left_out:
        ignored.append(f"{len(walk.left_out)} hidden or system folders are skipped: {names(sorted(walk.left_out))}.")
    if with_images:
        found = with_images | (walk.top - walk.foreign - {name[0] for name in with_images if "/" in name})
        classes = (*known, *sorted(found.difference(known)))
        return classes, folders, (*_notes(root, walk, classes, with_images), *ignored)
    if "" not in walk.folders:
        raise SourceError(_no_images(root, walk))
    note = f"The images are in no class folder: all are of one class. {_HOW_TO_LABEL}"
    return (root.name or "images",), [""], (note, *ignored)


def _notes(root: Path, walk: Walk, classes: tuple[str, ...], with_images: set[str]) -> Iterator[str]:
    """Yield what the user may want to know about the class folders."""
    if stray := walk.folders.get(""):
        yield f"{len(stray.names)} images beside the class folders are skipped."
    if len(classes) == 1:
        yield f"There is one class only: {printable(classes[0])}. {_HOW_TO_LABEL}"
    if are_parts(classes):
        yield f"The class folders ({names(classes)}) look like parts of one set. {_HOW_TO_LABEL}"
    if empty := sorted(set(classes) - with_images):
        yield f"{len(empty)} class folders hold no image, and keep their labels: {names(empty)}."
    if others := sorted(walk.top - {name for of in classes for name in (of, of.partition("/")[0])}):
        yield f"{len(others)} folders of other files are no classes: {names(others)}."
    if (numbers := [int(name) for name in classes if name.isdecimal()]) != sorted(numbers):
        yield (
            "The class folders are numbers, but sort as text, so that 10 comes before 2 and labels are other numbers; "
            "names with leading zeros, such as 002, keep them equal."
        )
    yield from _alike(classes)
    yield from _nested(root, walk, with_images)


def _alike(classes: Sequence[str]) -> Iterator[str]:
    """Yield a note of class names that differ only in case or in the form of their Unicode characters."""
    forms: dict[str, list[str]] = {}
    for name in classes:
        forms.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    if alike := [ascii(name) for of in forms.values() if len(of) > 1 for name in of]:
        yield f"Class names that differ only in case or in Unicode form are different classes: {names(alike)}."


def _nested(root: Path, walk: Walk, with_images: set[str]) -> Iterator[str]:
    """Yield a note if the images are in folders below the class folders, which may be the classes themselves."""
    folders = [path.partition("/")[::2] for path in walk.folders if path]
    if len(folders) < 2 * len(with_images) or not all(inner for _, inner in folders):
        return
    inner = {top: {below for of, below in folders if of == top} for top in with_images}
    common = sorted(set.intersection(*inner.values()))
    if common and all(map(split_in, common)):
        return  # `layouts` reads one of them
    told = f"The images are in {len(folders)} folders below {len(with_images)} class folders"
    meant = quoted(root / min(with_images))
    if len(with_images) > 1 and common:
        yield f"{told}, with the same names ({names(common)}). If those are the classes, name one folder: DATA={meant}"
    else:
        below = names(sorted(f"{top}/{below}" for top, below in folders))
        yield f"{told} ({below}). If those are the classes, link or move each of them into one folder, and name that."


def _no_images(root: Path, walk: Walk) -> str:
    seen = [_count(walk.others)] if walk.others else []
    if walk.skipped:
        seen.append(f"{len(walk.skipped)} unreadable entries ({walk.skipped[0]}, ...)")
    if told := foreign.advice([*(entry.name for entry in root.iterdir()), *walk.examples.values()]):
        return f"no images in {printable(root)}: {told}"
    return (
        f"no images in {printable(root)}: it holds {' and '.join(seen) or 'nothing'}. "
        f"Images end in {' '.join(EXTENSIONS)}; name a folder of class folders of images: "
        "make bench DATA=/path/to/imagefolder"
    )


def _count(others: Counter[str]) -> str:
    frequent = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:_NAMED_EXTENSIONS]
    kinds = ", ".join(f"{printable(kind)} {count}" for kind, count in frequent)
    rest = ", ..." if len(others) > _NAMED_EXTENSIONS else ""
    return f"{others.total()} files that are not images by name ({kinds}{rest})"
