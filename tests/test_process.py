"""A child process always ends with a report, and leaves no process running."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.machine import process
from loaderbench.trial import TrialSpec, Window
from tests.nursery import Nursery, gone

TRIAL = "loaderbench.trial.trial.run"


def spec(tree: Path, loader: str = "planted", **options: Any) -> TrialSpec:
    artifact = Artifact("f", str(tree), 96, 96, 1, 1, Encoding("jpeg"), classes=3)
    work = Work(batch_size=16, workers=1, image_size=8)
    return TrialSpec(loader, artifact, work, Window(0, 0.01, 1, 0), tree.parent / "times.npz", options)


@pytest.fixture(scope="class", params=["started", "forked"])
def child(request: pytest.FixtureRequest, nursery: Nursery) -> Iterator[None]:
    """Children that are started, as in a campaign, or forked, as in most tests."""
    with nursery.replacing() if request.param == "forked" else nullcontext():
        yield


@pytest.fixture(scope="class")
def good(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, planted: None, child: None
) -> tuple[dict[str, Any], Path]:
    """The report of a good trial that leaves a process running, and the folder of its log."""
    folder = tmp_path_factory.mktemp("good")
    return process.run_child(TRIAL, spec(tree, pid_file=str(folder / "pids")), folder / "log", 600), folder


@pytest.mark.usefixtures("planted", "child")
class TestEnds:
    def test_a_good_trial_is_ok_and_leaves_no_log(self, good: tuple[dict[str, Any], Path]) -> None:
        result, folder = good
        assert result["status"] == "ok", result
        assert result["images_per_s"] > 0
        assert not (folder / "log").exists()

    def test_a_trial_of_repeated_images_is_invalid(self, tree: Path, tmp_path: Path) -> None:
        result = process.run_child(TRIAL, spec(tree, behaviour="repeat"), tmp_path / "log", 600)
        assert (result["status"], result["reason"][-15:]) == ("invalid", "one colour only")

    def test_processes_left_by_a_good_trial_are_killed(self, good: tuple[dict[str, Any], Path]) -> None:
        _, folder = good
        pids = (folder / "pids").read_text().split()
        assert len(pids) == 2
        assert all(gone(int(pid)) for pid in pids)

    def test_a_hanging_trial_is_killed_with_its_process_group(
        self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pids = tmp_path / "pids"
        wait = process.Child.wait

        def begun(*limits: Any) -> bool:
            """Start the short time limit when the trial hangs."""
            while not pids.exists() or len(pids.read_text().split()) < 2:
                time.sleep(0.02)
            return wait(*limits)

        monkeypatch.setattr(process.Child, "wait", begun)
        result = process.run_child(TRIAL, spec(tree, "doomed", end="hang", pid_file=str(pids)), tmp_path / "log", 0.2)
        assert result["status"] == "timeout"
        assert result["reason"] == "killed after its time limit of 0.2 s"
        assert len(pids.read_text().split()) == 2
        assert all(gone(int(pid)) for pid in pids.read_text().split())

    def test_an_exception_is_the_reason_and_its_traceback_is_logged(self, tree: Path, tmp_path: Path) -> None:
        result = process.run_child(TRIAL, spec(tree, "doomed", end="crash"), tmp_path / "log", 600)
        assert result == {"status": "failed", "reason": "ValueError: the planted | fault\nin two lines"}
        assert "Traceback" in (tmp_path / "log").read_text()

    def test_reason_of_a_killed_child_names_the_signal(self, tree: Path, tmp_path: Path) -> None:
        result = process.run_child(TRIAL, spec(tree, "doomed", end="segfault"), tmp_path / "log", 600)
        assert result["status"] == "failed"
        assert "SIGSEGV" in result["reason"]


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_harness_ends_the_trial(tree: Path, tmp_path: Path, how: int) -> None:
    pids = tmp_path / "pids"
    program = (
        "import pickle, sys, pathlib; from loaderbench.trial import measure; "
        "measure(pickle.load(sys.stdin.buffer), pathlib.Path(sys.argv[1]), 600)"
    )
    harness = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "log")], stdin=subprocess.PIPE)
    assert harness.stdin
    with harness.stdin:
        pickle.dump(spec(tree, "doomed", end="hang", pid_file=str(pids)), harness.stdin)
    while not pids.exists() or not pids.read_text():
        assert harness.poll() is None
        time.sleep(0.05)
    os.kill(harness.pid, how)
    harness.wait()
    assert gone(int(pids.read_text().split()[0]))
