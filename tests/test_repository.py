"""A published format is found by equal work on any machine, and used only if it matches its manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loaderbench.bucket import loopback, rclone, repository
from loaderbench.bucket.client import S3Error
from loaderbench.formats import Prepared, PrepareError, prepare, publish
from loaderbench.formats.conversion import Conversion
from loaderbench.formats.forks import Forks
from loaderbench.machine.disk import DiskSpaceError
from loaderbench.machine.progress import Display
from tests.campaigns import campaign
from tests.proxy import point, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("forked")

HERE = "s3://artifacts/ready"
FORMATS = {
    "files": {"writer": "imagefolder", "mode": "jpeg"},
    "original": {"writer": "imagefolder", "mode": "original"},
}


@pytest.fixture(scope="module")
def template(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Path]:
    """The formats of the tree in a cache, and a folder of buckets to which they were published."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "buckets" / "artifacts").mkdir(parents=True)
    with loopback.serve(folder / "buckets") as endpoint, pytest.MonkeyPatch.context() as patch:
        point(patch, loopback.environment(endpoint))
        prepared = ready(tree, folder / "first")
        publish(prepared, HERE, Display())
    return prepared, folder / "buckets"


@pytest.fixture
def bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a bucket: empty, or for tests with `published` a copy of the template's."""
    if "published" in request.fixturenames:
        shutil.copytree(request.getfixturevalue("template")[1], tmp_path / "buckets")
    else:
        (tmp_path / "buckets" / "artifacts").mkdir(parents=True)
    with loopback.serve(tmp_path / "buckets") as endpoint:
        point(monkeypatch, loopback.environment(endpoint))
        yield tmp_path / "buckets" / "artifacts"


@pytest.fixture
def published(bucket: Path, template: tuple[Prepared, Path]) -> Prepared:
    """The formats of the tree in a cache; they are also in the bucket."""
    return template[0]


@pytest.fixture
def second(published: Prepared, tmp_path: Path) -> Path:
    """Another cache, which has the canonical images already, but no format."""
    shutil.copytree(published.canonicals["files"].parent, tmp_path / "second" / "canonical")
    return tmp_path / "second"


def ready(tree: Path, cache: Path, artifacts: str | None = None) -> Prepared:
    return prepare(campaign({"a": {}}, FORMATS), tree, cache, Display(), strict=True, artifacts=artifacts)


def content(path: str | Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in Path(path).rglob("*") if p.is_file()}


def refuse_to_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Forks.run

    def only_links(forks: Forks, spec: Conversion, log: Path) -> dict[str, Any]:
        assert spec.is_written or spec.encoding.mode == "original", "converted what is published"
        return run(forks, spec, log)

    monkeypatch.setattr(Forks, "run", only_links)


def change(bucket: Path, name: str, body: bytes) -> None:
    """Replace the object whose key ends with this name."""
    import boto3

    [path] = bucket.rglob(name)
    boto3.client("s3").put_object(Bucket="artifacts", Key=path.relative_to(bucket).as_posix(), Body=body)


