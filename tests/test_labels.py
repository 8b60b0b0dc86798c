"""A label is the place of a class among all classes, so that it means the same in training and in validation."""

from __future__ import annotations

from pathlib import Path

import pytest

from loaderbench.api import Artifact, Work
from loaderbench.campaign import registry
from loaderbench.formats import prepare
from loaderbench.images.class_folders import scan
from loaderbench.loaders.lightning import DataModule
from loaderbench.machine.progress import Display
from tests.archives import image, read, tar
from tests.campaigns import campaign
from tests.parquet import dataset

WORK = Work(batch_size=4, workers=1, image_size=32, shuffle=False)


def folders(root: Path, **classes: int) -> Path:
    """Make class folders with the given numbers of images."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.jpg").write_bytes(image(number))
    return root


def prepared(root: Path, cache: Path) -> Artifact:
    return prepare(campaign({"a": {"loader": "imagefolder"}}), root, cache, Display(), strict=True).artifacts["files"]


def noted(root: Path, text: str) -> bool:
    return any(text in note for note in scan(root).notes)


class TestFolders:
    def test_empty_folder_is_a_class(self, tmp_path: Path) -> None:
        tree = scan(folders(tmp_path, a=1, b=0, c=1))
        assert tree.classes == ("a", "b", "c")
        assert tree.labels.tolist() == [0, 2]

    def test_folder_of_other_files_is_no_class(self, tmp_path: Path) -> None:
        (folders(tmp_path, b=1, c=1) / "annotations").mkdir()
        (tmp_path / "annotations" / "boxes.xml").write_text("<boxes/>")
        assert scan(tmp_path).classes == ("b", "c")
        assert noted(tmp_path, "1 folders of other files are no classes: annotations")

    def test_numbers_that_sort_as_text_are_noted(self, tmp_path: Path) -> None:
        assert noted(folders(tmp_path / "plain", **{"2": 1, "10": 1}), "sort as text")
        assert not noted(folders(tmp_path / "padded", **{"02": 1, "10": 1}), "sort as text")


class TestArchives:
    def test_label_of_a_shard_is_the_class_index_where_classes_are_missing(self, tmp_path: Path) -> None:
        samples = [(f"{index}.{end}", content) for index in (1, 4) for end, content in _fields(index)]
        tree = read(tar(tmp_path / "shard.tar", samples), tmp_path / "cache")
        assert tree.labels.tolist() == [1, 4]
        assert tree.classes == ("0", "1", "2", "3", "4")

    def test_classes_of_a_parquet_file_have_the_names_of_its_feature(self, tmp_path: Path) -> None:
        tree = read(dataset(tmp_path / "x.parquet", [(image(0), 2)]), tmp_path / "cache")
        assert tree.labels.tolist() == [2]
        assert tree.classes == ("cat", "dog", "fox")


def _fields(index: int) -> list[tuple[str, bytes]]:
    return [("jpg", image(index)), ("cls", str(index).encode())]


@pytest.mark.usefixtures("forked")
class TestDataModule:
    def test_formats_that_number_their_classes_differently_are_refused(self, tmp_path: Path) -> None:
        train = prepared(folders(tmp_path / "train", a=4, b=4, c=4, d=4), tmp_path / "cache")
        val = prepared(folders(tmp_path / "val", a=6, c=6, d=6), tmp_path / "cache")
        differing = "label 1 is 'b' in training and 'c' in validation, label 2 is 'c' in training and 'd' in validation"
        with pytest.raises(ValueError, match=differing):
            DataModule("imagefolder", WORK, train=train, val=val)

    def test_empty_folder_keeps_the_labels_of_two_sets_equal(self, tmp_path: Path) -> None:
        train = prepared(folders(tmp_path / "train", a=6, b=6, c=6), tmp_path / "cache")
        val = prepared(folders(tmp_path / "val", a=6, b=0, c=10), tmp_path / "cache")
        DataModule("imagefolder", WORK, train=train, val=Path(val.path).parent)
        with registry.loader("imagefolder").stream(val, WORK) as batches:
            assert [label for _, labels in batches for label in labels.tolist()] == [0] * 6 + [2] * 10

    def test_validation_may_lack_the_last_classes(self, tmp_path: Path) -> None:
        train = prepared(folders(tmp_path / "train", a=8, b=8), tmp_path / "cache")
        val = prepared(folders(tmp_path / "val", a=16), tmp_path / "cache")
        DataModule("imagefolder", WORK, train=train, val=val)
