"""Each sample of a shard that the library webdataset wrote gives the image's bytes and its label."""

from __future__ import annotations

import json

import pytest
from webdataset import ShardWriter

from loaderbench.formats import prepare
from loaderbench.images import SourceError
from loaderbench.machine.progress import Display
from tests.archives import contents, image, packed, read, tar
from tests.campaigns import campaign

pytestmark = pytest.mark.usefixtures("forked")


def shards(folder, samples, pattern="train-%06d.tar", per_shard=4, **options):
    folder.mkdir(exist_ok=True)
    with ShardWriter(str(folder / pattern), maxcount=per_shard, verbose=0, **options) as writer:
        for sample in samples:
            writer.write(sample)
    return folder


def samples(count=10):
    return [{"__key__": f"a/{n:05d}", "jpg": image(n), "cls": n % 3} for n in range(count)]


EXPECTED = {f"{n % 3:06d}/{n // 4:05d}-{n % 4:07d}.jpg": image(n) for n in range(10)}


def test_a_folder_of_shards_gives_every_sample_with_its_bytes_and_label(tmp_path):
    tree = read(shards(tmp_path / "shards", samples()), tmp_path / "cache")
    assert contents(tree) == EXPECTED
    assert not tree.skipped


def test_one_shard_gives_its_own_samples(tmp_path):
    shards(tmp_path / "shards", samples())
    tree = read(tmp_path / "shards" / "train-000000.tar", tmp_path / "cache")
    assert contents(tree) == {path: content for path, content in EXPECTED.items() if path[7:12] == "00000"}


def test_compressed_shards_are_read(tmp_path):
    folder = shards(tmp_path / "shards", samples(), "train-%06d.tar.gz", compress=True)
    assert contents(read(folder, tmp_path / "cache")) == EXPECTED


def test_keys_can_repeat_in_another_shard(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        tar(folder / f"{number}.tar", [("0.jpg", image(number)), ("0.cls", b"5")])
    tree = read(folder, tmp_path / "cache")
    assert contents(tree) == {f"000005/{n:05d}-0000000.jpg": image(n) for n in range(2)}


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "PNG"])
def test_images_of_every_kind_keep_their_bytes(tmp_path, suffix):
    content = image(1, f".{suffix.lower()}")
    path = tar(tmp_path / "x.tar", [(f"a.{suffix}", content), ("a.cls", b"7\n")])
    assert contents(read(path, tmp_path / "cache")) == {f"000007/00000-0000000.{suffix.lower()}": content}


def test_labels_are_read_from_json_and_other_fields_ignored(tmp_path):
    rows = [{"__key__": f"{n}", "jpg": image(n), "json": {"label": n, "x": 0.5}, "txt": "a fox"} for n in range(3)]
    tree = read(shards(tmp_path / "shards", rows), tmp_path / "cache")
    assert contents(tree) == {f"{n:06d}/00000-{n:07d}.jpg": image(n) for n in range(3)}


def test_the_key_ends_at_the_first_dot_of_the_file_name(tmp_path):
    entries = [("v1.0/a.jpg", image(1)), ("v1.0/a.seg.png", image(2, ".png")), ("v1.0/a.cls", b"1")]
    assert contents(read(tar(tmp_path / "x.tar", entries), tmp_path / "cache")) == {
        "000001/00000-0000000.jpg": image(1)
    }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"jpg": image(1)}, "no label"),
        ({"jpg": image(1), "cls": b"fox"}, "no label"),
        ({"jpg": image(1), "json": b"{}"}, "no label"),
        ({"jpg": image(1), "json": b"[]"}, "no label"),
        ({"jpg": image(1), "json": json.dumps({"label": 0.5}).encode()}, "no label"),
        ({"jpg": image(1), "json": b"{"}, "no label"),
        ({"jpg": image(1), "cls": b"1_0"}, "no label"),
        ({"jpg": image(1), "json": b'{"label": true}'}, "no label"),
        ({"cls": b"1"}, "no image"),
        ({"jpg": b"", "cls": b"1"}, "no image"),
        ({"jpg": image(1), "cls": b"-1"}, "no class index: -1"),
        ({"jpg": image(1), "cls": b"1000000"}, "no class index: 1000000"),
    ],
)
def test_an_unusable_sample_is_skipped_with_its_reason(tmp_path, fields, reason):
    entries = [("good.jpg", image(0)), ("good.cls", b"0"), *((f"bad.{field}", c) for field, c in fields.items())]
    tree = read(tar(tmp_path / "x.tar", entries), tmp_path / "cache")
    assert contents(tree) == {"000000/00000-0000000.jpg": image(0)}
    [entry] = tree.skipped
    assert entry.path.endswith("x.tar: bad")
    assert entry.reason.startswith(reason)


def test_a_repeated_file_is_skipped(tmp_path):
    entries = [("a.jpg", image(0)), ("a.jpg", image(1)), ("a.cls", b"0")]
    tree = read(tar(tmp_path / "x.tar", entries), tmp_path / "cache")
    assert contents(tree) == {"000000/00000-0000000.jpg": image(0)}
    assert [entry.reason for entry in tree.skipped] == ["a file of this name came before"]


