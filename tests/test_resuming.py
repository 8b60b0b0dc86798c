"""Writing a format resumes after a stop, and stores the same files as one run."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import re
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from loaderbench.api import Encoding
from loaderbench.campaign import registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.formats import Prepared, conversion, forks, prepare, writing
from loaderbench.images import CanonicalImages, CanonicalSettings, canonical_build
from loaderbench.images.canonical_build import build
from loaderbench.images.class_folders import scan
from loaderbench.machine.progress import Display
from tests.campaigns import campaign

pytestmark = pytest.mark.usefixtures("forked")

FORK = multiprocessing.get_context("fork")
WORKERS = 2


class Deadly:
    """A source that kills the process group of its reader after so many requests for a label."""

    def __init__(self, source: CanonicalImages, labels: int) -> None:
        self._source, self._left = source, FORK.Value("i", labels)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def label(self, index: int) -> int:
        with self._left:
            self._left.value -= 1
            if self._left.value < 0:
                os.killpg(0, signal.SIGKILL)
        return self._source.label(index)


@pytest.fixture(scope="module")
def source(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> CanonicalImages:
    """The tree's canonical images."""
    folder = tmp_path_factory.mktemp("canonical")
    build(scan(tree), folder, CanonicalSettings(None, 0, 256, 90), strict=True, on_progress=lambda _: None)
    return CanonicalImages(folder)


def write(name: str, source: Any, out: Path, mode: str, workers: int = WORKERS) -> int | None:
    """Write in a new process group, and return its exit code."""

    def session() -> None:
        os.setsid()
        registry.writer(name).write(source, out, Encoding(mode), workers)  # type: ignore[arg-type]

    out.mkdir(exist_ok=True)
    for library in registry.writer(name).requires:
        importlib.import_module(library)  # once for all sessions
    process = FORK.Process(target=session)
    process.start()
    process.join()
    return process.exitcode


