"""Count the CPU time, memory, disk reads, page faults and context switches of a process tree."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

Tree = list[psutil.Process]
"""A process and its live descendants, in this order."""

_KIB_PER_MIB = 1024
_STAT_FIELDS_BEFORE_STATE = 2  # of proc(5)'s stat: the pid, and the name, which may hold spaces
_MAJFLT, _CMAJFLT = 12, 13  # proc(5), counted from 1
_READS_ARE_COUNTED = Path("/proc/self/io").exists()


def processes() -> Tree:
    """Return this process and its live descendants. Readings at the same moment share one list."""
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def tree_seconds(tree: Tree) -> float:
    """Return the CPU seconds, user and system, used so far by this process, its live descendants and every descendant
    that was waited for.

    The difference of two readings misses nothing: a process that ends between them moves from the second group to the
    third. Ended children of descendants count in ticks of 10 ms, all others in nanoseconds or microseconds.
    `tree`: as `processes` returns it.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for process in tree[1:]:
        try:
            times = process.cpu_times()
            total += _process_seconds(process.pid) + times.children_user + times.children_system
        except (psutil.NoSuchProcess, OSError):  # it has ended, and its parent has waited for it
            continue
    return total


def _process_seconds(pid: int) -> float:
    """Return one process's CPU seconds, all threads, in nanosecond steps where /proc counts in ticks of 10 ms.

    The clock's number is the one that clock_getcpuclockid(3) returns on Linux.
    """
    return time.clock_gettime((~pid << 3) | 2)


@dataclass(frozen=True)
class Memory:
    """Proportional set size (PSS), summed over a process tree, so that pages which only it shares count once."""

    total_mib: float
    anon_mib: float
    """Anonymous and shared memory, without file-backed pages."""

    def without(self, anon_mib: float) -> Memory:
        """Return the memory less so much anonymous memory."""
        return Memory(self.total_mib - anon_mib, self.anon_mib - anon_mib)


def tree_memory(tree: Tree) -> Memory | None:
    """Return the memory of the processes together; None if the kernel does not report PSS."""
    kib = {"Pss": 0, "Pss_Anon": 0, "Pss_Shmem": 0}
    for process in tree:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        except ProcessLookupError:
            continue
        except FileNotFoundError:
            if process.is_running():
                return None
            continue
        values = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        for name in kib:
            kib[name] += values[name]
    return Memory(kib["Pss"] / _KIB_PER_MIB, (kib["Pss_Anon"] + kib["Pss_Shmem"]) / _KIB_PER_MIB)


@dataclass(frozen=True)
class Counters:
    """Counts since each process's start, summed over the tree. Ended children that were waited for are included."""

    read_bytes: int | None
    """Read from the storage layer, including read-ahead and page faults. None if the kernel does not report it."""
    major_faults: int
    """Page faults that needed input or output."""
    context_switches: int
    """Voluntary and involuntary. Of ended processes and threads, only this process's own are known."""

    def __add__(self, other: Counters) -> Counters:
        """Return the sum over two sets of processes."""
        known = self.read_bytes is not None and other.read_bytes is not None
        return Counters(
            (self.read_bytes or 0) + (other.read_bytes or 0) if known else None,
            self.major_faults + other.major_faults,
            self.context_switches + other.context_switches,
        )


def difference(before: int | None, after: int | None) -> int | None:
    """Return `after` - `before`; None if either is unknown."""
    return None if before is None or after is None else after - before


def tree_counters(tree: Tree) -> Counters:
    """Return the counts of the processes together."""
    total = Counters(0, 0, 0)
    for process in tree:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            total += _process_counters(process.pid)
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return replace(total, context_switches=total.context_switches + sum(u.ru_nvcsw + u.ru_nivcsw for u in own))


def _process_counters(pid: int) -> Counters:
    folder = Path("/proc", str(pid))
    read_bytes = _field(folder / "io", "read_bytes") if _READS_ARE_COUNTED else None
    stat = (folder / "stat").read_text().rpartition(")")[2].split()
    faults = sum(int(stat[number - 1 - _STAT_FIELDS_BEFORE_STATE]) for number in (_MAJFLT, _CMAJFLT))
    switches = sum(
        _field(task / "status", name)
        for task in (folder / "task").iterdir()
        if pid != os.getpid()  # whose ended threads are known too, see `tree_counters`
        for name in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
    )
    return Counters(read_bytes, faults, switches)


def _field(path: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
