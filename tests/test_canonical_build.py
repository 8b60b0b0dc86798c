"""Canonical images are built from a tree, resumed after an interruption, and named by tree and settings."""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from loaderbench.images import CanonicalImages, SourceError, canonical_build
from loaderbench.images.canonical_build import build, canonical_folder
from loaderbench.images.class_folders import scan
from loaderbench.machine.disk import DiskSpaceError
from tests import messy
from tests.canonical import SETTINGS, built, ignored


def state(*roots):
    """Return everything that a reader could change about the trees, except access times."""
    entries = [path for root in roots for path in sorted(root.rglob("*"))]
    regular = [path for path in entries if path.is_file()]
    metadata = [(os.fsencode(p), s.st_mtime_ns, s.st_ctime_ns, s.st_mode) for p in entries for s in [p.lstat()]]
    return metadata, [path.read_bytes() for path in regular]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return messy.grow(tmp_path_factory.mktemp("tree") / "root")


@pytest.fixture(scope="module")
def tree(root):
    return scan(root)


@pytest.fixture
def clean(tmp_path):
    """A tree of 40 images of 4 classes, all of them readable."""
    rng = np.random.default_rng(0)
    for index in range(40):
        path = tmp_path / "clean" / f"c{index % 4}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    return scan(tmp_path / "clean")


def test_build_leaves_the_users_tree_unchanged(root, tmp_path):
    before = state(root, root.parent / "outside")
    built(scan(root), tmp_path / "store")
    assert state(root, root.parent / "outside") == before


def test_samples_depend_on_the_seed_and_not_on_the_process_count(clean, tmp_path, monkeypatch):
    stores = []
    for seed, cores in ((0, 1), (0, 3), (1, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        stores.append(built(clean, tmp_path / f"{seed}-{cores}", samples=9, seed=seed))
    one, same, other = (store.manifest.digest for store in stores)
    assert one == same != other
    names = ("index.bin", "pixels.bin", "jpeg.bin", "sources.bin")
    files = [[(store.folder / name).read_bytes() for name in names] for store in stores]
    assert files[0] == files[1]


def test_build_replaces_unreadable_images_by_others(tree, tmp_path):
    source = built(tree, tmp_path / "store", samples=messy.READABLE)
    assert len(source) == messy.READABLE
    originals = [source.original(i) for i in range(len(source))]
    assert originals == sorted(originals, key=lambda path: (path.parent, path.name))


def test_build_notes_that_a_folder_has_too_few_images(clean, tmp_path):
    source = built(clean, tmp_path / "store", samples=50)
    assert len(source) == 40
    assert "50 images were requested; the folder has 40 readable ones." in source.manifest.notes


def test_label_does_not_depend_on_the_number_of_samples(clean, tmp_path):
    source = built(clean, tmp_path / "store", samples=2)
    folders = [source.original(i).parent.name for i in range(2)]
    assert [source.classes[source.label(i)] for i in range(2)] == folders
    assert source.classes == clean.classes
    assert any("classes have no image among the samples" in note for note in source.manifest.notes)


def test_strict_build_refuses_entries_that_the_scan_skipped(tree, tmp_path):
    with pytest.raises(SourceError, match=r"(?s)5 images .*dogs/empty.jpg: empty file.*--strict"):
        built(tree, tmp_path / "store", strict=True)


def test_strict_build_names_ten_images_that_do_not_decode(clean, tmp_path):
    for i in range(0, 40, 3):
        (clean.root / f"c{i % 4}" / f"{i}.jpg").write_text("broken")
    with pytest.raises(SourceError, match=r"(?s)14 images .*c0/0.jpg: not an .*and 4 more") as error:
        built(clean, tmp_path / "store", strict=True)
    assert str(error.value).count(".jpg") == 10


def test_build_refuses_a_tree_of_broken_images(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_text("broken")
    with pytest.raises(SourceError, match=r"(?s)none of 1 images in .*a/1.jpg: not an image"):
        built(scan(tmp_path), tmp_path / "store")


def test_build_refuses_to_start_on_too_small_a_disk(clean, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DiskSpaceError, match=r"/store: .* need about .*, .* are free; use --cache DIR .* --samples N"):
        built(clean, tmp_path / "store")
    assert not list((tmp_path / "store").iterdir())


def test_build_reports_a_full_disk_and_writes_no_manifest(clean, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (store / "pixels.bin").symlink_to("/dev/full")
    with pytest.raises(DiskSpaceError, match=r"filled up .*; the canonical images are not kept; use"):
        build(clean, store, SETTINGS, strict=False, on_progress=ignored)
    assert not (store / "manifest.json").exists()


def test_a_killed_worker_is_replaced_and_no_image_is_lost(clean, tmp_path):
    def kill(done):
        for worker in multiprocessing.active_children() if done == 1 else ():
            worker.kill()

    assert len(built(clean, tmp_path / "store", on_progress=kill)) == 40
    assert not multiprocessing.active_children()


def many_scans(scans):
    """Return a progressive JPEG that takes long for its size, because its last scan is repeated."""
    stream = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


@pytest.mark.slow
def test_an_image_that_takes_too_long_is_rejected_and_the_build_goes_on(clean, tmp_path, monkeypatch):
    monkeypatch.setattr(canonical_build, "_LIMIT_S", 1)
    (clean.root / "c0" / "slow.jpg").write_bytes(many_scans(2000))
    images = built(scan(clean.root), tmp_path / "store")
    assert len(images) == 40
    [rejected] = json.loads((tmp_path / "store" / "rejected.json").read_text())
    assert rejected == {"path": "c0/slow.jpg", "reason": "its process ran into the time limit of 1 s"}


def test_ctrl_c_ends_the_build_and_its_workers(clean, tmp_path):
    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(clean, tmp_path / "store", on_progress=interrupt)
    assert not multiprocessing.active_children()


def end_early(tree, folder, at, ending):
    """Build in a process that ends after `at` images and writes the journal every 90 images."""
    folder.mkdir()
    script = (
        "import os, sys; from pathlib import Path\n"
        "from loaderbench.images import CanonicalSettings, canonical_build, journal\n"
        "from loaderbench.images.class_folders import scan\n"
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


def test_build_reports_progress_up_to_the_number_of_samples(clean, tmp_path):
    calls = []
    built(clean, tmp_path / "store", samples=9, on_progress=calls.append)
    assert calls == list(range(1, 10))


def fingerprint(tree, **changes):
    return canonical_folder(tree, replace(SETTINGS, **changes), Path()).name


def test_fingerprint_depends_on_tree_and_settings(clean):
    key = fingerprint(clean)
    assert fingerprint(scan(clean.root)) == key
    changes = {"samples": 3, "seed": 1, "max_side": None, "quality": 91}
    keys = {fingerprint(clean, **{name: value}) for name, value in changes.items()}
    assert len(keys | {key}) == 5


@pytest.mark.parametrize("change", ["touch", "rename", "remove", "dangle"])
def test_fingerprint_changes_with_the_tree(clean, change):
    path = clean.root / "c0" / "0.jpg"
    {
        "touch": lambda: os.utime(path, ns=(0, 0)),
        "rename": lambda: path.rename(path.with_name("a.jpg")),
        "remove": path.unlink,
        "dangle": lambda: (clean.root / "c0" / "new.jpg").symlink_to("nowhere"),
    }[change]()
    assert fingerprint(scan(clean.root)) != fingerprint(clean)
