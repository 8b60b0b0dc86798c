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
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.machine import process
from loaderbench.machine.scratch import scratch
from loaderbench.trial import TrialSpec, Window
from tests.nursery import Nursery, gone

TRIAL = "loaderbench.trial.trial.run"
STARTED = 5
"""Processes of the planted loader `detaching`, its trial's own included."""


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

    def test_a_hanging_trial_is_killed_with_all_that_it_started(
        self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pids = tmp_path / "pids"
        wait = process.Child.wait

        def begun(*limits: Any) -> bool:
            """Start the short time limit when the trial hangs."""
            while not pids.exists() or len(pids.read_text().split()) < STARTED:
                time.sleep(0.02)
            return wait(*limits)

        monkeypatch.setattr(process.Child, "wait", begun)
        result = process.run_child(TRIAL, spec(tree, "detaching", pid_file=str(pids)), tmp_path / "log", 0.2)
        assert result["status"] == "timeout"
        assert result["reason"] == "killed after its time limit of 0.2 s"
        started = pids.read_text().split()
        assert len(started) == STARTED
        assert not any(psutil.pid_exists(int(pid)) for pid in started)

    def test_an_exception_is_the_reason_and_its_traceback_is_logged(self, tree: Path, tmp_path: Path) -> None:
        result = process.run_child(TRIAL, spec(tree, "doomed", end="crash"), tmp_path / "log", 600)
        assert result["status"] == "failed"
        assert result["reason"].startswith("ValueError: the planted | fault in two lines (planted/doomed.py:")
        assert "Traceback" in (tmp_path / "log").read_text()

    def test_a_hanging_trial_names_the_error_of_its_thread(
        self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wait, log = process.Child.wait, tmp_path / "log"

        def failed(*limits: Any) -> bool:
            while "ValueError: " not in log.read_text():
                time.sleep(0.02)
            return wait(*limits)

        monkeypatch.setattr(process.Child, "wait", failed)
        result = process.run_child(TRIAL, spec(tree, "doomed", end="a thread fails"), log, 0.2)
        assert result["reason"].startswith(
            "killed after its time limit of 0.2 s; the last error in its log: "
            "ValueError: the planted fault of a thread (planted/doomed.py:"
        )

    def test_reason_of_a_killed_child_names_the_signal(self, tree: Path, tmp_path: Path) -> None:
        result = process.run_child(TRIAL, spec(tree, "doomed", end="segfault"), tmp_path / "log", 600)
        assert result["status"] == "failed"
        assert "SIGSEGV" in result["reason"]


HARNESS = """
import pickle, sys, pathlib
from loaderbench.machine.scratch import scratch
from loaderbench.trial import measure
folder = pathlib.Path(sys.argv[1])
with scratch(folder / "cache") as own:
    print(own, flush=True)
    measure(pickle.load(sys.stdin.buffer), folder / "log", 600)
"""


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nothing_survives_the_harness_however_workers_were_started(
    tree: Path, tmp_path: Path, how: int, ranks: int
) -> None:
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", HARNESS, str(tmp_path)]
    harness = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert harness.stdin
    assert harness.stdout
    trial = spec(tree, "detaching", pid_file=str(pids))
    with harness.stdin:
        pickle.dump(replace(trial, work=replace(trial.work, ranks=ranks)), harness.stdin)
    temporary = Path(os.fsdecode(harness.stdout.readline().strip()))
    while not pids.exists() or len(started := pids.read_text().split()) < ranks * STARTED:
        assert harness.poll() is None
        time.sleep(0.05)
    assert all(psutil.pid_exists(int(pid)) for pid in started)  # also the one whose parent was a thread that has ended
    os.kill(harness.pid, how)
    harness.wait()
    assert all(gone(int(pid), within_s=30) for pid in started)
    assert temporary.is_dir()
    with scratch(tmp_path / "cache"):
        assert not temporary.exists()


def test_a_time_limit_may_be_longer_than_a_poll_takes(tree: Path, tmp_path: Path, planted: None, forked: None) -> None:
    assert process.run_child(TRIAL, spec(tree), tmp_path / "log", 1e9)["status"] == "ok"
