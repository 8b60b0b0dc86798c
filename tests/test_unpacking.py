"""Unpacking resumes after the last complete shard, and makes the same files as in one pass."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, pairwise
from pathlib import Path

import pytest

from loaderbench.campaign.schema import Data
from loaderbench.images import find, journal, unpack
from loaderbench.machine.progress import Display
from tests.archives import contents, image, link, packed, read, reasons, tar
from tests.parquet import dataset

IMAGES = 12
JOURNAL = ".loaderbench.unpacked.jsonl"


def imagenet(folder: Path) -> Path:
    """Make four synsets of three images, with entries to skip in each and between them."""
    tars = []
    for label in range(4):
        images = [(f"{number}.JPEG", image(3 * label + number)) for number in range(3)]
        tars += [(f"n{label}.tar", packed([*images, images[0], link("link.jpg", "/")])), (f"readme{label}", b"")]
    return tar(folder / "train.tar", [*tars, ("again/n2.tar", packed([("0.JPEG", image(99))]))])


def webdataset(folder: Path) -> Path:
    """Make four shards of three samples, and in each a fourth without a label."""
    (folder / "shards").mkdir()
    for shard in range(4):
        samples = [[(f"{row}.jpg", image(3 * shard + row)), (f"{row}.cls", b"5")] for row in range(3)]
        tar(folder / "shards" / f"{shard}.tar", [*chain(*samples), ("3.jpg", image(99))])
    return folder / "shards"


def parquet(folder: Path) -> Path:
    """Make four files of three rows, and in each a fourth without an image."""
    for number in range(4):
        rows = [(image(3 * number + row), 5) for row in range(3)]
        dataset(folder / "files" / f"{number}.parquet", [*rows, (b"", 5)])
    return folder / "files"


def stopped(data: Path, cache: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stop when `at` images are written; return the numbers that `on_progress` got."""
    told: list[int] = []

    def on_progress(done: int) -> None:
        told.append(done)
        if done == at:
            raise SystemExit

    real = unpack.Archive.write
    with monkeypatch.context() as patch, suppress(SystemExit):
        patch.setattr(unpack.Archive, "write", lambda archive, out, _: real(archive, out, on_progress))
        find(data, Data(), cache, Display())
    return told


@pytest.fixture(params=[imagenet, webdataset, parquet], ids=lambda make: make.__name__)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An archive of 4 shards. The journal gets an entry after each."""
    request.getfixturevalue("monkeypatch").setattr(journal, "BYTES_PER_ENTRY", 0)
    return request.param(tmp_path)


def test_unpacking_resumes_after_a_stop_and_makes_the_same_tree(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(data, tmp_path / "whole")
    assert len(whole.paths) == IMAGES
    for first, second in pairwise((1, 3, 4, 8, IMAGES)):
        cache = tmp_path / str(first)
        assert stopped(data, cache, first, monkeypatch) == list(range(1, first + 1))
        kept = 3 * ((first - 1) // 3)  # in complete shards; the rest is written again
        assert stopped(data, cache, second, monkeypatch) == list(range(kept + 1, second + 1))
        [begun] = (cache / "ingested").iterdir()
        newest = max(begun.glob("0*/*"), key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes()[:10])  # a kill may leave half an image
        with (begun / JOURNAL).open("ab") as lines:
            lines.write(b'{"sha')  # and half a line
        tree = read(data, cache)
        assert contents(tree) == contents(whole)
        assert sorted(reasons(tree).items()) == sorted(reasons(whole).items())
        assert not (tree.root / JOURNAL).exists()


def test_images_of_complete_shards_are_not_written_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(data, tmp_path / "cache", 8, monkeypatch)
    [begun] = (tmp_path / "cache" / "ingested").iterdir()
    for path in begun.glob("0*/*"):
        path.write_bytes(b"as it was")
    tree = read(data, tmp_path / "cache")
    assert list(contents(tree).values()).count(b"as it was") == 6  # two complete shards; 2 images of the third


def test_the_journal_is_written_after_enough_bytes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "BYTES_PER_ENTRY", 4 * len(image(0)))
    assert stopped(data, tmp_path / "cache", 10, monkeypatch)
    assert stopped(data, tmp_path / "cache", 10, monkeypatch)[0] == 7
