"""Formats of one writer share a process that imports its libraries; each has a process of its own that writes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loaderbench.api import Encoding
from loaderbench.formats import forks as forks_module
from loaderbench.formats.conversion import Conversion
from loaderbench.formats.forks import Forks
from loaderbench.images.canonical_build import build
from loaderbench.images.canonical_form import CanonicalSettings
from loaderbench.images.canonical_store import CanonicalImages
from loaderbench.images.class_folders import scan
from tests.nursery import gone

pytestmark = pytest.mark.usefixtures("planted", "forked")
FAULT, SEGFAULT, EXIT, PARENT, LEAVES, HANGS, WELL = range(1, 8)
"""How the planted writer ends, by JPEG quality."""


@pytest.fixture(scope="module")
def source(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> CanonicalImages:
    """The canonical images of four images."""
    folder = tmp_path_factory.mktemp("canonical")
    build(scan(tree), folder, CanonicalSettings(4, 0, 256, 90), strict=True, on_progress=lambda _: None)
    return CanonicalImages(folder)


@pytest.fixture
def forks() -> Iterator[Forks]:
    """Processes that end with the test."""
    with Forks() as forks:
        yield forks


def write(forks: Forks, source: CanonicalImages, folder: Path, end: int, writer: str = "planted-ending") -> Any:
    """Return the report, and the processes: which imported the writer, which wrote, and which it left running."""
    out = folder / str(len(list(folder.iterdir())))
    out.mkdir()
    mode = "jpeg" if writer == "imagefolder" else "raw"
    report = forks.run(Conversion(writer, source, Encoding(mode, quality=end), 1, out), folder / "log")  # type: ignore[arg-type]
    pids = out / "pids"
    return report, [int(pid) for pid in pids.read_text().split()] if pids.exists() else []


def test_each_format_is_written_by_a_process_of_its_own_after_one_import(
    forks: Forks, source: CanonicalImages, tmp_path: Path
) -> None:
    reports, pids = zip(*(write(forks, source, tmp_path, WELL) for _ in range(2)), strict=True)
    assert [report["reason"] for report in reports] == ["", ""]
    assert pids[0][0] == pids[1][0]
    assert len({pids[0][0], pids[0][1], pids[1][1]}) == 3
    assert all(report["write_synced_s"] and report["cpu_s"] for report in reports)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (FAULT, "ValueError: the planted fault"),
        (SEGFAULT, "the process was ended by SIGSEGV"),
        (EXIT, "SystemExit: 5 (planted/planted_ending.py:"),
        (PARENT, "the process was ended by SIGKILL (out of memory?)"),
    ],
)
def test_a_failed_format_is_named_and_the_next_one_is_written(
    forks: Forks, source: CanonicalImages, tmp_path: Path, end: int, reason: str
) -> None:
    report, _ = write(forks, source, tmp_path, end)
    assert report["status"] == "failed"
    assert report["reason"].startswith(reason)
    assert "the planted writer writes" in (tmp_path / "log").read_text() or end != FAULT
    report, [_, writer, _] = write(forks, source, tmp_path, WELL)
    assert report["status"] == "ok"
    assert gone(writer)


def test_a_writer_that_hangs_is_killed_at_its_limit_and_the_next_format_is_written(
    forks: Forks, source: CanonicalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(forks_module, "_LIMIT_S", 1)
        report, pids = write(forks, source, tmp_path, HANGS)
    assert (report["status"], report["reason"]) == ("timeout", "killed after its time limit of 2 s")
    assert all(map(gone, pids[:2]))
    report, _ = write(forks, source, tmp_path, WELL)
    assert report["status"] == "ok"


def test_interrupted_format_is_not_written_any_more_when_the_call_ends(
    forks: Forks, source: CanonicalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "0" / "pids"

    def interrupt(*_: object) -> None:
        while not pids.exists() or len(pids.read_text().split()) < 3:
            time.sleep(0.02)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forks_module, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write(forks, source, tmp_path, HANGS)
    assert all(gone(int(pid)) for pid in pids.read_text().split()[:2])
    assert write(forks, source, tmp_path, WELL)[0]["status"] == "ok"


def test_what_a_writer_leaves_running_is_ended_before_the_next_format(
    forks: Forks, source: CanonicalImages, tmp_path: Path
) -> None:
    report, [_, _, left] = write(forks, source, tmp_path, LEAVES)
    assert report["status"] == "ok"
    assert not psutil.pid_exists(left)


def test_another_writer_has_another_process_and_all_end_with_the_block(source: CanonicalImages, tmp_path: Path) -> None:
    with Forks() as forks:
        _, [first, *_] = write(forks, source, tmp_path, WELL)
        assert psutil.pid_exists(first)
        write(forks, source, tmp_path, 90, "imagefolder")
        assert gone(first)
        _, [second, *_] = write(forks, source, tmp_path, WELL)
    assert second != first
    assert gone(second)
