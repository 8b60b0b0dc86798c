"""How much CPU has this process tree used?"""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from loaderbench.machine.process_tree import Tree


def tree_seconds(tree: Tree) -> float:
    """Return the CPU seconds, user and system, used so far by this process, its live descendants and every descendant
    that was waited for. Two readings bracket a window exactly: a process that ends between them moves from the second
    group to the third.

    `tree`: this process first, then its descendants.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for process in tree[1:]:
        try:
            times = process.cpu_times()
            total += _process_seconds(process.pid) + times.children_user + times.children_system
        except (psutil.NoSuchProcess, OSError):  # it ended meanwhile, and its parent has waited for it
            continue
    return total


def _process_seconds(pid: int) -> float:
    """Return one process's CPU seconds, all threads, in nanosecond steps where /proc counts in ticks of 10 ms.

    The clock's number is the one that clock_getcpuclockid(3) returns on Linux.
    """
    return time.clock_gettime((~pid << 3) | 2)