def test_training_shards_are_read_and_other_splits_noted(tmp_path):
    shards(tmp_path / "shards", samples())
    shards(tmp_path / "shards", samples(4), "validation-%06d.tar")
    tree = read(tmp_path / "shards", tmp_path / "cache")
    assert contents(tree) == EXPECTED
    assert any("1 others are skipped: validation-000000.tar" in note for note in tree.notes)


def test_a_tar_beside_class_folders_is_ignored(tree, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "class0").symlink_to(tree / "class0")
    (root / "backup.tar").write_bytes(packed([("a.jpg", image(1))]))
    assert len(read(root, tmp_path / "cache").paths) == 32
    assert not (tmp_path / "cache").exists()


def test_writers_store_the_same_images_for_shards_and_files(tree, tmp_path):
    labels = sorted(path.name for path in tree.iterdir())
    files = [(label, path) for label, name in enumerate(labels) for path in sorted((tree / name).iterdir())]
    rows = [{"__key__": f"{n}", "jpg": path.read_bytes(), "cls": label} for n, (label, path) in enumerate(files)]
    folder = shards(tmp_path / "shards", rows, per_shard=30)
    files_only = {"files": {"writer": "imagefolder", "mode": "jpeg"}}
    formats = {
        **files_only,
        "beton": {"writer": "ffcv", "mode": "raw"},
        "chunks": {"writer": "litdata", "mode": "jpeg"},
    }
    chosen = campaign({"a": {"loader": "imagefolder"}}, formats), campaign({"a": {"loader": "imagefolder"}}, files_only)
    of_shards, of_files = (
        prepare(settings, data, tmp_path / "cache" / data.name, Display(), strict=True)
        for settings, data in zip(chosen, (folder, tree), strict=True)
    )
    assert {record.format: record.reason for record in of_shards.records} == dict.fromkeys(formats, "")
    assert of_shards.data["digest"] == of_files.data["digest"]


def test_skipped_samples_are_missing_in_every_format_and_strict_refuses_them(tmp_path):
    folder = shards(tmp_path / "shards", [*samples(), {"__key__": "bad", "jpg": image(99)}])
    chosen = campaign({"a": {"loader": "imagefolder", "format": "files"}})
    chosen = chosen.model_copy(update={"work": chosen.work.model_copy(update={"batch_size": 4})})
    prepared = prepare(chosen, folder, tmp_path / "cache", Display(), strict=False)
    assert [entry.reason for entry in prepared.rejected] == ["no label: no number in cls, and none as label in json"]
    with pytest.raises(SourceError, match="1 images cannot be read"):
        prepare(chosen, folder, tmp_path / "other", Display(), strict=True)


def test_files_that_macos_adds_are_ignored(tmp_path):
    entries = [("._a.jpg", b"x"), ("a.jpg", image(1)), ("._a.cls", b"x"), ("a.cls", b"2")]
    tree = read(tar(tmp_path / "x.tar", entries), tmp_path / "cache")
    assert contents(tree) == {"000002/00000-0000000.jpg": image(1)}
    assert not tree.skipped


def test_samples_without_a_class_are_of_one_class(tmp_path):
    entries = [(f"{n}.{field}", content) for n in range(2) for field, content in _captioned(n)]
    tree = read(tar(tmp_path / "x.tar", entries), tmp_path / "cache")
    assert contents(tree) == {f"000000/00000-{n:07d}.jpg": image(n) for n in range(2)}
    assert any("all are of one class" in note for note in tree.notes)


def _captioned(number):
    return [("jpg", image(number)), ("txt", b"a fox"), ("json", b'{"caption": "a fox"}')]


@pytest.mark.parametrize("field", ["input.jpg", "rgb.png", "bmp", "tif"])
def test_image_is_found_by_the_end_of_its_field(tmp_path, field):
    suffix = field.rpartition(".")[2]
    path = tar(tmp_path / "x.tar", [(f"a.{field}", image(1, f".{suffix}")), ("a.cls", b"3")])
    assert contents(read(path, tmp_path / "cache")) == {f"000003/00000-0000000.{suffix}": image(1, f".{suffix}")}


def test_shards_without_images_are_refused_after_the_first(tmp_path):
    (tmp_path / "shards").mkdir()
    tar(tmp_path / "shards" / "0.tar", [("a.txt", b"x"), ("a.mp3", b"y")])
    (tmp_path / "shards" / "1.tar").write_bytes(b"damaged")
    with pytest.raises(SourceError, match=r"0.tar holds no sample with an image; its fields are: mp3, txt"):
        read(tmp_path / "shards", tmp_path / "cache")


def test_deeply_nested_json_costs_its_own_sample_only(tmp_path):
    entries = [("a.jpg", image(0)), ("a.cls", b"0"), ("b.jpg", image(1)), ("b.json", b"[" * 200_000)]
    tree = read(tar(tmp_path / "x.tar", entries), tmp_path / "cache")
    assert contents(tree) == {"000000/00000-0000000.jpg": image(0)}
    assert [entry.reason[:8] for entry in tree.skipped] == ["no label"]