def files(folder: Path) -> dict[str, bytes]:
    """Return all files except LitData's index, which contains the time."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "index.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


FORMATS = [
    ("imagefolder", "jpeg"),
    ("imagefolder", "original"),
    ("litdata", "jpeg"),
    pytest.param("litdata", "raw", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "mode"), FORMATS)
def test_writing_resumes_after_a_kill_and_stores_the_same_files(
    source: CanonicalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str
) -> None:
    writer = registry.writer(name)
    monkeypatch.setattr(writer, "PART", 8, raising=False)  # 96 images are 6 parts of 2 workers
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert write(name, source, whole, mode) == 0
    points = random.Random(0)
    for _ in range(3):
        assert write(name, Deadly(source, points.randrange(40)), out, mode) == -signal.SIGKILL
    assert write(name, source, out, mode) == 0
    assert files(out) == files(whole)
    assert list(writer.payloads(out)) == list(writer.payloads(whole))
    assert len(list(writer.payloads(out))) == len(source)


class Failing(Deadly):
    """A source that raises in the reading worker after a number of requests."""

    def label(self, index: int) -> int:
        with self._left:
            self._left.value -= 1
            if self._left.value < 0:
                raise OSError("No space left on device")
        return self._source.label(index)


@pytest.mark.parametrize("labels", [0, 40])
def test_a_failed_worker_ends_ffcvs_writer(
    source: CanonicalImages, tmp_path: Path, labels: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert write("ffcv", Failing(source, labels), tmp_path / "out", "raw") == 1
    assert "a worker process of FFCV's writer failed; its own message is above" in capfd.readouterr().err


def test_litdata_keeps_complete_parts_and_resumes_with_other_workers(
    source: CanonicalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = registry.writer("litdata")
    monkeypatch.setattr(writer, "PART", 8)
    assert write("litdata", Deadly(source, 40), tmp_path / "out", "jpeg", workers=2) == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("chunk-*-[01].bin")}
    assert len(kept) == 4  # two parts of 16; the third was under way
    (tmp_path / "out" / "chunk-1-7.bin").write_bytes(b"of a worker that is not there any more")
    assert write("litdata", source, tmp_path / "out", "jpeg", workers=1) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("chunk-1-*")) == ["chunk-1-0.bin", "chunk-1-1.bin"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert list(writer.payloads(tmp_path / "out")) == [source.jpeg(index) for index in range(len(source))]


def test_litdata_writes_and_removes_nothing_outside_its_own_folders(
    source: CanonicalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("chunks", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("...")
    assert write("litdata", source, tmp_path / "out", "jpeg") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chunks", "data", "out"]
    assert all((tmp_path / name / "mine").exists() for name in ("chunks", "data"))
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


def ready(chosen: Campaign, tree: Path, cache: Path) -> Prepared:
    return prepare(chosen, tree, cache, Display(), strict=True)


def stop(cache: Path, suffix: str) -> Path:
    """Turn the only artifact into what a kill leaves, and return the folder of its files."""
    [artifact] = (cache / "artifacts").iterdir()
    (artifact / "manifest.json").unlink()
    return artifact.rename(artifact.with_name(artifact.name + suffix)) / "files"


def test_resumed_writing_keeps_complete_files_and_reports_no_time(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = campaign({"a": {"loader": "imagefolder"}})
    [first] = ready(chosen, tree, tmp_path).records
    left = sorted(stop(tmp_path, ".begun").glob("*/*"))
    left[0].write_bytes(left[0].read_bytes()[:100])
    left[1].unlink()
    times = {path.name: path.stat().st_mtime_ns for path in left[2:]}
    prepared = ready(chosen, tree, tmp_path)
    [record] = prepared.records
    assert (record.status, record.stored) == ("ok", first.stored)
    assert record.stored_jpeg == first.stored_jpeg == 96
    assert record.write_synced_s is record.cpu_s is record.images_per_s is record.cpu_s_per_1k_images is None
    paths = sorted(Path(prepared.artifacts["files"].path).glob("*/*"))
    assert {path.name: path.stat().st_mtime_ns for path in paths[2:]} == times
    assert re.search(r"files was stopped at \d+[\d.]* (bytes|kB); it resumes", capsys.readouterr().out)


def test_the_same_command_resumes_after_its_process_was_killed(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = campaign({"a": {"loader": "imagefolder"}})
    ready(chosen, tree, tmp_path)
    left = {path: path.stat().st_mtime_ns for path in stop(tmp_path, ".begun").glob("*/*")}
    with monkeypatch.context() as patch:
        patch.setattr(forks, "wait", lambda told, _: os.kill(told[1]._process.pid, signal.SIGKILL) or told[1:])
        [record] = ready(chosen, tree, tmp_path).records
    assert record.status == "failed"
    assert "was ended by SIGKILL (out of memory?)" in record.reason
    assert record.reason.endswith("what is complete is kept, and the same command resumes")
    assert {path: path.stat().st_mtime_ns for path in left} == left
    assert [record.status for record in ready(chosen, tree, tmp_path).records] == ["ok"]


@pytest.mark.usefixtures("planted")
def test_a_writer_that_cannot_resume_restarts_and_says_so(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = campaign({"a": {"format": "raw"}}, {"raw": {"writer": "planted-writer", "mode": "raw"}})
    [first] = ready(chosen, tree, tmp_path).records
    (stop(tmp_path, ".partial") / "left").write_text("...")
    [record] = ready(chosen, tree, tmp_path).records
    assert record.size_bytes == first.size_bytes
    assert record.write_synced_s
    told = r"raw was stopped at [1-9][\d.]* \w+; it restarts from scratch, because its library cannot resume"
    assert re.search(told, capsys.readouterr().out)


def test_conversion_time_includes_the_flush_to_disk(
    source: CanonicalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = 0.0

    def flush(_: int) -> None:
        nonlocal clock_s
        clock_s += 7 if any(tmp_path.rglob("*.jpg")) else 1000

    monkeypatch.setattr(conversion, "perf_counter", lambda: clock_s)
    monkeypatch.setattr(conversion, "flush_disk", flush)
    columns = conversion.run(conversion.Conversion("imagefolder", source, Encoding("jpeg"), 1, tmp_path))
    assert (columns["write_synced_s"], columns["images_per_s"]) == (7, len(source) / 7)


def test_conversion_runs_unwatched_and_its_log_is_named(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def run(*_: Any) -> dict[str, Any]:
        threads.extend(thread for thread in threading.enumerate() if thread not in before)
        return {"status": "failed", "reason": "not started"}

    before = threading.enumerate()
    monkeypatch.setattr(writing.Forks, "run", run)
    ready(campaign({"a": {"loader": "imagefolder"}}), tree, tmp_path)
    assert threads == []
    assert f"writing files ...; the library's own progress is in {tmp_path}/write-files.log" in capsys.readouterr().out


def test_only_partial_data_of_an_earlier_version_is_removed(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = campaign({"a": {"loader": "imagefolder"}})
    ready(chosen, tree, tmp_path)
    stop(tmp_path, ".begun")
    [store] = (tmp_path / "canonical").iterdir()
    store.rename(store.with_name(store.name + ".begun"))
    (other := tmp_path / "artifacts" / f"files-{'0' * 16}-{'0' * 8}.begun").mkdir()  # of other images
    monkeypatch.setattr(registry.Adapter, "code_digest", lambda _: "of another version")
    monkeypatch.setattr(canonical_build, "versions", lambda: {"cv2": "another"})
    prepared = ready(chosen, tree, tmp_path)
    written = Path(prepared.artifacts["files"].path).parent
    assert set((tmp_path / "artifacts").iterdir()) == {other, written}
    assert set((tmp_path / "canonical").iterdir()) == {prepared.canonicals["files"]}


def test_existing_files_need_no_free_space(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = campaign({"a": {"loader": "imagefolder"}})
    ready(chosen, tree, tmp_path)
    stop(tmp_path, ".begun")
    usage = shutil.disk_usage(tmp_path)._replace(free=10)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert ready(chosen, tree, tmp_path).artifacts
