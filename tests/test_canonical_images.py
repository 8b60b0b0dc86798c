"""Canonical images: pixels and JPEG bytes of each readable original, its digests, and how they are read."""

import hashlib
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from loaderbench.images import SourceError
from loaderbench.images.canonical_form import canonical_form
from loaderbench.images.class_folders import scan
from loaderbench.images.decoding import Unreadable, decode
from tests import messy
from tests.canonical import built


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return messy.grow(tmp_path_factory.mktemp("tree") / "root")


@pytest.fixture(scope="module")
def tree(root):
    return scan(root)


@pytest.fixture(scope="module")
def source(tree, tmp_path_factory):
    return built(tree, tmp_path_factory.mktemp("cache") / "store")


def test_all_readable_images_are_stored_in_tree_order(source, tree):
    failed = {entry.path for entry in source.rejected()}
    kept = [(path, label) for path, label in zip(tree.paths, tree.labels, strict=True) if path not in failed]
    assert len(source) == messy.READABLE
    assert [(source.original(i), source.label(i)) for i in range(len(source))] == [
        (tree.root / path, label) for path, label in kept
    ]


def test_unreadable_images_are_listed_with_their_reason(source, tree):
    rejected = source.rejected()
    assert set(tree.skipped) < set(rejected)
    failed = {entry.path: entry.reason for entry in set(rejected) - set(tree.skipped)}
    assert failed.keys() == {"dogs/text.jpg", "dogs/truncated.jpg"}
    assert "truncated" in failed["dogs/truncated.jpg"]
    assert source.manifest.rejected == len(rejected)


def test_samples_are_the_canonical_form_of_their_originals(source):
    for i in range(len(source)):
        pixels, jpeg, _ = canonical_form(source.original(i), max_side=32, quality=90)
        assert np.array_equal(source.pixels(i), pixels)
        assert source.jpeg(i) == jpeg


def test_images_within_the_largest_side_keep_their_pixels(root):
    path = root / "cats" / "plain.jpg"
    for max_side in (None, messy.WIDTH, messy.WIDTH + 1):
        assert np.array_equal(canonical_form(path, max_side, 90)[0], decode(path)[0])


def test_larger_images_are_shrunk_to_the_largest_side(root):
    path = root / "cats" / "plain.jpg"
    expected = cv2.resize(decode(path)[0], (32, 24), interpolation=cv2.INTER_AREA)
    assert np.array_equal(canonical_form(path, 32, 90)[0], expected)


def test_jpeg_bytes_decode_to_nearly_the_pixels_in_rgb(source):
    for i in range(len(source)):
        bgr = cv2.imdecode(np.frombuffer(source.jpeg(i), np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(bgr[:, :, ::-1].astype(int) - source.pixels(i)).mean() < 12


def test_digests_match_the_stored_bytes(source):
    samples = range(len(source))
    pixels = [hashlib.sha256(source.pixels(i).tobytes()).digest() for i in samples]
    jpeg = [hashlib.sha256(source.jpeg(i)).digest() for i in samples]
    assert (source.digests("pixels"), source.digests("jpeg")) == (pixels, jpeg)


def test_manifest_describes_the_images(source, tree):
    manifest, samples = source.manifest, range(len(source))
    assert (manifest.found, manifest.samples, manifest.drawn) == (22, messy.READABLE, 22)
    assert manifest.pixels_bytes_mean == np.mean([source.pixels(i).nbytes for i in samples])
    assert manifest.jpeg_bytes_mean == np.mean([len(source.jpeg(i)) for i in samples])
    assert manifest.notes[:-1] == tree.notes
    assert "torchvision.io cannot decode (BMP 1, PPM 1)" in manifest.notes[-1]
    assert manifest.versions["cv2"] == cv2.__version__


def test_a_pickled_source_holds_only_its_path_and_reads_the_same_images(source):
    source.pixels(0)
    pickled = pickle.dumps(source)
    copy = pickle.loads(pickled)  # noqa: S301 - our own
    assert len(pickled) < 200 + len(bytes(source.folder))
    assert copy.jpeg(3) == source.jpeg(3)
    assert np.array_equal(copy.pixels(3), source.pixels(3))


def test_threads_can_share_a_source(source):
    order = list(range(len(source))) * 20
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda i: hashlib.sha256(source.pixels(i).data).digest(), order))
    assert read == [source.digests("pixels")[i] for i in order]


def test_readers_can_change_their_pixels(source):
    source.pixels(0)[:] = 7
    assert hashlib.sha256(source.pixels(0).data).digest() == source.digests("pixels")[0]


def test_reading_damaged_canonical_images_fails(tree, tmp_path):
    source = built(tree, tmp_path / "store")
    os.truncate(source.folder / "pixels.bin", 100)
    os.truncate(source.folder / "jpeg.bin", 100)
    for read in (source.pixels, source.jpeg):
        with pytest.raises(SourceError, match=f"{source.folder}.* is damaged; delete it"):
            read(messy.READABLE - 1)


@pytest.mark.parametrize(
    ("size", "max_side", "reason"),
    [
        ((1000, 1), 256, "1000 x 1 pixels are too narrow"),
        ((65_501, 1), None, "exceed JPEG's 65500"),
    ],
)
def test_extreme_shapes_are_unreadable(tmp_path, size, max_side, reason):
    Image.new("RGB", size).save(tmp_path / "1.png")
    with pytest.raises(Unreadable, match=reason):
        canonical_form(tmp_path / "1.png", max_side, 90)


def test_file_names_that_are_not_utf_8_are_kept(source, root):
    originals = {source.original(i) for i in range(len(source))}
    assert root / "dogs" / messy.LATIN1_NAME in originals


def test_class_names_that_are_not_utf_8_are_kept(tmp_path):
    name = os.fsdecode(b"\xe9t\xe9")
    (tmp_path / "root" / name).mkdir(parents=True)
    Image.fromarray(messy.RGB).save(tmp_path / "root" / name / "1.png")
    source = built(scan(tmp_path / "root"), tmp_path / "store")
    assert source.classes == (name,)
    assert source.original(0) == Path(tmp_path, "root", name, "1.png")
    assert json.loads((source.folder / "manifest.json").read_text())["classes"] == [name]
