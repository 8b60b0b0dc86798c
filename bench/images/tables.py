"""Read the labels of images from a file such as `metadata.csv`, Kaggle's `train.csv` or Roboflow's `_classes.csv`."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from loaderbench.images import imagenet
from loaderbench.images.splits import TRAIN, is_images, split_in
from loaderbench.images.tree import SourceError
from loaderbench.machine.text import printable

USUAL = "metadata.csv"
"""The file to recommend."""
_FIRST = (USUAL, "metadata.jsonl", "labels.csv", "val_annotations.txt")
"""Files that give labels, in the order of asking. Others that `is_table` knows come after them."""
_SUFFIXES = (".csv", ".jsonl", ".txt")
_STEM = re.compile(r"_classes|(labels?|metadata|data|info|images|set)?")
"""What a table's name may hold besides a split, in lower case."""
_FILE_COLUMNS = (
    *("file_name", "filename", "file", "path", "filepath", "file_path", "filepaths", "image", "image_name"),
    *("image_path", "image_id", "img", "id", "id_code", "name"),
)
_LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "category", "target", "species", "breed", "synset"),
    *("classname", "class_id", "classid", "category_id", "diagnosis"),
)
"""Names of columns in lower case, in the order of asking."""
_MOST_CELLS = 50_000_000
_ONE_HOT = {"0": False, "1": True, "0.0": False, "1.0": True}


@dataclass(frozen=True)
class Table:
    """A file that gives the labels of images."""

    file: Path
    labels: Mapping[str, str]
    """Class names by the path, name or stem of an image; empty for an image with several."""

    def label(self, path: str) -> str | None:
        """Return the class of an image, an empty string if it has several; `path`: as in the file, or longer."""
        name = PurePosixPath(path)
        return next((self.labels[key] for key in (path, name.name, name.stem) if key in self.labels), None)


def is_table(name: str) -> bool:
    """Return whether a file can give labels, by its name."""
    return name in _FIRST or _split_of(name) is not None


def is_certain(name: str) -> bool:
    """Return whether a table is meant to give labels, by its name; another one may be of other images."""
    return name in _FIRST or _split_of(name) is None


def find(folder: Path) -> Table | None:
    """Return the file that gives the labels of a folder's images, in it or above. Raises SourceError if it is damaged.

    Above is as far as folders are named by a split, or as folders of images are.
    """
    places = [folder]
    while is_images(places[-1].name) or split_in(places[-1].name):
        places.append(places[-1].parent)
    split = next((found[0] for place in places if (found := split_in(place.name))), TRAIN)
    for place in places:
        for file in _files(place, split):
            if labels := _labels(file):
                return Table(file.resolve(), labels)
    if any(path.name.startswith("ILSVRC2012_val_") for path in islice(folder.glob("*.JPEG"), 1)):
        for place in (folder, *folder.resolve().parents):
            if files := imagenet.truth(place):
                return Table(files[0], imagenet.ground_truth(place))
    return None


def _files(folder: Path, split: str) -> list[Path]:
    """Return the files in a folder that can give the labels of a split; none if it cannot be read."""
    there: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        there = sorted(entry.name for entry in entries if entry.name.endswith(_SUFFIXES) and entry.is_file())
    others = [name for name in there if name not in _FIRST and _split_of(name) in {"", split}]
    return [folder / name for name in (*_FIRST, *others) if name in there]


def _split_of(name: str) -> str | None:
    """Return the split in the name of a table, or an empty string; None if it is no table by name."""
    stem, _, suffix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().rpartition(".")  # Kaggle's trainLabels.csv
    split, rest = split_in(stem) or ("", stem)
    return split if stem and suffix in {"csv", "jsonl"} and _STEM.fullmatch(rest) else None


def _labels(file: Path) -> dict[str, str]:
    """Return the classes that a file gives, by the names of images; empty if it names no files or no classes.

    Raises SourceError.
    """
    try:
        rows, cells = [], 0
        for row in _rows(file.suffix, file.read_text("utf-8-sig")):
            rows.append(row)
            if (cells := cells + len(row)) > _MOST_CELLS:  # an empty row of many columns takes far more than its file
                raise ValueError(f"it has more than {_MOST_CELLS:,} cells")  # noqa: TRY301
    except UnicodeDecodeError:
        raise SourceError(f"{printable(file)} is not UTF-8; convert it, for example with iconv -f latin1") from None
    except (TypeError, ValueError, RecursionError, csv.Error) as error:
        raise SourceError(f"{printable(file)} is damaged: {' '.join(str(error).split())}") from None
    columns = {name.lower().strip(): name for name in (rows[0] if rows else ())}
    named, labelled = (
        next((columns[name] for name in candidates if name in columns), None)
        for candidates in (_FILE_COLUMNS, _LABEL_COLUMNS)
    )
    if named is None:
        return {}
    labels: dict[str, str] = {}
    pairs = _one_hot(rows, named) if labelled is None else ((row.get(named), row.get(labelled)) for row in rows)
    for name, label in pairs:
        if name is not None and label not in (None, ""):
            labels[str(name)] = str(label) if labels.get(str(name), str(label)) == str(label) else ""
    return labels


def _one_hot(rows: list[dict[str, str]], named: str) -> list[tuple[str, str]]:
    """Return each image with its class, if all other columns are classes, and one of them is 1; otherwise nothing."""
    classes = [name for name in rows[0] if name != named]
    if len(classes) < 2 or not all(str(row.get(name)) in _ONE_HOT for row in rows for name in classes):  # noqa: PLR2004
        return []
    found = [[name for name in classes if _ONE_HOT[str(row[name])]] for row in rows]
    return (
        [(row[named], of[0]) for row, of in zip(rows, found, strict=True)] if all(len(of) == 1 for of in found) else []
    )


def _rows(suffix: str, text: str) -> Iterator[dict[str, str]]:
    lines = io.StringIO(text)
    if suffix == ".jsonl":
        yield from (dict(json.loads(line)) for line in lines if line.strip())
    elif suffix == ".txt":  # of tiny-imagenet: the image, its synset and a box
        yield from csv.DictReader(lines, ["file", "class"], restkey="", delimiter="\t")
    else:
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        yield from csv.DictReader(lines, restkey="", delimiter=delimiter, skipinitialspace=True)
