"""If file names contain splits, only the requested split is read. A missing split is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.campaign.campaign import CampaignError
from loaderbench.formats import prepare
from loaderbench.images import SourceError
from loaderbench.images.imagenet import SOLUTION, TRAINING, VALIDATION
from loaderbench.machine.progress import Display
from tests import cifar
from tests.archives import contents, image, packed, python2_pickle, read, tar
from tests.campaigns import campaign
from tests.parquet import dataset

pytestmark = pytest.mark.usefixtures("forked")


def shards(folder: Path) -> Path:
    """Make a WebDataset of two training images, one of validation and one of the test."""
    folder.mkdir()
    for number, name in enumerate(("train-0", "train-1", "validation-0", "test-0")):
        tar(folder / f"{name}.tar", [("a.jpg", image(number)), ("a.cls", b"7")])
    return folder


def parquet(folder: Path) -> Path:
    """Make a Hugging Face repository of the same images."""
    (folder / "data").mkdir(parents=True)
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "validation", "test")):
        dataset(folder / "data" / f"{name}.parquet", [(image(number), 7)])
    return folder


@pytest.mark.parametrize("make", [shards, parquet])
@pytest.mark.parametrize(("split", "numbers"), [("train", (0, 1)), ("val", (2,)), ("test", (3,))])
def test_file_names_select_the_shards_of_a_split(tmp_path, make, split, numbers):
    tree = read(make(tmp_path / "data"), tmp_path / "cache", split)
    assert sorted(contents(tree).values()) == sorted(map(image, numbers))
    told = f"The files of the split {split} are read; {4 - len(numbers)} others are skipped: "
    assert any(note.startswith(told) for note in tree.notes)


@pytest.mark.parametrize("name", cifar.EDITIONS)
@pytest.mark.parametrize("packing", ["packed", "unpacked"])
def test_cifar_test_images_form_their_own_tree(tmp_path, name, packing):
    folder, batches = cifar.EDITIONS[name]
    if packing == "packed":
        path = tar(tmp_path / name, cifar.files(name, python2_pickle), "w:gz")
    else:
        path = cifar.unpack(name, tmp_path / folder)
    training, test = (set(read(path, tmp_path / "cache", split).paths) for split in ("train", "test"))
    batch = "test_batch" if "test_batch" in batches else "test"
    labels = batches[batch].get(b"labels", batches[batch].get(b"fine_labels"))
    assert test == {f"{label:06d}/{batch}-{row:05d}.png" for row, label in enumerate(labels)}
    assert not training & test


def test_the_split_selects_one_of_imagenets_two_archives(tmp_path):
    folder = tmp_path / "imagenet"
    folder.mkdir()
    tar(folder / TRAINING, [("n01440764.tar", packed([("n01440764_1.JPEG", image(1))]))])
    tar(folder / VALIDATION, [("ILSVRC2012_val_00000001.JPEG", image(2))])
    (folder / SOLUTION).write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4\n")
    assert list(contents(read(folder, tmp_path / "cache")).values()) == [image(1)]
    for path in (folder, folder / VALIDATION):
        assert list(contents(read(path, tmp_path / "cache", "val")).values()) == [image(2)]
    with pytest.raises(SourceError, match=r"imagenet has no split test: there are: train, val"):
        read(folder, tmp_path / "cache", "test")
    with pytest.raises(SourceError, match=r"ILSVRC2012_img_train.tar has no split val: there are: train"):
        read(folder / TRAINING, tmp_path / "cache", "val")


def only_shards(folder: Path, *stems: str) -> Path:
    """Make a WebDataset of shards with these names, each of one image."""
    folder.mkdir()
    for number, stem in enumerate(stems):
        tar(folder / f"{stem}.tar", [("a.jpg", image(number)), ("a.cls", b"7")])
    return folder


def only_validation(folder: Path) -> Path:
    """Make ImageNet without its training images."""
    folder.mkdir()
    tar(folder / VALIDATION, [("ILSVRC2012_val_00000001.JPEG", image(0))])
    (folder / SOLUTION).write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4\n")
    return folder


@pytest.mark.parametrize("make", [only_validation, lambda folder: only_shards(folder, "val-0")])
@pytest.mark.parametrize("name", ["", "a file"])
def test_the_only_split_is_read_with_a_note_unless_another_is_requested(tmp_path, make, name):
    data = make(tmp_path / "data")
    data = next(data.glob("*.tar")) if name else data
    tree = read(data, tmp_path / "cache")
    assert list(contents(tree).values()) == [image(0)]
    assert any("the split val" in note for note in tree.notes)
    with pytest.raises(SourceError, match="has no split train: there are: val"):
        read(data, tmp_path / "cache", "train")


def test_several_splits_without_training_require_a_choice(tmp_path):
    with pytest.raises(SourceError, match="has no split train: there are: test, val"):
        read(only_shards(tmp_path / "data", "val-0", "test-0"), tmp_path / "cache")


def test_the_last_split_in_a_file_name_counts(tmp_path):
    data = only_shards(tmp_path / "data", "my_test_set-train-0", "my_test_set-val-0")
    for split, number in ((None, 0), ("train", 0), ("val", 1)):
        assert list(contents(read(data, tmp_path / "cache", split)).values()) == [image(number)]


def test_files_without_a_split_in_their_name_are_training(tmp_path):
    data = only_shards(tmp_path / "data", "set-0", "set-val-0")
    assert list(contents(read(data, tmp_path / "cache")).values()) == [image(0)]


def test_error_for_a_missing_split_names_the_existing_ones(tmp_path):
    folder = shards(tmp_path / "shards")
    (folder / "test-0.tar").unlink()
    with pytest.raises(SourceError, match=r"shards has no split test: there are: train, val"):
        read(folder, tmp_path / "cache", "test")
    unpacked = cifar.unpack("cifar-100-python.tar.gz", tmp_path / "cifar")
    with pytest.raises(SourceError, match=r"cifar-100-python has no split val: there are: test, train"):
        read(unpacked, tmp_path / "cache", "val")


def test_a_split_that_no_file_name_contains_is_refused(tree, tmp_path):
    with pytest.raises(SourceError, match=r"has no split val: no file name contains a split; name the split"):
        read(tree, tmp_path / "cache", "val")


def test_a_campaign_reads_one_split_and_records_it(tmp_path):
    chosen = campaign({"a": {"loader": "imagefolder"}}).model_copy(
        update={"data": config.Data(samples=None, split="test")}
    )
    chosen = chosen.model_copy(update={"work": chosen.work.model_copy(update={"batch_size": 1})})
    prepared = prepare(chosen, shards(tmp_path / "shards"), tmp_path / "cache", Display(), strict=True)
    assert prepared.artifacts["files"].samples == 1
    assert prepared.data["origin"] == f"{tmp_path / 'shards'}, split test"
    with pytest.raises(SourceError, match="the synthetic images have no splits: omit --split"):
        prepare(chosen, None, tmp_path / "cache", Display(), strict=True)


def test_an_unknown_split_name_is_refused():
    with pytest.raises(CampaignError, match=r"data.split: Input should be 'train', 'val' or 'test'"):
        config.load("quick", {"data": {"split": "holdout"}})
