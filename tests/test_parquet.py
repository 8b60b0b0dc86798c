"""Each row of a Hugging Face data set gives the image's bytes and its class index."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loaderbench.images import SourceError
from tests.archives import contents, image, read
from tests.parquet import FEATURES, dataset

ROWS = [(image(n), n % 3) for n in range(10)]
EXPECTED = {f"{n % 3:06d}/00000-{n:07d}.jpg": image(n) for n in range(10)}


def test_a_file_gives_every_row_with_its_bytes_and_label(tmp_path):
    tree = read(dataset(tmp_path / "x.parquet", ROWS), tmp_path / "cache")
    assert contents(tree) == EXPECTED
    assert not tree.skipped


@pytest.mark.parametrize("folder", ["", "data"])
def test_a_repository_gives_the_rows_of_its_training_files(tmp_path, folder):
    repository = tmp_path / "repository"
    dataset(repository / folder / "train-00000-of-00002.parquet", ROWS[:5])
    dataset(repository / folder / "train-00001-of-00002.parquet", ROWS[5:])
    dataset(repository / folder / "test-00000-of-00001.parquet", [(image(99), -1)])
    tree = read(repository, tmp_path / "cache")
    assert contents(tree) == {f"{n % 3:06d}/{n // 5:05d}-{n % 5:07d}.jpg": image(n) for n in range(10)}
    assert any("test-00000-of-00001.parquet" in note for note in tree.notes)


def test_features_name_the_columns_that_are_read(tmp_path):
    features = {
        "img": {"_type": "Image"},
        "fine_label": {"names": [], "_type": "ClassLabel"},
        "coarse_label": {"names": [], "_type": "ClassLabel"},
        "score": {"dtype": "float32", "_type": "Value"},
    }
    coarse, score = pa.array([0] * 10, pa.int64()), pa.array([0.5] * 10)
    columns = ("img", "fine_label")
    path = dataset(tmp_path / "x.parquet", ROWS, features, columns, coarse_label=coarse, score=score)
    tree = read(path, tmp_path / "cache")
    assert contents(tree) == EXPECTED
    assert "The columns img and fine_label are read; coarse_label are skipped." in tree.notes


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_images_of_every_kind_keep_their_bytes(tmp_path, suffix):
    content = image(1, f".{suffix}")
    path = dataset(tmp_path / "x.parquet", [(content, 0)])
    assert contents(read(path, tmp_path / "cache")) == {f"000000/00000-0000000.{suffix}": content}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((None, 0), "no image bytes"),
        ((b"", 0), "no image bytes"),
        ((b"text", 0), "not an image by its first bytes"),
        ((image(1), None), "no label"),
        ((image(1), -1), "no label"),
    ],
)
def test_an_unusable_row_is_skipped_with_its_reason(tmp_path, row, reason):
    tree = read(dataset(tmp_path / "x.parquet", [(image(0), 0), row]), tmp_path / "cache")
    assert contents(tree) == {"000000/00000-0000000.jpg": image(0)}
    [entry] = tree.skipped
    assert (entry.path.partition(": ")[2], entry.reason) == ("row 1", reason)


@pytest.mark.parametrize(
    "features",
    [
        {"label": FEATURES["label"]},
        {"image": FEATURES["image"]},
        {"label": FEATURES["image"], "image": FEATURES["label"]},
        {"other": FEATURES["image"], "label": FEATURES["label"]},
    ],
)
def test_error_says_that_features_name_no_images_with_labels(tmp_path, features):
    path = dataset(tmp_path / "x.parquet", ROWS, features)
    with pytest.raises(SourceError, match=r"x.parquet: the schema's .* name no column .*Image and ClassLabel"):
        read(path, tmp_path / "cache")


def test_error_says_that_a_file_has_no_features(tmp_path):
    pq.write_table(pa.table({"image": [b"x"], "label": [1]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=r"x.parquet: the schema's .* name no column"):
        read(tmp_path / "x.parquet", tmp_path / "cache")


def test_a_truncated_file_is_refused(tmp_path):
    path = dataset(tmp_path / "x.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r"x.parquet cannot be read as Parquet"):
        read(path, tmp_path / "cache")


def test_a_damaged_file_is_refused_and_no_image_is_kept(tmp_path):
    path = dataset(tmp_path / "x.parquet", [(image(n), 0) for n in range(200)])
    column = pq.ParquetFile(path).metadata.row_group(60).column(0)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"x.parquet cannot be read as Parquet .* images before it are not kept"):
        read(path, tmp_path / "cache")
    assert list((tmp_path / "cache" / "ingested").iterdir()) == []


def test_few_rows_are_held_in_memory(tmp_path):
    """Of 1,200 rows of 100 kB, pyarrow holds only a small part at a time."""
    noise = [bytes([n % 256]) + image(n)[:100] * 1000 for n in range(16)]
    rows = [(b"\xff\xd8\xff" + noise[n % 16] + bytes([n % 256, n // 256]), 0) for n in range(1200)]
    path = dataset(tmp_path / "x.parquet", rows)
    script = (
        "import sys, pathlib, pyarrow; from loaderbench.images.sources import parquet; "
        f"archive = parquet.find(pathlib.Path({str(path)!r}), 'train'); "
        "samples = (s for shard in archive.shards(print) for s in shard(print)); "
        "print(sum(len(s.content) for s in samples), pyarrow.default_memory_pool().max_memory())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    read_bytes, most_bytes = map(int, done.stdout.split())
    assert most_bytes < read_bytes / 5


def test_error_for_missing_pyarrow_names_the_install_command(tmp_path, monkeypatch):
    path = dataset(tmp_path / "x.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SourceError, match=r"x.parquet needs pyarrow: pip install '\.\[parquet\]' in the checkout"):
        read(path, tmp_path / "cache")


@pytest.mark.parametrize("name", ["plain_text/train-00000-of-00001.parquet", "default/train/0000.parquet"])
def test_files_in_the_folder_of_a_configuration_are_read(tmp_path, name):
    dataset(tmp_path / "data" / name, ROWS)
    dataset(tmp_path / "data" / name.replace("train", "test"), [(image(99), 0)])
    assert contents(read(tmp_path / "data", tmp_path / "cache")) == EXPECTED


def test_error_for_several_configurations_names_them(tmp_path):
    for name in ("cropped", "full"):
        dataset(tmp_path / "data" / name / "train-00000-of-00001.parquet", ROWS)
    several = r"several configurations \(cropped, full\); name one of them: DATA=.*cropped"
    with pytest.raises(SourceError, match=several):
        read(tmp_path / "data", tmp_path / "cache")


def test_text_in_a_column_of_labels_is_refused(tmp_path):
    table = pq.read_table(dataset(tmp_path / "x.parquet", ROWS))
    text = table.set_column(1, "label", pa.array(["cat"] * len(ROWS)))
    pq.write_table(text.replace_schema_metadata(table.schema.metadata), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="name no column that holds images and one that holds class labels"):
        read(tmp_path / "x.parquet", tmp_path / "cache")
