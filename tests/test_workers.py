"""Worker processes answer in order, name the item at which one died, and end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from loaderbench.machine.workers import WorkerDiedError, map_processes

ITEMS = 40


def halved(item: int) -> float:
    time.sleep(0.002 * (item % 3))  # later items may be done first
    return 10 / (item - 30) if item >= 30 else item / 2


def deadly(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_results_and_errors_arrive_in_order() -> None:
    with map_processes(halved, 2) as results:
        assert list(results(range(30))) == [item / 2 for item in range(30)]
        again = results(range(29, ITEMS))
        assert next(again) == 14.5
        with pytest.raises(ZeroDivisionError):
            next(again)
    assert multiprocessing.active_children() == []


def test_error_of_a_dead_worker_names_the_first_missing_item() -> None:
    found: list[int] = []
    with map_processes(deadly, 1) as results, pytest.raises(WorkerDiedError, match=r"at or soon after \d") as error:
        found.extend(results(range(ITEMS)))
    assert error.value.item == len(found) <= 7


PROGRAM = """
import sys, time
from loaderbench.machine.workers import map_processes
if __name__ == "__main__":
    with map_processes(time.sleep, 2) as results:
        for _ in results([0, 0, *[60] * 9]):
            print("ready", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_silently_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = ["env", "--default-signal=INT", sys.executable, program]  # a background shell makes children ignore it
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout
    assert parent.stdout.readline() == "ready\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    os.killpg(parent.pid, how) if how == signal.SIGINT else parent.kill()  # Ctrl-C reaches the whole group
    _, printed = parent.communicate(timeout=300)
    assert psutil.wait_procs(children, timeout=300)[1] == []
    assert printed.count("Traceback") == (how == signal.SIGINT)
