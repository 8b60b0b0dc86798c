"""Splits and files of labels, as data sets have them, give the images of one split with their labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loaderbench.campaign.schema import Data
from loaderbench.images import ImageTree, SourceError, find
from loaderbench.machine.progress import Display
from tests.archives import image, read
from tests.buckets import Shown


def plant(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(image(number))
    return root


def labelled(tree: ImageTree) -> dict[str, str]:
    """The class of each image by its path."""
    return {path: tree.classes[label] for path, label in zip(tree.paths, tree.labels, strict=True)}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class TestSplits:
    NAMES = ("train/a/1.jpg", "train/b/2.jpg", "train/c/3.jpg", "val/a/4.jpg", "val/c/5.jpg", "test/6.jpg")

    @pytest.fixture(params=["", "photos", "photos/v1"])
    def data(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        plant(tmp_path / "data" / request.param, *self.NAMES)
        return tmp_path / "data"

    def test_training_is_read_by_default(self, data: Path, cache: Path) -> None:
        tree = read(data, cache)
        assert labelled(tree) == {"a/1.jpg": "a", "b/2.jpg": "b", "c/3.jpg": "c"}
        assert any("train is read;" in note and "are skipped, --split chooses" in note for note in tree.notes)

    def test_label_in_validation_is_that_of_training(self, data: Path, cache: Path) -> None:
        tree = read(data, cache, "val")
        assert tree.labels.tolist() == [0, 2]
        assert tree.classes == ("a", "b", "c")

    def test_split_without_labels_is_refused(self, data: Path, cache: Path) -> None:
        with pytest.raises(SourceError, match=r"test have no labels: .*metadata.csv"):
            read(data, cache, "test")

    def test_split_that_is_not_there_is_refused(self, tmp_path: Path, cache: Path) -> None:
        with pytest.raises(SourceError, match="has no split test: there are: train, val"):
            read(plant(tmp_path / "data", *self.NAMES[:5]), cache, "test")

    def test_class_that_is_named_like_a_split_stays_a_class(self, tmp_path: Path, cache: Path) -> None:
        tree = read(plant(tmp_path / "data", "bus/1.jpg", "car/2.jpg", "train/3.jpg"), cache)
        assert tree.classes == ("bus", "car", "train")

    def test_images_are_read_without_their_masks(self, tmp_path: Path, cache: Path) -> None:
        tree = read(plant(tmp_path / "data", "images/1.jpg", "masks/1.png"), cache)
        assert tree.paths == ("1.jpg",)
        assert any("images is read; masks are skipped" in note for note in tree.notes)


def test_the_layout_that_was_read_is_printed(tmp_path: Path, cache: Path) -> None:
    display = Shown()
    find(plant(tmp_path / "data", *TestSplits.NAMES), Data(), cache, display)
    assert any("val" in line and "skipped" in line for line in display.said)


class TestKaggle:
    IMAGES = (
        "train/n01440764/n01440764_1.JPEG",
        "train/n01443537/n01443537_1.JPEG",
        "val/ILSVRC2012_val_00000001.JPEG",
    )

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        plant(tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC", *self.IMAGES, "test/ILSVRC2012_test_00000001.JPEG")
        (tmp_path / "kaggle" / "ILSVRC" / "Annotations").mkdir()
        solution = "ImageId,PredictionString\nILSVRC2012_val_00000001,n01443537 1 2 3 4\n"
        (tmp_path / "kaggle" / "LOC_val_solution.csv").write_text(solution)
        return tmp_path / "kaggle"

    def test_root_gives_training(self, data: Path, cache: Path) -> None:
        assert set(labelled(read(data, cache)).values()) == {"n01440764", "n01443537"}

    @pytest.mark.parametrize("below", ["", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC"])
    def test_validation_has_the_labels_of_the_solution(self, data: Path, cache: Path, below: str) -> None:
        tree = read(data / below, cache, "val")
        assert labelled(tree) == {"ILSVRC2012_val_00000001.JPEG": "n01443537"}
        assert tree.labels.tolist() == [1]


def test_tiny_imagenet_has_the_labels_of_its_annotations(tmp_path: Path, cache: Path) -> None:
    root = plant(
        tmp_path / "tiny", "train/n01/images/n01_0.JPEG", "train/n02/images/n02_0.JPEG", "val/images/val_0.JPEG"
    )
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t32\t44\t62\n")
    assert labelled(read(root, cache)) == {"n01/images/n01_0.JPEG": "n01", "n02/images/n02_0.JPEG": "n02"}
    assert read(root, cache, "val").labels.tolist() == [1]


class TestFilesOfLabels:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("metadata.csv", "file_name,caption,label\n1.jpg,x,dog\n2.jpg,y,cat\n"),
            ("metadata.jsonl", '{"file_name": "1.jpg", "label": "dog"}\n{"file_name": "2.jpg", "label": "cat"}\n'),
            ("labels.csv", "id,breed\n1,dog\n2,cat\n"),
            ("labels.csv", "\ufeffFilename,Class\n1.jpg,dog\n2.jpg,cat\n"),
        ],
    )
    def test_flat_folder_has_the_labels_of_its_file(self, tmp_path: Path, cache: Path, name: str, text: str) -> None:
        data = plant(tmp_path / "data", "1.jpg", "2.jpg")
        (data / name).write_text(text)
        assert labelled(read(data, cache)) == {"2.jpg": "cat", "1.jpg": "dog"}

    def test_numbers_are_the_labels_themselves(self, tmp_path: Path, cache: Path) -> None:
        data = plant(tmp_path / "data", "1.jpg", "2.jpg")
        (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows(1, 12) + _rows(2, 3)))
        tree = read(data, cache)
        assert dict(zip(tree.paths, tree.labels.tolist(), strict=True)) == {"1.jpg": 12, "2.jpg": 3}

    def test_image_without_a_label_is_left_out(self, tmp_path: Path, cache: Path) -> None:
        data = plant(tmp_path / "data", "1.jpg", "2.jpg")
        (data / "labels.csv").write_text("id,label\n1,dog\n")
        tree = read(data, cache)
        assert tree.paths == ("1.jpg",)
        assert [str(entry) for entry in tree.skipped] == ["2.jpg: no label in labels.csv"]

    def test_file_that_fits_no_image_is_refused(self, tmp_path: Path, cache: Path) -> None:
        (plant(tmp_path / "data", "1.jpg") / "labels.csv").write_text("id,label\nother,dog\n")
        with pytest.raises(SourceError, match=r"no image in .* has a label in .*labels.csv"):
            read(tmp_path / "data", cache)

    def test_damaged_file_is_named(self, tmp_path: Path, cache: Path) -> None:
        (plant(tmp_path / "data", "1.jpg") / "metadata.jsonl").write_text("{")
        with pytest.raises(SourceError, match=r"metadata.jsonl is damaged: "):
            read(tmp_path / "data", cache)

    def test_file_of_captions_gives_no_labels(self, tmp_path: Path, cache: Path) -> None:
        (plant(tmp_path / "data", "1.jpg") / "metadata.csv").write_text("file_name,text\n1.jpg,a dog\n")
        assert read(tmp_path / "data", cache).classes == ("data",)


def _rows(number: int, label: int) -> list[dict[str, object]]:
    return [{"file_name": f"{number}.jpg", "label": label}]


@pytest.mark.parametrize(("data", "cache"), [("same", "same"), ("same", "same/cache"), ("cache/photos", "cache")])
def test_cache_among_the_images_is_refused(tmp_path: Path, data: str, cache: str) -> None:
    plant(tmp_path / data, "a/1.jpg")
    with pytest.raises(SourceError, match=r"formats would be written among your images. Name another cache.*--cache"):
        find(tmp_path / data, Data(), tmp_path / cache, Display())