def say_of_a_file(bucket: Path, **said: Any) -> None:
    """Change what the manifest says of its first file."""
    [path] = bucket.rglob("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["files"][0] |= said
    change(bucket, "manifest.json", json.dumps(manifest).encode())


@pytest.mark.usefixtures("planted")
class TestRepository:
    def test_another_machine_pulls_a_published_format_instead_of_writing_it(
        self, published: Prepared, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere = shutil.copytree(tree, tmp_path / "elsewhere", copy_function=shutil.copyfile)
        refuse_to_convert(monkeypatch)
        pulled = ready(elsewhere, tmp_path / "second", HERE)
        mine, theirs = (p.artifacts["files"] for p in (pulled, published))
        assert content(mine.path) == content(theirs.path)
        assert (mine.size_bytes, mine.payload_bytes, mine.label_sum) == (
            theirs.size_bytes,
            theirs.payload_bytes,
            theirs.label_sum,
        )

    def test_a_pulled_format_has_no_write_time(self, published: Prepared, tree: Path, second: Path) -> None:
        records = {record.format: record for record in ready(tree, second, HERE).records}
        assert (records["files"].write_synced_s, records["files"].images_per_s, records["files"].cpu_s) == (
            None,
            None,
            None,
        )
        assert records["files"].status == "ok"
        assert records["files"].stored == "canonical JPEG bytes"

    def test_links_to_local_files_are_not_published(self, published: Prepared, bucket: Path) -> None:
        assert [path.name.partition("-")[0] for path in (bucket / "ready").iterdir()] == ["files"]

    def test_manifest_lists_digests_versions_and_encoding(self, published: Prepared, bucket: Path) -> None:
        [path] = bucket.rglob("manifest.json")
        manifest = json.loads(path.read_text())
        assert {file["path"] for file in manifest["files"]} == set(content(published.artifacts["files"].path))
        assert all(len(file["sha256"]) == 64 for file in manifest["files"])
        assert json.loads(manifest["record"]["options"])["mode"] == "jpeg"
        assert "versions" in manifest["record"]

    def test_a_published_format_is_not_uploaded_again(self, published: Prepared, bucket: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in bucket.rglob("*") if path.is_file()}
        publish(published, HERE, Display())
        assert {path: path.stat().st_mtime_ns for path in bucket.rglob("*") if path.is_file()} == before

    @pytest.mark.parametrize("body", [b"short", None])
    def test_a_file_that_contradicts_the_manifest_is_refused_and_not_kept(
        self, published: Prepared, bucket: Path, tree: Path, second: Path, body: bytes | None
    ) -> None:
        name = "000000005.jpg"
        [path] = bucket.rglob(name)
        change(bucket, name, body or path.read_bytes()[::-1])  # of the same size
        with pytest.raises(S3Error, match=r"is refused: .*000000005\.jpg"):
            ready(tree, second, HERE)
        assert not list(second.glob("artifacts/files-*"))

    @pytest.mark.parametrize(
        ("column", "value"), [("versions", "other 1.0"), ("options", "{}"), ("samples", 1), ("schema", 1)]
    )
    def test_a_manifest_of_another_format_is_refused(  # noqa: PLR0913, PLR0917
        self, published: Prepared, bucket: Path, tree: Path, second: Path, column: str, value: object
    ) -> None:
        [path] = bucket.rglob("manifest.json")
        manifest = json.loads(path.read_text())
        manifest["record"][column] = value
        change(bucket, "manifest.json", json.dumps(manifest).encode())
        with pytest.raises(PrepareError, match="describes another format than its name"):
            ready(tree, second, HERE)

    @pytest.mark.parametrize("theirs", [b"no image", None])
    def test_what_a_pulled_format_stores_is_read_back(
        self, published: Prepared, bucket: Path, tree: Path, second: Path, theirs: bytes | None
    ) -> None:
        """Whoever may write to the bucket changes an image, and the manifest with it."""
        image, [path] = "000000005.jpg", bucket.rglob("manifest.json")
        body = theirs or next(bucket.rglob("000000006.jpg")).read_bytes()
        manifest = json.loads(path.read_text())
        [described] = [file for file in manifest["files"] if file["path"].endswith(image)]
        described |= {"size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        change(bucket, image, body)
        change(bucket, "manifest.json", json.dumps(manifest).encode())
        if theirs:
            with pytest.raises(PrepareError, match=r"is refused: what is stored of image .* cannot be read"):
                ready(tree, second, HERE)
            assert not list(second.glob("artifacts/files-*"))
        else:
            [record] = [each for each in ready(tree, second, HERE).records if each.format == "files"]
            assert record.stored.startswith("canonical JPEG bytes (99 %) and JPEG")

    def test_files_far_larger_than_their_manifest_says_are_not_fetched_in_full(
        self, published: Prepared, bucket: Path, tree: Path, second: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(repository, "_REPEATED_BYTES", 0)
        monkeypatch.setitem(rclone._OPTIONS, "bwlimit", "20M")
        change(bucket, "000000005.jpg", bytes(8 << 20))
        with pytest.raises(S3Error, match="is refused: its files are larger than its manifest says"):
            ready(tree, second, HERE)
        assert not list(second.glob("artifacts/files-*"))

    def test_a_format_that_does_not_fit_on_the_disk_is_not_fetched(
        self, published: Prepared, bucket: Path, tree: Path, second: Path
    ) -> None:
        say_of_a_file(bucket, size_bytes=1 << 60)
        with pytest.raises(DiskSpaceError, match=r"the files of s3://artifacts/ready/files-.* need about 1.2 EB"):
            ready(tree, second, HERE)

    def test_a_manifest_too_large_to_be_read_is_refused(
        self, published: Prepared, bucket: Path, tree: Path, second: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(repository, "_MOST_MANIFEST_BYTES", 1 << 20)
        change(bucket, "manifest.json", b" " * (2 << 20))
        with pytest.raises(S3Error, match=r"manifest.json is larger than 1 MiB"):
            ready(tree, second, HERE)

    @pytest.mark.parametrize(
        "stored",
        [
            "{",
            "[]",
            '{"layout": 2, "record": {}, "files": []}',
            "[" * 100_000,
            '{"layout": 1, "record": {}, "files": [{"path": 5, "size_bytes": 1, "sha256": ""}]}',
            '{"layout": 1, "record": {}, "files": [{"path": "a", "size_bytes": "x", "sha256": ""}]}',
            '{"layout": 1, "record": {}, "files": [{"path": "a", "size_bytes": -5, "sha256": ""}]}',
        ],
        ids=["cut", "list", "layout", "deep", "path", "size", "negative size"],
    )
    def test_a_damaged_manifest_is_refused(
        self, published: Prepared, bucket: Path, tree: Path, second: Path, stored: str
    ) -> None:
        change(bucket, "manifest.json", stored.encode())
        with pytest.raises(S3Error, match="is refused: its manifest"):
            ready(tree, second, HERE)

    def test_a_manifest_that_names_a_file_outside_is_refused(
        self, published: Prepared, bucket: Path, tree: Path, second: Path
    ) -> None:
        say_of_a_file(bucket, path="../../evil")
        with pytest.raises(S3Error, match=r"names a file outside of it, '\.\./\.\./evil'"):
            ready(tree, second, HERE)

    def test_an_interrupted_pull_resumes(
        self, published: Prepared, bucket: Path, tree: Path, second: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Meanwhile one of the arrived files is damaged, and a foreign file is added."""
        fetched: list[str] = []
        download = rclone.download

        def cut(b: object, at: object, names: list[str], *rest: Any) -> None:
            download(b, at, names[:40], *rest)  # type: ignore[arg-type]
            raise S3Error("the connection broke")

        with monkeypatch.context() as patch:
            patch.setattr(rclone, "download", cut)
            with pytest.raises(S3Error, match="the connection broke"):
                ready(tree, second, HERE)
        kept = sorted(second.rglob("*.pulled/**/*.jpg"))
        assert len(kept) == 40
        kept[0].write_bytes(kept[0].read_bytes()[::-1])
        kept[0].with_name("other").write_bytes(b"")
        with proxy(os.environ["AWS_ENDPOINT_URL"]) as between:
            monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
            pulled = ready(tree, second, HERE).artifacts["files"]
            fetched = [Path(key).name for key in between.gets]
        assert content(pulled.path) == content(published.artifacts["files"].path)
        assert set(fetched) & {path.name for path in kept} == {kept[0].name}
        assert not list(second.rglob("*.pulled"))

    def test_an_unpublished_format_is_written(self, bucket: Path, tree: Path, tmp_path: Path) -> None:
        assert ready(tree, tmp_path / "cache", HERE).records[0].write_synced_s

    def test_a_published_format_is_not_used_for_other_images(
        self, published: Prepared, tree: Path, tmp_path: Path
    ) -> None:
        fewer = shutil.copytree(tree, tmp_path / "fewer")
        (fewer / "class0" / "0.jpg").unlink()
        prepared = ready(fewer, tmp_path / "second", HERE)
        assert prepared.artifacts["files"].samples == 95
        assert prepared.records[0].write_synced_s
