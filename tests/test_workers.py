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


def ending(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 9:
        os._exit(3)
    while item == 11:  # never leaves the loop
        pass
    if item == 13:
        time.sleep(60)  # takes no CPU time
    return item


def test_items_that_end_their_process_get_the_reason_and_all_others_their_result() -> None:
    with map_processes(ending, 2, limit_s=0.2, instead=str) as results:
        found = list(results(range(ITEMS)))
    late = "its process ran into the time limit of 0.2 s"
    reasons = {7: "its process was ended by SIGSEGV", 9: "its process ended with 3", 11: late, 13: late}
    assert found == [reasons.get(item, item) for item in range(ITEMS)]
    assert multiprocessing.active_children() == []


def oom_score_adj(path: str) -> int:
    return int(Path(path).read_text())


def test_the_kernel_takes_workers_before_the_harness() -> None:
    with map_processes(oom_score_adj, 1) as results:
        [ours] = results(["/proc/self/oom_score_adj"])
    assert ours == 1000 > oom_score_adj("/proc/self/oom_score_adj")


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
