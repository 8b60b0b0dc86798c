"""CIFAR's batches give pixels and labels; a pickle that refers to other objects is refused and runs nothing."""

from __future__ import annotations

import codecs
import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from loaderbench.images import SourceError
from loaderbench.images.decoding import decode
from tests.archives import python2_pickle, read, tar
from tests.cifar import EDITIONS, HUNDRED, files, unpack


def python3_pickle(content: object) -> bytes:
    return pickle.dumps(content, protocol=2)


@pytest.fixture(params=[python2_pickle, python3_pickle], ids=lambda dump: dump.__name__)
def archive(request, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return lambda name: tar(folder / name, files(name, request.param), "w:gz")


def expected(name: str) -> dict[str, np.ndarray]:
    """Return the training images by path: H x W x 3."""
    _, batches = EDITIONS[name]
    return {
        f"{label:06d}/{key}-{row:05d}.png": np.dstack(np.split(content[b"data"][row].reshape(96, 32), 3))
        for key, content in batches.items()
        if key.startswith(("data", "train"))
        for row, label in enumerate(content.get(b"labels", content.get(b"fine_labels")))
    }


def agree(tree, name):
    pixels = expected(name)
    assert set(tree.paths) == set(pixels)
    for path, content in pixels.items():
        np.testing.assert_array_equal(decode(tree.root / path)[0], content)


@pytest.mark.parametrize("name", EDITIONS)
def test_an_archive_gives_every_training_image_with_its_label(archive, tmp_path, name):
    agree(read(archive(name), tmp_path / "cache"), name)


@pytest.mark.parametrize("name", EDITIONS)
@pytest.mark.parametrize("place", ["the folder", "the folder above"])
def test_an_unpacked_archive_gives_the_same_images(tmp_path, name, place):
    folder = unpack(name, tmp_path / "data")
    agree(read(folder if place == "the folder" else folder.parent, tmp_path / "cache"), name)


def test_a_folder_that_holds_the_archive_gives_the_same_images(archive, tmp_path):
    name = "cifar-10-python.tar.gz"
    agree(read(archive(name).parent, tmp_path / "cache"), name)


def test_a_note_says_that_test_images_are_skipped(archive, tmp_path):
    tree = read(archive("cifar-10-python.tar.gz"), tmp_path / "cache")
    assert any("its test images are skipped" in note for note in tree.notes)


def test_error_names_a_missing_batch(tmp_path):
    folder = unpack("cifar-10-python.tar.gz", tmp_path / "data")
    (folder / "data_batch_3").unlink()
    with pytest.raises(SourceError, match=r"lacks data_batch_3; download cifar-10-python.tar.gz again"):
        read(folder, tmp_path / "cache")


class Evil:
    """A pickled object that runs a command when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


EVIL = {
    "os": lambda mark: Evil(os.system, f"touch {mark}"),
    "builtins": lambda mark: Evil(eval, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Evil(open, str(mark), "w"),
    "numpy": lambda mark: Evil(np.save, str(mark), [1]),
    "within an array": lambda mark: np.array([Evil(os.system, f"touch {mark}")], dtype=object),
}


@pytest.mark.parametrize("kind", EVIL)
def test_a_pickle_that_would_run_a_program_is_refused(tmp_path, kind):
    mark = tmp_path / "mark.npy"
    folder = unpack("cifar-100-python.tar.gz", tmp_path / "data")
    content = pickle.dumps({**HUNDRED["train"], b"data": EVIL[kind](mark)}, protocol=2)
    (folder / "train").write_bytes(content)
    with pytest.raises(SourceError, match=r"train is no batch of CIFAR-100 \(it refers to .*nothing was run"):
        read(folder, tmp_path / "cache")
    assert not mark.exists()
    pickle.loads(content)  # noqa: S301 - planted, to show that it does harm
    assert mark.exists(), "the planted pickle does no harm anywhere, so this test shows nothing"


def test_a_pickle_with_an_unexpected_codec_is_refused(tmp_path):
    folder = unpack("cifar-100-python.tar.gz", tmp_path / "data")
    (folder / "train").write_bytes(pickle.dumps(Evil(codecs.encode, "text", "zlib"), protocol=2))
    with pytest.raises(SourceError, match="it encodes text as 'zlib'"):
        read(folder, tmp_path / "cache")


@pytest.mark.parametrize(
    "content",
    [
        b"no pickle",
        pickle.dumps([1], protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3072), np.float32), b"fine_labels": [1]}, protocol=2),
        python2_pickle(HUNDRED["train"])[:-2000],
    ],
)
def test_error_names_a_file_that_is_no_batch(tmp_path, content):
    folder = unpack("cifar-100-python.tar.gz", tmp_path / "data")
    (folder / "train").write_bytes(content)
    with pytest.raises(SourceError, match=r"train is no batch of CIFAR-100 \(.+\); download .*100-python.tar.gz again"):
        read(folder, tmp_path / "cache")


def test_an_array_whose_type_is_changed_afterwards_is_refused(tmp_path):
    """With numpy's own types the eight bytes become a pointer to an object, and the process ends at its release."""
    recipe = (
        b"\x80\x02cnumpy\ndtype\nU\x02V8K\x00K\x01\x87Rq\x00"  # a dtype of 8 bytes
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01\x85h\x00\x89U\x08AAAAAAAAtb"
        b"h\x00(K\x03U\x01|NU\x02f0\x85}U\x02f0cnumpy\ndtype\nU\x01OK\x00K\x01\x87RK\x00\x86sK\x08K\x01K\x1btb0."
    )
    folder = unpack("cifar-100-python.tar.gz", tmp_path / "data")
    (folder / "train").write_bytes(recipe)
    with pytest.raises(SourceError, match=r"train is no batch of CIFAR-100 \(it uses the opcode POP"):
        read(folder, tmp_path / "cache")


def test_a_batch_of_a_later_protocol_gives_the_same_images(tmp_path):
    name = "cifar-100-python.tar.gz"
    agree(read(unpack(name, tmp_path / "data", lambda batch: pickle.dumps(batch, 4)), tmp_path / "cache"), name)


NESTED = b"\x80\x02)" + b"q\x00h\x00\x86" * 60
"""A tuple of itself twice, and so on; its hash would take years."""
TEXT = b"\x80\x02(c_codecs\nencode\nX\x10\x27\x00\x00" + b"x" * 10_000 + b"q\x00X\x06\x00\x00\x00latin1q\x01\x86R"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x80\x02Nr\0\0\0\x04.", "'NoneType' object"),
        (b"\x80\x02}" + NESTED[2:] + b"Ns.", "other keys"),
        (TEXT + b"c_codecs\nencode\nh\x00h\x01\x86R" * 1000 + b"t.", "again and again"),
        (b"\x80\x02c_codecs\nencode\nN}U\x08__code__Ns\x86b.", "no attribute 'build'"),
    ],
    ids=["memo", "hash", "text", "state"],
)
def test_a_small_pickle_takes_little_memory_and_time(tmp_path, content, told):
    folder = unpack("cifar-100-python.tar.gz", tmp_path / "data")
    (folder / "train").write_bytes(content)
    with pytest.raises(SourceError, match=told), limited():
        read(folder, tmp_path / "cache")


@contextmanager
def limited() -> Iterator[None]:
    """Let this process take at most 100 MiB more."""
    earlier = resource.getrlimit(resource.RLIMIT_DATA)
    used = psutil.Process().memory_info().data
    resource.setrlimit(resource.RLIMIT_DATA, (used + (100 << 20), earlier[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, earlier)
