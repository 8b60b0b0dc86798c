"""One command at a time uses a machine, and temporary files of a run are gone after it, however it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loaderbench.cli import app
from loaderbench.machine.errors import FixableError
from loaderbench.machine.files import BusyError
from loaderbench.machine.machine_lock import machine_lock
from loaderbench.machine.scratch import scratch

HOLDER = """
import sys, time
from loaderbench.machine.machine_lock import machine_lock
from loaderbench.machine.scratch import scratch
with machine_lock(), scratch(__import__("pathlib").Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(cache: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start a process that holds the lock, and give it and its folder for temporary files."""
    command = [sys.executable, "-c", HOLDER, str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="lb") as folder:
        yield Path(folder)


@pytest.mark.parametrize("command", ["bench", "certify", "prepare", "estimate"])
def test_a_second_command_is_refused_with_who_holds_the_machine(command: str, tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        result = CliRunner().invoke(app, [command, "quick", "--cache", str(tmp_path / "other")])
    assert isinstance(result.exception, BusyError)
    said = str(result.exception)
    assert f"process {process.pid} of " in said
    assert f"{sys.executable} -c " in said
    assert "Wait for it to end, or stop it" in said
    assert not (tmp_path / "other").exists()


def test_a_killed_command_leaves_no_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _):
        process.send_signal(signal.SIGKILL)
        process.wait()
        with machine_lock():
            pass
    with machine_lock():
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_without_a_home_or_a_file_system_to_write_to_holds_the_same_lock() -> None:
    code = (
        "import os; from loaderbench.machine.machine_lock import machine_lock; "
        "os.setgroups([]); os.setgid(12345); os.setuid(12345); machine_lock().__enter__()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"TMPDIR": "/nowhere"}
    with machine_lock():
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
    assert "BusyError" in done.stderr
    assert f"process {os.getpid()}" in done.stderr


def test_all_temporary_files_of_a_run_are_below_the_cache_and_removed(short: Path) -> None:
    before = tempfile.gettempdir(), os.environ.get("TMPDIR")
    show = "import tempfile; print(tempfile.mkdtemp())"
    with scratch(short) as folder:
        assert folder.is_relative_to(short)
        assert Path(tempfile.mkdtemp()).parent == folder
        done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
        assert Path(done.stdout.strip()).parent == folder
    assert list((short / "tmp").iterdir()) == []
    assert (tempfile.gettempdir(), os.environ.get("TMPDIR")) == before


@pytest.mark.parametrize("deep", ["cache", "x" * 90], ids=["in the cache", "beside a cache with a long path"])
def test_what_a_kill_leaves_is_removed_at_the_next_start_and_what_is_in_use_is_not(short: Path, deep: str) -> None:
    orphan = "import time; time.sleep(600)"
    with holder(short / deep) as (killed, left), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(left))
        survivor = subprocess.Popen([sys.executable, "-c", orphan])
        patch.undo()
        killed.kill()
        killed.wait()
        assert left.is_relative_to(short) == (deep == "cache")
        with holder(short / deep) as (_, used):
            assert survivor.wait(60) == -signal.SIGKILL
            with scratch(short / deep):
                assert not left.exists()
                assert used.exists()


def test_no_folder_for_sockets_is_an_error_that_names_what_was_tried(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loaderbench.machine.scratch._LONGEST_SOCKET", "x" * 110)
    with pytest.raises(FixableError, match=r"takes sockets.* Set TMPDIR to a folder with a short path"), scratch(short):
        pass
    assert list((short / "tmp").iterdir()) == []
