"""An archive in a bucket, named by its key or its prefix, gives the same images as on disk."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from loaderbench.bucket import loopback
from loaderbench.bucket.client import S3Error
from loaderbench.bucket.copy import copy
from loaderbench.machine.progress import Display
from tests.archives import contents, image, packed, read, tar
from tests.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.proxy import Proxy

SHARD = "shards/train-000001.tar"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("buckets") / "archives"
    for folder in ("shards", "imagenet", "beside", "train"):
        (root / folder).mkdir(parents=True)
    for number in range(2):
        tar(root / "shards" / f"train-{number:06d}.tar", [("0.jpg", image(number)), ("0.cls", b"%d" % number)])
    synsets = [(f"n0000000{n}.tar", packed([(f"n0000000{n}_1.JPEG", image(n))])) for n in range(2)]
    tar(root / "imagenet" / "ILSVRC2012_img_train.tar", synsets)
    tar(root / "train.tar", [("0.jpg", image(5)), ("0.cls", b"5")])
    (root / "beside" / "file.jpg").write_bytes(image(0))
    (root / "beside.txt").write_bytes(b"begins like the folder")
    return root


@pytest.fixture(scope="module")
def server(bucket: Path) -> Iterator[str]:
    with loopback.serve(bucket.parent) as endpoint:
        yield endpoint


@pytest.mark.parametrize(
    "name", ["shards", "shards/", SHARD, "imagenet", "imagenet/ILSVRC2012_img_train.tar", "train.tar"]
)
def test_archives_in_a_bucket_give_the_same_images_as_on_disk(
    between: Proxy, bucket: Path, tmp_path: Path, name: str
) -> None:
    there = read(f"s3://archives/{name}", tmp_path / "cache")
    assert contents(there) == contents(read(bucket / name, tmp_path / "local"))
    assert contents(there)


def test_a_single_object_is_fetched_once_and_checked(between: Proxy, bucket: Path, tmp_path: Path) -> None:
    for _ in range(2):
        path = copy(f"s3://archives/{SHARD}", tmp_path, Display())
        assert path.name == "train-000001.tar"
        assert path.read_bytes() == (bucket / SHARD).read_bytes()
        assert between.gets == Counter({SHARD: 1})
    between.fault = lambda key, nth: "change" if key == SHARD else ""
    path.unlink()
    with pytest.raises(
        S3Error, match=f"fetching s3://archives/{SHARD} failed: it arrived damaged, or changed meanwhile"
    ):
        copy(f"s3://archives/{SHARD}", tmp_path, Display())


def test_a_prefix_does_not_match_an_object_whose_key_starts_alike(between: Proxy, tmp_path: Path) -> None:
    folder = copy("s3://archives/beside", tmp_path, Display())
    assert [path.name for path in folder.iterdir()] == ["file.jpg"]
    assert between.gets == Counter({"beside/file.jpg": 1})


def test_a_bucket_at_another_endpoint_is_not_fetched_again(
    between: Proxy, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = copy("s3://archives/shards", tmp_path, Display())
    with proxy(server) as elsewhere:
        monkeypatch.setenv("AWS_ENDPOINT_URL", elsewhere.endpoint)
        assert copy("s3://archives/shards", tmp_path, Display()) == first
        assert elsewhere.listings
        assert not elsewhere.gets
