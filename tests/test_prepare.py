"""Every format stores the canonical bytes, is complete or missing, and is written once."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from loaderbench.api import Artifact
from loaderbench.campaign.campaign import Campaign
from loaderbench.formats import Prepared, PrepareError, prepare, writing
from loaderbench.machine.disk import DiskSpaceError
from loaderbench.machine.files import BusyError, building, locked
from loaderbench.machine.progress import Display
from tests.campaigns import campaign

pytestmark = pytest.mark.usefixtures("forked")


def ready(campaign: Campaign, tree: Path, cache: Path) -> Prepared:
    return prepare(campaign, tree, cache, Display(), strict=True)


def stored(prepared: Prepared) -> dict[str, tuple[int | None, int | None]]:
    return {record.format: (record.stored_raw, record.stored_jpeg) for record in prepared.records}


def test_prepare_writes_every_format(quick: Campaign, everything: Prepared) -> None:
    names = {f.name for f in quick.formats}
    assert {record.format: record.reason for record in everything.records} == dict.fromkeys(names, "")
    assert set(everything.artifacts) == names


def test_formats_store_the_canonical_bytes_of_every_image(everything: Prepared) -> None:
    counts = stored(everything)
    assert counts["ffcv-raw"] == counts["litdata-raw"] == (96, 0)
    assert counts["jpeg-files"] == counts["ffcv-jpeg"] == counts["litdata-jpeg"] == (0, 96)
    assert counts["original"] == (None, None)


@pytest.mark.parametrize("name", ["ffcv-half", "ffcv-smart"])
def test_ffcv_mixtures_hold_raw_and_jpeg_images_only(everything: Prepared, name: str) -> None:
    raw, jpeg = stored(everything)[name]
    assert raw
    assert jpeg
    assert raw + jpeg == 96


def test_a_conversion_reports_its_cost(everything: Prepared) -> None:
    for record in everything.records:
        assert record.kind == "write"
        assert record.write_synced_s
        assert record.images_per_s == pytest.approx(96 / record.write_synced_s)
        assert record.cpu_s
        assert record.size_bytes
        assert record.bytes_per_image == record.size_bytes / 96
        assert record.payload_bytes
        assert record.payload_bytes <= record.size_bytes
    assert {record.adapter: record.versions.split()[:1] for record in everything.records} == {
        "ffcv": ["ffcv"],
        "litdata": ["litdata"],
        "imagefolder": [],
    }


def test_existing_formats_are_not_rewritten(tree: Path, tmp_path: Path) -> None:
    chosen = campaign({"a": {"loader": "imagefolder"}})
    first = ready(chosen, tree, tmp_path)
    assert ready(chosen, tree, tmp_path) == first


def test_a_format_description_is_written_once_and_replaced_atomically(tree: Path, tmp_path: Path) -> None:
    chosen = campaign({"a": {"loader": "imagefolder"}})
    artifact = ready(chosen, tree, tmp_path).artifacts["files"]
    description = Path(artifact.path).with_name("artifact.json")
    inode, written_ns = description.stat().st_ino, description.stat().st_mtime_ns
    ready(chosen, tree, tmp_path)
    assert (description.stat().st_ino, description.stat().st_mtime_ns) == (inode, written_ns)
    with description.open() as reader:
        replace(artifact, classes=7).describe()
        assert json.load(reader)["classes"] == artifact.classes
    assert Artifact.load(description.parent).classes == 7
    assert not list(description.parent.glob("*.partial"))


def test_formats_in_the_cache_need_no_bucket(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = campaign({"a": {"loader": "imagefolder"}})
    first = ready(chosen, tree, tmp_path)
    monkeypatch.setattr(writing, "Repository", lambda url: pytest.fail(f"connects to {url}"))
    assert prepare(chosen, tree, tmp_path, Display(), strict=True, artifacts="s3://bucket/ready") == first


def test_a_changed_tree_is_converted_again(tree: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(tree, tmp_path / "tree"))
    chosen = campaign({"a": {"loader": "imagefolder"}})
    before = ready(chosen, mine, tmp_path / "cache")
    (mine / "class0" / "0.jpg").unlink()
    after = ready(chosen, mine, tmp_path / "cache")
    assert after.artifacts["files"].samples == before.artifacts["files"].samples - 1
    assert after.data["digest"] != before.data["digest"]


def test_artifacts_know_the_sum_of_their_labels(everything: Prepared) -> None:
    assert {artifact.label_sum for artifact in everything.artifacts.values()} == {32 * (0 + 1 + 2)}


def test_original_format_links_to_the_users_images(everything: Prepared, tree: Path) -> None:
    links = sorted(Path(everything.artifacts["original"].path).glob("*/*"))
    assert len(links) == 96
    assert all(link.is_symlink() and tree in link.resolve().parents for link in links)


@pytest.mark.usefixtures("planted")
def test_a_format_without_images_is_invalid_and_not_kept(tree: Path, tmp_path: Path) -> None:
    formats = {
        "empty": {"writer": "planted-empty", "mode": "raw"},
        "files": {"writer": "imagefolder", "mode": "jpeg"},
    }
    prepared = ready(campaign({"a": {"format": "files"}}, formats), tree, tmp_path)
    [record] = [record for record in prepared.records if record.format == "empty"]
    assert record.status == "invalid"
    assert "0 images are stored instead of 96" in record.reason
    assert set(prepared.artifacts) == {"files"}
    assert [path.name for path in (tmp_path / "artifacts").iterdir() if "empty" in path.name] == []


def test_error_for_fewer_images_than_a_batch_names_the_fix(tree: Path, tmp_path: Path) -> None:
    few = campaign({"a": {"loader": "imagefolder"}}).model_copy(
        update={"data": campaign({"a": {"loader": "imagefolder"}}).data.model_copy(update={"samples": 5})}
    )
    with pytest.raises(PrepareError, match="only 5 readable images, but the batch size is 16; use --batch-size 5"):
        ready(few, tree, tmp_path)


def test_too_little_disk_space_is_reported_before_anything_is_written(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = campaign({"a": {"loader": "imagefolder"}})
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)  # type: ignore[attr-defined]
    ready(chosen, tree, tmp_path)
    shutil.rmtree(tmp_path / "artifacts")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskSpaceError, match=r"1 formats need about .* use --cache DIR for another disk"):
        ready(chosen, tree, tmp_path)
    assert not (tmp_path / "artifacts").exists()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "artifact"

    def fail() -> None:
        with building(target) as partial:
            (partial / "half").write_text("...")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_resumable_build_is_kept_after_a_stop_but_not_after_an_error(tmp_path: Path) -> None:
    def end(error: BaseException) -> list[str]:
        with suppress(type(error)), building(tmp_path / "store", goes_on=True) as partial:
            found = [path.name for path in partial.iterdir()]
            (partial / "half").write_text("...")
            raise error
        return found

    assert end(KeyboardInterrupt()) == []
    assert end(SystemExit()) == ["half"]
    assert end(OSError()) == ["half"]
    assert end(OSError()) == []


def test_an_incomplete_folder_is_rebuilt(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    (tmp_path / "artifact.partial").mkdir()
    (tmp_path / "artifact.partial" / "old").write_text("...")
    with building(target) as partial:
        (partial / "new").write_text("...")
    assert [path.name for path in target.iterdir()] == ["new"]


def test_a_second_preparation_in_the_same_cache_is_refused(tree: Path, tmp_path: Path) -> None:
    with locked(tmp_path, "busy"), pytest.raises(BusyError, match="another loaderbench is preparing data"):
        ready(campaign({"a": {"loader": "imagefolder"}}), tree, tmp_path)
