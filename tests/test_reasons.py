"""A reason begins with the cause in its own words, then says where it arose."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import pytest
from torch._utils import ExceptionWrapper

from loaderbench.machine.reasons import WORDS_CHARACTERS, last_error, reason

HERE = f"{Path(__file__).parent.name}/{Path(__file__).name}"
KILLED = (
    "RuntimeError: DataLoader worker (pid 42) was killed by SIGKILL (out of memory?), "
    "then RuntimeError: DataLoader worker (pid(s) 42) exited unexpectedly (out of memory?)"
)
NUMBA = (
    "Failed in nopython mode pipeline (step: nopython frontend)\n\x1b[1m\x1b[1mCannot resolve setattr: x\n"
    + '\x1b[1m\nFile "<stdin>", line 4:\x1b[0m\nDuring: typing\n' * 90
)


class TwoArgumentsError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def fail(kind: type[Exception] = ValueError, *texts: str) -> None:
    raise kind(*(texts or ("bad | pixels\n in two lines",)))


def in_worker(error: Callable[[], None]) -> None:
    """Fail as torch's DataLoader does when `error` does in a worker process."""
    try:
        error()
    except Exception:  # noqa: BLE001 - whatever it is
        wrapped = ExceptionWrapper(where="in DataLoader worker process 1")
    wrapped.reraise()


def in_pool() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.apply(fail)


def in_executor() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
        executor.submit(fail).result()


def caused() -> None:
    try:
        fail(OSError, "truncated")
    except OSError as error:
        raise RuntimeError("cannot load sample 7") from error


def killed() -> None:
    try:
        fail(RuntimeError, "DataLoader worker (pid 42) is killed by signal: Killed. ")
    except RuntimeError as error:
        raise RuntimeError("DataLoader worker (pid(s) 42) exited unexpectedly") from error


def noticed() -> None:
    try:
        fail(EOFError, "")
    except EOFError as error:
        raise RuntimeError("a worker has gone") from error


def told(error: Callable[[], None]) -> str:
    try:
        error()
    except Exception as raised:  # noqa: BLE001 - whatever it is
        return reason(raised)
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "words", "where"),
    [
        (fail, "ValueError: bad | pixels in two lines", ""),
        (lambda: fail(ValueError, ""), "ValueError", ""),
        (lambda: in_worker(fail), "ValueError: bad | pixels in two lines", ", in DataLoader worker process 1"),
        (lambda: in_worker(lambda: fail(KeyError, "n01")), "KeyError: 'n01'", ", in DataLoader worker process 1"),
        (
            lambda: in_worker(lambda: fail(TwoArgumentsError, "a", "b")),
            "tests.test_reasons.TwoArgumentsError: a b",
            ", in DataLoader worker process 1",
        ),
        (in_pool, "ValueError: bad | pixels in two lines", ""),
        (in_executor, "ValueError: bad | pixels in two lines", ""),
        (caused, "OSError: truncated, then RuntimeError: cannot load sample 7", ""),
        (lambda: in_worker(caused), "RuntimeError: cannot load sample 7", ", in DataLoader worker process 1"),
        (
            killed,
            KILLED,
            "",
        ),
        (lambda: fail(ValueError, "half \udcff"), r"ValueError: half \udcff", ""),
    ],
    ids=[
        "here",
        "without words",
        "in torch's worker",
        "a key",
        "of two arguments",
        "in a pool",
        "in an executor",
        "with a cause",
        "with a cause in torch's worker",
        "a killed worker",
        "half of a surrogate pair",
    ],
)
def test_a_reason_is_one_line_with_the_errors_own_words_first(
    error: Callable[[], None], words: str, where: str
) -> None:
    text = told(error)
    assert text.startswith(f"{words} ({HERE}:")
    assert text.removeprefix(f"{words} ({HERE}:").lstrip("0123456789") == f"{where})"


@pytest.mark.parametrize(
    ("program", "how"),
    [("kill -KILL $$", "was killed by SIGKILL (out of memory?)"), ("exit 3", "exited with 3")],
    ids=["killed", "exited"],
)
def test_a_worker_that_died_while_it_sent_is_named_first(
    monkeypatch: pytest.MonkeyPatch, program: str, how: str
) -> None:
    with subprocess.Popen(["sh", "-c", program]) as worker:
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        monkeypatch.setattr(psutil.Process, "children", lambda _: [psutil.Process(worker.pid)])
        texts = told(lambda: fail(ConnectionResetError, "reset by peer")), told(noticed)
    assert texts[0].startswith(f"a worker process {how}, then ConnectionResetError: reset by peer ({HERE}:")
    assert texts[1].startswith(f"a worker process {how}, then RuntimeError: a worker has gone ({HERE}:")


def test_pages_of_words_are_cut_and_the_place_is_kept() -> None:
    text = told(lambda: fail(ValueError, NUMBA))
    assert text.startswith(
        "ValueError: Failed in nopython mode pipeline (step: nopython frontend) Cannot resolve setattr"
    )
    assert len(text) < WORDS_CHARACTERS + 100
    assert f"… ({HERE}:" in text


def test_the_place_is_the_adapters_and_not_the_librarys() -> None:
    assert f" ({HERE}:" in told(lambda: multiprocessing.get_context("no such method"))


LOG = """writing 4 images
Exception in thread Thread-1 (run):
Traceback (most recent call last):
  File "/home/me/mine.py", line 12, in run
    raise ValueError("bad pixels")
ValueError: bad pixels
12 of 90
Exception ignored in: <finalize object at 0x7f>
Traceback (most recent call last):
  File "/usr/lib/x.py", line 1, in y
TypeError: 'NoneType' object is not callable
"""


def test_the_last_error_in_a_log_is_that_of_a_thread_and_not_one_that_python_ignored(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG)
    assert last_error(tmp_path / "log") == "; the last error in its log: ValueError: bad pixels (me/mine.py:12)"
    (tmp_path / "log").write_bytes(b"\xff no error")
    assert last_error(tmp_path / "log") == ""
