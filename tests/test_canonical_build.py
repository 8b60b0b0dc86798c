import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from loaderbench.images import CanonicalImages, CanonicalSettings, SourceError
from loaderbench.images.canonical_build import build, canonical_folder
from loaderbench.images.canonical_form import canonical_form
from loaderbench.images.decoding import Unreadable, decode
from loaderbench.images.tree import scan
from loaderbench.machine.disk import DiskSpaceError
from tests import messy

SETTINGS = CanonicalSettings(samples=None, seed=0, max_side=32, quality=90)


def state(*roots):
    """Return everything that a reader could change about the trees, except access times."""
    entries = [path for root in roots for path in sorted(root.rglob("*"))]
    regular = [path for path in entries if path.is_file()]
    metadata = [(os.fsencode(p), s.st_mtime_ns, s.st_ctime_ns, s.st_mode) for p in entries for s in [p.lstat()]]
    return metadata, [path.read_bytes() for path in regular]


def ignored(_):
    """Ignore progress."""


def built(tree, folder, **changes):
    folder.mkdir()
    settings = {field.name: changes.pop(field.name) for field in fields(CanonicalSettings) if field.name in changes}
    build(tree, folder, replace(SETTINGS, **settings), **{"strict": False, "on_progress": ignored, **changes})
    return CanonicalImages(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return messy.grow(tmp_path_factory.mktemp("tree") / "root")


@pytest.fixture(scope="module")
def tree(root):
    return scan(root)


@pytest.fixture(scope="module")
def source(tree, tmp_path_factory):
    return built(tree, tmp_path_factory.mktemp("cache") / "store")


@pytest.fixture
def clean(tmp_path):
    """A tree of 40 images of 4 classes, all of them readable."""
    rng = np.random.default_rng(0)
    for index in range(40):
        path = tmp_path / "clean" / f"c{index % 4}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    return scan(tmp_path / "clean")


def test_every_image_that_can_be_read_is_stored_in_tree_order(source, tree):
    failed = {entry.path for entry in source.rejected()}
    kept = [(path, label) for path, label in zip(tree.paths, tree.labels, strict=True) if path not in failed]
    assert len(source) == messy.READABLE
    assert [(source.original(i), source.label(i)) for i in range(len(source))] == [
        (tree.root / path, label) for path, label in kept
    ]


def test_every_entry_that_cannot_be_read_is_listed_with_its_reason(source, tree):
    rejected = source.rejected()
    assert set(tree.skipped) < set(rejected)
    failed = {entry.path: entry.reason for entry in set(rejected) - set(tree.skipped)}
    assert failed.keys() == {"dogs/text.jpg", "dogs/truncated.jpg"}
    assert "truncated" in failed["dogs/truncated.jpg"]
    assert source.manifest.rejected == len(rejected)


def test_samples_are_the_canonical_form_of_their_originals(source):
    for i in range(len(source)):
        pixels, jpeg = canonical_form(source.original(i), max_side=32, quality=90)
        assert np.array_equal(source.pixels(i), pixels)
        assert source.jpeg(i) == jpeg


def test_images_within_the_largest_side_keep_their_pixels(root):
    path = root / "cats" / "plain.jpg"
    for max_side in (None, messy.WIDTH, messy.WIDTH + 1):
        assert np.array_equal(canonical_form(path, max_side, 90)[0], decode(path))


def test_larger_images_are_shrunk_to_the_largest_side(root):
    path = root / "cats" / "plain.jpg"
    expected = cv2.resize(decode(path), (32, 24), interpolation=cv2.INTER_AREA)
    assert np.array_equal(canonical_form(path, 32, 90)[0], expected)


def test_jpeg_bytes_decode_to_nearly_the_pixels_in_rgb(source):
    for i in range(len(source)):
        bgr = cv2.imdecode(np.frombuffer(source.jpeg(i), np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(bgr[:, :, ::-1].astype(int) - source.pixels(i)).mean() < 12


def test_digests_are_those_of_the_stored_bytes(source):
    samples = range(len(source))
    pixels = [hashlib.sha256(source.pixels(i).tobytes()).digest() for i in samples]
    jpeg = [hashlib.sha256(source.jpeg(i)).digest() for i in samples]
    assert (source.digests("pixels"), source.digests("jpeg")) == (pixels, jpeg)


def test_the_manifest_describes_the_images(source, tree):
    manifest, samples = source.manifest, range(len(source))
    assert (manifest.found, manifest.samples, manifest.drawn) == (22, messy.READABLE, 22)
    assert manifest.pixels_bytes_mean == np.mean([source.pixels(i).nbytes for i in samples])
    assert manifest.jpeg_bytes_mean == np.mean([len(source.jpeg(i)) for i in samples])
    assert manifest.notes == tree.notes
    assert manifest.versions["cv2"] == cv2.__version__


def test_a_pickled_source_is_its_path_and_reads_the_same(source):
    source.pixels(0)
    pickled = pickle.dumps(source)
    copy = pickle.loads(pickled)  # noqa: S301
    assert len(pickled) < 200 + len(bytes(source.folder))
    assert copy.jpeg(3) == source.jpeg(3)
    assert np.array_equal(copy.pixels(3), source.pixels(3))


def test_threads_may_share_a_source(source):
    order = list(range(len(source))) * 20
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda i: hashlib.sha256(source.pixels(i).data).digest(), order))
    assert read == [source.digests("pixels")[i] for i in order]


def test_pixels_may_be_changed_by_their_reader(source):
    source.pixels(0)[:] = 7
    assert hashlib.sha256(source.pixels(0).data).digest() == source.digests("pixels")[0]


def test_damaged_canonical_images_are_not_read(clean, tmp_path):
    source = built(clean, tmp_path / "store")
    os.truncate(source.folder / "pixels.bin", 100)
    os.truncate(source.folder / "jpeg.bin", 100)
    for read in (source.pixels, source.jpeg):
        with pytest.raises(SourceError, match=f"{source.folder}.* is damaged; delete it"):
            read(39)


def test_the_users_tree_is_left_as_it_was(root, tmp_path):
    before = state(root, root.parent / "outside")
    built(scan(root), tmp_path / "store")
    assert state(root, root.parent / "outside") == before


def test_the_same_seed_draws_the_same_samples_on_any_number_of_processes(clean, tmp_path, monkeypatch):
    stores = []
    for seed, cores in ((0, 1), (0, 3), (1, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        stores.append(built(clean, tmp_path / f"{seed}-{cores}", samples=9, seed=seed))
    one, same, other = (store.manifest.digest for store in stores)
    assert one == same != other
    names = ("index.bin", "pixels.bin", "jpeg.bin", "sources.bin")
    files = [[(store.folder / name).read_bytes() for name in names] for store in stores]
    assert files[0] == files[1]


def test_unreadable_images_are_replaced_by_others(tree, tmp_path):
    source = built(tree, tmp_path / "store", samples=messy.READABLE)
    assert len(source) == messy.READABLE
    originals = [source.original(i) for i in range(len(source))]
    assert originals == sorted(originals, key=lambda path: (path.parent, path.name))


def test_fewer_images_than_requested_are_noted(clean, tmp_path):
    source = built(clean, tmp_path / "store", samples=50)
    assert len(source) == 40
    assert "50 images were requested; the folder has 40." in source.manifest.notes


def test_classes_without_samples_are_dropped_and_labels_stay_contiguous(clean, tmp_path):
    source = built(clean, tmp_path / "store", samples=2)
    folders = [source.original(i).parent.name for i in range(2)]
    assert [source.classes[source.label(i)] for i in range(2)] == folders
    assert source.classes == tuple(sorted(set(folders)))
    assert any("classes have no image among the samples" in note for note in source.manifest.notes)


def test_strict_refuses_what_the_scan_skipped(tree, tmp_path):
    with pytest.raises(SourceError, match=r"(?s)5 images .*dogs/empty.jpg: empty file.*--strict"):
        built(tree, tmp_path / "store", strict=True)


def test_strict_refuses_what_cannot_be_decoded_naming_ten(clean, tmp_path):
    for i in range(0, 40, 3):
        (clean.root / f"c{i % 4}" / f"{i}.jpg").write_text("broken")
    with pytest.raises(SourceError, match=r"(?s)14 images .*c0/0.jpg: not an .*and 4 more") as error:
        built(clean, tmp_path / "store", strict=True)
    assert str(error.value).count(".jpg") == 10


def test_a_tree_of_broken_images_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_text("broken")
    with pytest.raises(SourceError, match=r"(?s)none of 1 images in .*a/1.jpg: not an image"):
        built(scan(tmp_path), tmp_path / "store")


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


def test_too_small_a_disk_is_reported_before_starting(clean, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DiskSpaceError, match=r"/store: .* need about .* GiB, .*free; use --cache DIR .* --samples N"):
        built(clean, tmp_path / "store")
    assert not list((tmp_path / "store").iterdir())


def test_a_full_disk_is_reported(clean, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (store / "pixels.bin").symlink_to("/dev/full")
    with pytest.raises(DiskSpaceError, match=r"filled up .*; the canonical images are not kept; use"):
        build(clean, store, SETTINGS, strict=False, on_progress=ignored)
    assert not (store / "manifest.json").exists()


def test_a_worker_that_dies_ends_the_build(clean, tmp_path):
    def kill(done):
        multiprocessing.active_children()[0].kill()

    with pytest.raises(SourceError, match=r"process died at or soon after .*jpg"):
        built(clean, tmp_path / "store", on_progress=kill)
    assert not multiprocessing.active_children()


def test_ctrl_c_ends_the_build_and_its_workers(clean, tmp_path):
    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(clean, tmp_path / "store", on_progress=interrupt)
    assert not multiprocessing.active_children()


def end_early(tree, folder, at, ending):
    """Build in a process that ends when so many images are stored. It writes the journal every 90 images."""
    folder.mkdir()
    script = (
        "import os, sys; from pathlib import Path\n"
        "from loaderbench.images import CanonicalSettings, canonical_build, journal\n"
        "from loaderbench.images.tree import scan\n"
        "journal.IMAGES_PER_ENTRY = 90\n"
        f"def end(done):\n if done == {at}: {ending}\n"
        "settings = CanonicalSettings(samples=None, seed=0, max_side=32, quality=90)\n"
        f"tree, folder = scan(Path({str(tree.root)!r})), Path({str(folder)!r})\n"
        "if __name__ == '__main__':\n"
        " canonical_build.build(tree, folder, settings, strict=False, on_progress=end)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9


@pytest.mark.parametrize(
    ("ending", "at", "goes_on_at"),
    [
        ("sys.exit(9)", 18, 19),  # the user stops it: nothing is lost
        ("os._exit(9)", 18, 1),  # it is killed: images after the last journal entry are
        ("os._exit(9)", 170, 90),  # one of the 90 images could not be read
    ],
)
def test_an_interrupted_build_resumes_with_the_same_result(tmp_path, ending, at, goes_on_at):
    rng = np.random.default_rng(0)
    for index in range(180):
        path = tmp_path / "root" / f"c{index % 4}" / f"{index:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    (tmp_path / "root" / "c0" / "000.jpg").write_bytes(b"no image")
    tree, calls = scan(tmp_path / "root"), []
    whole = built(tree, tmp_path / "whole")
    end_early(tree, tmp_path / "store", at, ending)
    build(tree, tmp_path / "store", SETTINGS, strict=False, on_progress=calls.append)
    again = CanonicalImages(tmp_path / "store")
    assert calls == list(range(goes_on_at, 180))
    assert again.manifest == whole.manifest
    assert again.rejected() == whole.rejected()
    for kind, stored in (("jpeg", again.jpeg), ("pixels", again.pixels)):
        assert [hashlib.sha256(stored(i)).digest() for i in range(179)] == whole.digests(kind)
    sizes_bytes, expected = ({p.name: p.stat().st_size for p in s.folder.iterdir()} for s in (again, whole))
    assert sizes_bytes == expected
    assert set(expected) == {"index.bin", "jpeg.bin", "manifest.json", "pixels.bin", "rejected.json", "sources.bin"}


def test_progress_goes_up_to_the_number_of_samples(clean, tmp_path):
    calls = []
    built(clean, tmp_path / "store", samples=9, on_progress=calls.append)
    assert calls == list(range(1, 10))


def fingerprint(tree, **changes):
    return canonical_folder(tree, replace(SETTINGS, **changes), Path()).name


def test_the_fingerprint_is_that_of_tree_and_settings(clean):
    key = fingerprint(clean)
    assert fingerprint(scan(clean.root)) == key
    changes = {"samples": 3, "seed": 1, "max_side": None, "quality": 91}
    keys = {fingerprint(clean, **{name: value}) for name, value in changes.items()}
    assert len(keys | {key}) == 5


@pytest.mark.parametrize("change", ["touch", "rename", "remove", "dangle"])
def test_the_fingerprint_changes_with_the_tree(clean, change):
    path = clean.root / "c0" / "0.jpg"
    {
        "touch": lambda: os.utime(path, ns=(0, 0)),
        "rename": lambda: path.rename(path.with_name("a.jpg")),
        "remove": path.unlink,
        "dangle": lambda: (clean.root / "c0" / "new.jpg").symlink_to("nowhere"),
    }[change]()
    assert fingerprint(scan(clean.root)) != fingerprint(clean)


def test_names_that_are_not_utf_8_come_back(source, root):
    originals = {source.original(i) for i in range(len(source))}
    assert root / "dogs" / messy.LATIN1_NAME in originals


def test_a_class_name_that_is_not_utf_8_comes_back(tmp_path):
    name = os.fsdecode(b"\xe9t\xe9")
    (tmp_path / "root" / name).mkdir(parents=True)
    Image.fromarray(messy.RGB).save(tmp_path / "root" / name / "1.png")
    source = built(scan(tmp_path / "root"), tmp_path / "store")
    assert source.classes == (name,)
    assert source.original(0) == Path(tmp_path, "root", name, "1.png")
    assert json.loads((source.folder / "manifest.json").read_text())["classes"] == [name]
