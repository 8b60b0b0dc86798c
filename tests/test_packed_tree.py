"""A zip or tar file of class folders is read like the folder, and other data is named with what to pass instead."""

from __future__ import annotations

import multiprocessing
import os
import signal
import zipfile
from pathlib import Path

import pytest

from loaderbench.images import SourceError, journal, unpack
from tests.archives import contents, image, link, read, reasons, tar


def zipped(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, content in entries:
            out.writestr(name, content)
    return path


IMAGES = (("photos/cat/1.jpg", image(1)), ("photos/dog/2.jpg", image(2)), ("photos/dog/notes.txt", b"x"))


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_packed_class_folders_are_read_like_the_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    tree = read(zipped(path, *IMAGES) if name == "x.zip" else tar(path, IMAGES), tmp_path / "cache")
    assert (tree.classes, tree.paths) == (("cat", "dog"), ("cat/1.jpg", "dog/2.jpg"))


def test_zip_of_splits_gives_one_of_them(tmp_path: Path) -> None:
    names = ("data/train/a/1.jpg", "data/train/b/2.jpg", "data/val/b/3.jpg")
    path = zipped(tmp_path / "x.zip", *((name, image(number)) for number, name in enumerate(names)))
    assert read(path, tmp_path / "cache").labels.tolist() == [0, 1]
    assert read(path, tmp_path / "cache", "val").labels.tolist() == [1]


def test_names_that_lead_out_of_a_zip_are_skipped(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", ("a/1.jpg", image(1)), ("../evil.jpg", image(2)), ("/abs.jpg", image(3)))
    tree = read(path, tmp_path / "cache")
    assert tree.paths == ("a/1.jpg",)
    assert reasons(tree) == dict.fromkeys(("../evil.jpg", "/abs.jpg"), "a name that leads out of the archive")
    assert not list(tmp_path.rglob("evil.jpg"))


def test_damaged_zip_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", ("a/1.jpg", image(1)), ("a/2.jpg", image(2)))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SourceError, match=r"x.zip cannot be read .*unpack it and name its folder"):
        read(path, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "ingested").iterdir())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("train.beton", "FFCV's format; loaderbench writes the formats itself"),
        ("digits.mat", "a MATLAB file; write its images as files"),
        ("train.lmdb", "an LMDB database"),
        ("train-images-idx3-ubyte.gz", "MNIST's format"),
        ("data-00000-of-00001.arrow", "Hugging Face's cache; write it as Parquet"),
        ("index.json", "LitData's format"),
    ],
)
def test_error_for_different_data_says_what_to_pass(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(b"x")
    for path in (tmp_path / "data", tmp_path / "data" / name):
        with pytest.raises(SourceError, match=told):
            read(path, tmp_path / "cache")


class TestImageNet:
    """ImageNet in other tars than its own."""

    def test_folder_of_synset_tars_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "train").mkdir()
        for number, synset in enumerate(("n01443537", "n01440764")):
            tar(tmp_path / "train" / f"{synset}.tar", [(f"{synset}_{number}.JPEG", image(number))])
        tree = read(tmp_path / "train", tmp_path / "cache")
        assert (tree.classes, tree.paths) == (
            ("n01440764", "n01443537"),
            ("n01440764/n01440764_1.JPEG", "n01443537/n01443537_0.JPEG"),
        )

    def test_synset_at_the_end_of_a_name_is_the_class(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        names = ("n01440764_1_n01440764.JPEG", "n01443537_2_n01443537.JPEG", "ILSVRC2012_val_00000001_n01443537.JPEG")
        for number, (name, shard) in enumerate(
            zip(names, ("train_images_0", "train_images_1", "val_images"), strict=True)
        ):
            tar(tmp_path / "data" / f"{shard}.tar.gz", [(name, image(number))], "w:gz")
        tree = read(tmp_path / "data", tmp_path / "cache")
        assert (tree.classes, tree.labels.tolist()) == (("n01440764", "n01443537"), [0, 1])
        assert any("val_images.tar.gz" in note for note in tree.notes)
        assert read(tmp_path / "data", tmp_path / "cache", "val").classes == ("n01443537",)


def many(folder: Path, packing: str) -> Path:
    """Pack nine images in three class folders, one of them twice, and an empty class folder."""
    entries = [(f"n{place % 3:08d}/{place}.JPEG", image(place)) for place in (0, 1, 2, 3, 1, 4, 5, 6, 7, 8)]
    if packing == "zip":
        return zipped(folder / "a.zip", ("empty/", b""), *entries)
    if packing == "tar":
        return tar(folder / "a.tar", [*entries, link("link.jpg", "/")])
    (folder / "train").mkdir()
    for synset in sorted({name.partition("/")[0] for name, _ in entries}):
        inside = [(name.partition("/")[2], content) for name, content in entries if name.startswith(synset)]
        tar(folder / "train" / f"{synset}.tar", inside)
    return folder / "train"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("packing", ["zip", "tar", "synsets"])
def test_unpacking_resumes_after_a_kill_and_makes_the_same_tree(tmp_path: Path, packing: str) -> None:
    path = many(tmp_path, packing)
    whole = read(path, tmp_path / "whole")
    assert len(whole.paths) == 9
    for at in (1, 5, 9):
        cache = tmp_path / str(at)
        killed = multiprocessing.get_context("fork").Process(target=_killed, args=(path, cache, at))
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
        [begun] = (cache / "ingested").iterdir()
        complete = [file for file in begun.rglob("*.JPEG") if file.stat().st_size]
        assert len(complete) == at - 1
        for file in complete:
            os.utime(file, (0, 0))
        tree = read(path, cache)
        assert contents(tree) == contents(whole)
        assert (tree.classes, reasons(tree)) == (whole.classes, reasons(whole))
        assert sum(not file.stat().st_mtime for file in tree.root.rglob("*.JPEG")) == at - 1


def _killed(path: Path, cache: Path, at: int) -> None:
    """Unpack with an entry in the journal for each file, and die while file number `at` is written."""
    write, files = unpack._write, []

    def die(log: journal.UnpackJournal, sample: unpack.Sample) -> str:
        files.append(log.out / sample.name)
        if len(files) == at:
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return write(log, sample)

    journal.BYTES_PER_ENTRY = 0
    unpack._write = die
    read(path, cache)
