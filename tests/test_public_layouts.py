"""Layouts that public data sets have are read with their classes and one of their splits, or a note says what to do."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from loaderbench.images import SourceError
from tests.archives import image, read, tar
from tests.test_layouts import labelled, plant

KAGGLE = "image_id,label\n0.jpg,frog\n1.jpg,cat\n"
ROBOFLOW = "filename, cat, frog\n0.jpg, 0, 1\n1.jpg, 1, 0\n"
READ: Mapping[str, tuple[Iterable[str], Mapping[str, str], Mapping[str, str]]] = {
    "one folder in another": (["set/set/cat/1.jpg", "set/set/dog/2.jpg", "__MACOSX/set/x.jpg"], {}, {}),
    "CUB-200": (["CUB/images/cat/1.jpg", "CUB/images/dog/2.jpg"], {"CUB/image_class_labels.txt": "1 1"}, {}),
    "Food-101": (["food-101/images/cat/1.jpg", "food-101/images/dog/2.jpg"], {"food-101/meta/train.txt": "x"}, {}),
    "class folders beside masks": (["images/cat/1.jpg", "images/dog/2.jpg", "annotations/trimaps/1.png"], {}, {}),
    "Intel": (
        ["seg_train/seg_train/cat/1.jpg", "seg_train/seg_train/dog/2.jpg", "seg_test/seg_test/cat/3.jpg"],
        {},
        {},
    ),
    "chest X-rays": (["x/train/cat/1.jpg", "x/train/dog/2.jpg", "x/test/cat/3.jpg", "x/x/train/cat/4.jpg"], {}, {}),
    "iNaturalist": (["train_mini/cat/1.jpg", "train_mini/dog/2.jpg", "val/cat/3.jpg", "public_test/4.jpg"], {}, {}),
    "dogs and cats": (["set/training_set/cat/1.jpg", "set/training_set/dog/2.jpg", "set/test_set/cat/3.jpg"], {}, {}),
    "Kaggle": (
        ["train_images/0.jpg", "train_images/1.jpg", "test_images/0.jpg"],
        {"train.csv": KAGGLE, "sample_submission.csv": "image_id,label\n0.jpg,none\n"},
        {"0.jpg": "frog", "1.jpg": "cat"},
    ),
    "CIFAR-10 of Kaggle": (
        ["train/0.png", "train/1.png", "test/0.png"],
        {"trainLabels.csv": "id,label\n0,frog\n1,cat\n"},
        {"0.png": "frog", "1.png": "cat"},
    ),
    "Roboflow": (
        ["train/0.jpg", "train/1.jpg", "valid/0.jpg"],
        {"train/_classes.csv": ROBOFLOW, "valid/_classes.csv": ROBOFLOW},
        {"0.jpg": "frog", "1.jpg": "cat"},
    ),
    "a column for each class": (
        ["images/a.jpg", "images/b.jpg"],
        {"train.csv": "image_id,rust,scab\na,0,1\nb,1,0\n"},
        {"images/a.jpg": "scab", "images/b.jpg": "rust"},
    ),
    "splits in class folders": (
        ["cat/train/1.jpg", "cat/test/2.jpg", "dog/train/3.jpg", "dog/test/4.jpg"],
        {},
        {"cat/train/1.jpg": "cat", "dog/train/3.jpg": "dog"},
    ),
    "parts": (
        ["set_part_1/0.jpg", "set_part_2/1.jpg"],
        {"metadata.csv": KAGGLE},
        {"set_part_1/0.jpg": "frog", "set_part_2/1.jpg": "cat"},
    ),
    "semicolons": (
        ["0.jpg", "1.jpg"],
        {"labels.csv": "file;class\n0.jpg;frog\n1.jpg;cat\n"},
        {"0.jpg": "frog", "1.jpg": "cat"},
    ),
    "Places365": (
        ["data/a/abbey/1.jpg", "data/a/alley/2.jpg", "data/b/bakery/shop/3.jpg"],
        {},
        {"a/abbey/1.jpg": "a/abbey", "a/alley/2.jpg": "a/alley", "b/bakery/shop/3.jpg": "b/bakery/shop"},
    ),
}
"""Paths of images, other files, and the class of each image that is read; if empty, class folders of cats and dogs."""


def lay(root: Path, images: Iterable[str], others: Mapping[str, str]) -> Path:
    plant(root, *images)
    for name, text in others.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def packed(root: Path) -> Path:
    """A zip of a folder, with an entry for each folder."""
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as out:
        for path in sorted(root.rglob("*")):
            out.write(path, path.relative_to(root))
    return root.with_suffix(".zip")


@pytest.mark.parametrize(("name", "packing"), list(product(READ, ["folder", "zip"])))
def test_layout_gives_the_classes_of_its_training_images(tmp_path: Path, name: str, packing: str) -> None:
    images, others, expected = READ[name]
    root = lay(tmp_path / "data", images, others)
    tree = read(packed(root) if packing == "zip" else root, tmp_path / "cache")
    assert labelled(tree) == (expected or {"cat/1.jpg": "cat", "dog/2.jpg": "dog"})


@pytest.mark.parametrize(
    ("images", "others", "told"),
    [
        (["jpg/1.jpg"], {"imagelabels.mat": ""}, "jpg is read; imagelabels.mat are skipped"),
        (["JPEGImages/1.jpg", "SegmentationObject/1.png"], {}, "JPEGImages is read; SegmentationObject are skipped"),
        (["train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg"], {}, "one class. For other classes, put metadata.csv"),
        (["train2017/1.jpg", "val2017/2.jpg"], {}, "train2017 is read; val2017 are skipped"),
        (["color/a/1.jpg", "color/b/2.jpg", "grey/a/1.jpg", "grey/b/2.jpg"], {}, "If those are the classes, name one"),
        (["birds/1/1.jpg", "birds/2/2.jpg", "cats/3/3.jpg", "cats/4/4.jpg"], {}, "link or move each of them into one"),
        (["Cat/1.jpg", "cat/2.jpg"], {}, "differ only in case or in Unicode form are different classes: 'Cat', 'cat'"),
        (
            ["images_001/1.png", "images_002/2.png"],
            {},
            "look like parts of one set. For other classes, put metadata.csv",
        ),
        (["a/train/x/1.png", "a/test/x/2.png", "b/train/x/3.png", "b/test/y/4.png"], {}, "class folders hold splits"),
    ],
    ids=["Flowers-102", "VOC", "cat.0.jpg", "COCO", "PlantVillage", "iNaturalist 2018", "case", "NIH", "MVTec"],
)
def test_note_says_what_a_layout_was_taken_for(
    tmp_path: Path, images: list[str], others: dict[str, str], told: str
) -> None:
    assert told in " ".join(read(lay(tmp_path / "data", images, others), tmp_path / "cache").notes)


def test_split_that_is_spread_over_folders_is_refused_with_the_command_that_joins_them(tmp_path: Path) -> None:
    root = plant(tmp_path / "data", "train.X1/a/1.jpg", "train.X2/b/2.jpg", "val.X/a/3.jpg")
    with pytest.raises(SourceError, match=r"split train: train.X1, train.X2.*mkdir train && ln -s .*/train.X1/\*"):
        read(root, tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("stl10_binary/train_X.bin", r"train_X.bin is a file of bare pixels, .*DATA=my_project.data:make_dataset"),
        ("cache.pkl", "a file of Python objects"),
        ("a/1.HEIC", "a/1.HEIC is an image of a kind that .*; convert such files to JPEG or PNG"),
        ("a/1.npz", "a/1.npz is NumPy arrays"),
        ("train/data-00000-of-00001.arrow", "write it as Parquet"),
        ("set.tfrecord-00000-of-00005", "TensorFlow's format"),
        ("train/000.tar", "000.tar is an archive; name it, or the folder that holds it"),
        ("train.zip", "train.zip is an archive; name it"),
        ("train.7z", "an archive of another kind; unpack it"),
        ("x.tar.zst", "an archive of another kind; unpack it"),
    ],
)
def test_error_for_a_folder_of_other_data_says_what_to_do(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        read(lay(tmp_path / "data", [], {name: "x", "README.md": "x"}), tmp_path / "cache")


@pytest.mark.parametrize("name", ["x.7z", "x.rar", "x.tar.zst"])
def test_error_for_an_archive_of_another_kind_says_to_unpack_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="an archive of another kind; unpack it, and name its folder"):
        read(lay(tmp_path, [], {name: "x"}) / name, tmp_path / "cache")


class TestLabels:
    def test_validation_keeps_the_labels_of_training_where_it_has_other_classes(self, tmp_path: Path) -> None:
        root = plant(tmp_path / "data", "train/a/1.jpg", "train/c/2.jpg", "val/b/3.jpg", "val/c/4.jpg")
        (root / "train" / "aaa.docs").mkdir()
        (root / "train" / "aaa.docs" / "notes.txt").touch()
        tree = read(root, tmp_path / "cache", "val")
        assert (tree.classes, labelled(tree)) == (("a", "c", "b"), {"c/4.jpg": "c", "b/3.jpg": "b"})
        assert any("Classes that train lacks have the labels after its own: b" in note for note in tree.notes)

    def test_numbers_in_a_file_are_the_class_folders_of_training(self, tmp_path: Path) -> None:
        root = plant(tmp_path / "data", *(f"Train/{number}/{number}.png" for number in range(11)), "Test/1.png")
        (root / "Test.csv").write_text("ClassId,Path\n10,Test/1.png\n")
        assert labelled(read(root, tmp_path / "cache", "test")) == {"1.png": "10"}
        assert read(root, tmp_path / "cache").classes.index("10") == 2

    def test_folder_above_the_images_need_not_be_readable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, root = os.scandir, plant(tmp_path / "data" / "train", "1.jpg")

        def scandir(path: Path) -> Any:
            if Path(path) == tmp_path / "data":
                raise PermissionError(13, "")
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
        assert read(root, tmp_path / "cache").paths == ("1.jpg",)

    def test_file_of_other_images_is_ignored_unless_its_name_is_certain(self, tmp_path: Path) -> None:
        root = lay(tmp_path / "data", ["train/1.jpg"], {"train.csv": "id,label\nother,a\n"})
        assert read(root / "train", tmp_path / "cache").classes == ("train",)
        (root / "train" / "labels.csv").write_text("id,label\nother,a\n")
        with pytest.raises(SourceError, match=r"no image in .* has a label in .*labels.csv"):
            read(root / "train", tmp_path / "cache")

    def test_image_with_two_labels_is_left_out(self, tmp_path: Path) -> None:
        root = lay(tmp_path / "data", ["0.jpg", "1.jpg"], {"labels.csv": "file,class\n0.jpg,a\n0.jpg,b\n1.jpg,b\n"})
        tree = read(root, tmp_path / "cache")
        assert [str(entry) for entry in tree.skipped] == ["0.jpg: several labels in labels.csv"]

    def test_images_of_several_classes_each_are_one_class(self, tmp_path: Path) -> None:
        root = lay(tmp_path / "data", ["0.jpg", "1.jpg"], {"_classes.csv": "file,a,b\n0.jpg,1,1\n1.jpg,0,1\n"})
        assert read(root, tmp_path / "cache").classes == ("data",)

    def test_file_that_is_not_utf_8_is_refused_with_what_converts_it(self, tmp_path: Path) -> None:
        plant(tmp_path / "data", "0.jpg")
        (tmp_path / "data" / "labels.csv").write_bytes(b"file,class\n0.jpg,caf\xe9\n")
        with pytest.raises(SourceError, match=r"labels.csv is not UTF-8; convert it, .* iconv"):
            read(tmp_path / "data", tmp_path / "cache")


class TestTars:
    IMAGES = (("p/cat/1.jpg", image(1)), ("p/dog/2.jpg", image(2)))

    @pytest.mark.parametrize(
        "entries",
        [[("p/README", b"x"), *IMAGES], [("p/._cat", b"x"), *IMAGES, ("p/cat/._1.jpg", b"x")]],
        ids=["other files first", "files of macOS"],
    )
    @pytest.mark.parametrize("named", ["tar", "folder"])
    def test_tar_of_class_folders_keeps_the_classes(
        self, tmp_path: Path, entries: list[tuple[str, bytes]], named: str
    ) -> None:
        (tmp_path / "data").mkdir()
        path = tar(tmp_path / "data" / "p.tar.gz", entries, "w:gz")
        tree = read(path if named == "tar" else path.parent, tmp_path / "cache")
        assert labelled(tree) == {"cat/1.jpg": "cat", "dog/2.jpg": "dog"}

    @pytest.mark.parametrize("folder", ["", "train/"])
    def test_names_with_several_dots_are_images_of_their_own(self, tmp_path: Path, folder: str) -> None:
        names = [f"{folder}cat.0.jpg", f"{folder}cat.1.jpg", f"{folder}dog.0.jpg"]
        path = tar(tmp_path / "x.tar", [(name, image(number)) for number, name in enumerate(names)])
        assert len(read(path, tmp_path / "cache").paths) == 3

    def test_tars_of_different_folders_are_no_shards(self, tmp_path: Path) -> None:
        (tmp_path / "pets").mkdir()
        for name in ("images", "annotations"):
            tar(tmp_path / "pets" / f"{name}.tar", [(f"{name}/1.png", image(1)), (f"{name}/2.png", image(2))])
        with pytest.raises(SourceError, match=r"not shards: name one with --data: annotations.tar, images.tar"):
            read(tmp_path / "pets", tmp_path / "cache")
