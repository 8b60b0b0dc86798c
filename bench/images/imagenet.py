"""Read ImageNet's original tar archives. An image's class index is the position of its synset in sorted order.

- `ILSVRC2012_img_train.tar` holds one tar per synset. These are read as streams and not written to disk.
- `ILSVRC2012_img_val.tar` holds images only. Their synsets are in other files of its folder: `LOC_val_solution.csv`, or
  the development kit, `ILSVRC2012_devkit_t12.tar.gz`, packed or unpacked. The kit's `meta.mat` maps ids to synsets.
"""

import csv
import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from loaderbench.images.archives import Member, Reject, first_name, is_tar, members
from loaderbench.images.splits import TRAIN, no_split
from loaderbench.images.tree import SourceError
from loaderbench.images.unpack import Archive, Sample, Shard
from loaderbench.machine.text import printable

TRAINING, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
SOLUTION = "LOC_val_solution.csv"
KIT, KIT_FOLDER = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12/data"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
SPLITS = {TRAIN: TRAINING, "val": VALIDATION}
SYNSETS = 1000
IMAGES = {"training": 1_281_167, "validation": 50_000}
_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def find(path: Path, split: str | None) -> Archive | None:
    """Return ImageNet's archive for one of its tar files or a folder that holds them, else None. Raises SourceError."""
    if path.is_dir() and (there := {key: path / name for key, name in SPLITS.items() if (path / name).is_file()}):
        if split and split not in there:
            raise no_split(split, path, there)
        path = there[split or next(iter(there))]
    first = PurePosixPath(first_name(path)).name if is_tar(path) else ""
    holds = TRAIN if first.endswith(".tar") else "val" if _VALIDATION_IMAGE.fullmatch(first) else None
    if holds and split not in {None, holds}:
        raise no_split(str(split), path, [holds])
    return {TRAIN: _training_archive, "val": _validation_archive}[holds](path) if holds else None


def _training_archive(path: Path) -> Archive:
    labels = _labels(path)
    whole = len(labels) == SYNSETS
    note = f"{path.name} holds {len(labels)} synsets instead of {SYNSETS}; class indices count only these."
    return Archive(
        "ImageNet's training images",
        (path,),
        partial(_training, path, labels),
        IMAGES["training"] if whole else None,
        () if whole else (note,),
        tuple(labels),
    )


def _validation_archive(path: Path) -> Archive:
    files = (path, *truth(path.parent))
    what = "ImageNet's validation images"
    synset_of = ground_truth(path.parent)
    synsets = tuple(sorted(set(synset_of.values())))
    labels = {image: synsets.index(synset) for image, synset in synset_of.items()}
    samples, notes = partial(_validation, path, labels), (f"These are {what}, of the split val.",)
    return Archive(what, files, lambda _: [samples], IMAGES["validation"], notes, synsets)


def _labels(path: Path) -> dict[str, int]:
    """Return the class index of each synset, from the headers of the outer tar."""
    with path.open("rb") as file:
        tars = members(file, str(path), lambda *_: None, largest_bytes=None)
        synsets = sorted({PurePosixPath(tar.name).stem for tar in tars if tar.name.endswith(".tar")})
    return {synset: label for label, synset in enumerate(synsets)}


def _training(path: Path, labels: dict[str, int], reject: Reject) -> Iterator[Shard]:
    synsets: set[str] = set()
    with path.open("rb") as file:
        for tar in members(file, str(path), reject, largest_bytes=None):
            synset = PurePosixPath(tar.name).stem
            if not tar.name.endswith(".tar"):
                reject(tar.path, "not the tar of a synset")
            elif synset in synsets:
                reject(tar.path, "a tar of this synset came before")
            else:
                synsets.add(synset)
                yield partial(_synset, tar, labels[synset])


def _synset(tar: Member, label: int, reject: Reject) -> Iterator[Sample]:
    for image in members(tar.file, tar.path, reject):
        yield Sample(label, image.basename, image.read(), image.path)


def _validation(path: Path, labels: dict[str, int], reject: Reject) -> Iterator[Sample]:
    with path.open("rb") as file:
        for image in members(file, str(path), reject):
            stem = PurePosixPath(image.name).stem
            if stem in labels:
                yield Sample(labels[stem], image.basename, image.read(), image.path)
            else:
                reject(image.path, "no ground truth")


def truth(folder: Path) -> list[Path]:
    """Return the files in a folder that give the synsets of the validation images."""
    files = (folder / name for name in (SOLUTION, KIT, f"{KIT_FOLDER}/{META}", f"{KIT_FOLDER}/{TRUTH}", TRUTH))
    return list(filter(Path.is_file, files))


def ground_truth(folder: Path) -> dict[str, str]:
    """Return the synset of each validation image by its name without suffix. Raises SourceError."""
    solution, kit = folder / SOLUTION, _kit(folder)
    if not solution.is_file() and kit.keys() != {TRUTH, META}:
        raise SourceError(
            f"{printable(folder)} lacks the classes of {VALIDATION}: put {SOLUTION} beside it, or {KIT}, "
            f"which holds {TRUTH} and {META}"
        )
    try:
        if solution.is_file():
            with solution.open(newline="") as file:
                return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
        synset_of = _synsets_by_id(kit[META])
        ids = kit[TRUTH].split()
        return {f"ILSVRC2012_val_{number:08d}": synset_of[int(id_)] for number, id_ in enumerate(ids, 1)}
    except Exception as error:  # noqa: BLE001 - a damaged file can make a parser raise anything
        which = SOLUTION if solution.is_file() else f"{TRUTH} or {META}"
        raise SourceError(
            f"{which} in {printable(folder)} does not look like ImageNet's ({error!r}); download it again"
        ) from None


def _kit(folder: Path) -> dict[str, bytes]:
    """Return the contents of the development kit's two files, if they are there. Unpacked files take priority."""
    kit: dict[str, bytes] = {}
    if (folder / KIT).is_file():
        with (folder / KIT).open("rb") as file:
            packed = members(file, str(folder / KIT), lambda *_: None)
            kit = {member.basename: member.read() for member in packed if member.basename in {TRUTH, META}}
    for name in (TRUTH, META):
        for place in (folder / KIT_FOLDER / name, folder / name):
            if place.is_file():
                kit[name] = place.read_bytes()
    return kit


def _synsets_by_id(meta: bytes) -> dict[int, str]:
    from scipy.io import loadmat

    content = loadmat(io.BytesIO(meta), squeeze_me=True)  # type: ignore[arg-type] # it reads any binary file
    rows = np.atleast_1d(content["synsets"])
    return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
