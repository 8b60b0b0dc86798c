"""What has this process tree read from disk, how often did it fault and switch?"""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from loaderbench.machine.process_tree import Tree

_STAT_FIELDS_BEFORE_STATE = 2  # of proc(5)'s stat: the pid, and the name that may hold spaces
_TELLS_BYTES = Path("/proc/self/io").exists()
_MAJFLT, _CMAJFLT = 12, 13  # proc(5), counted from 1


@dataclass(frozen=True)
class Counters:
    """Counts since each process's start, summed over the tree; those of ended, awaited children are included."""

    read_bytes: int | None
    """Read from the storage layer, read-ahead and page faults included. None where the kernel does not tell."""
    major_faults: int
    """Page faults that needed input or output."""
    context_switches: int
    """Voluntary and involuntary. Of children that have ended, only the trial's own are known."""

    def __add__(self, other: Counters) -> Counters:
        """Return the sum over two sets of processes."""
        known = self.read_bytes is not None and other.read_bytes is not None
        return Counters(
            (self.read_bytes or 0) + (other.read_bytes or 0) if known else None,
            self.major_faults + other.major_faults,
            self.context_switches + other.context_switches,
        )


def difference(before: int | None, after: int | None) -> int | None:
    """Return how much was added; None if that is not known."""
    return None if before is None or after is None else after - before


def tree_counters(tree: Tree) -> Counters:
    """Return the counts of this process and its live descendants together."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = Counters(0, 0, ended.ru_nvcsw + ended.ru_nivcsw)
    for process in tree:
        try:
            total += _of(process.pid)
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
    return total


def written_bytes(pid: int) -> int | None:
    """Return what a process, its live descendants and those that were awaited have written to files and pipes so far.

    None where the kernel does not tell.
    """
    total = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(OSError):  # it ended meanwhile
                total += _field(Path("/proc", str(process.pid), "io"), "wchar")
    return total if _TELLS_BYTES else None


def _of(pid: int) -> Counters:
    folder = Path("/proc", str(pid))
    read_bytes = _field(folder / "io", "read_bytes") if _TELLS_BYTES else None
    stat = (folder / "stat").read_text().rpartition(")")[2].split()
    faults = sum(int(stat[number - 1 - _STAT_FIELDS_BEFORE_STATE]) for number in (_MAJFLT, _CMAJFLT))
    switches = sum(
        _field(task / "status", name)
        for task in (folder / "task").iterdir()
        for name in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
    )
    return Counters(read_bytes, faults, switches)


def _field(path: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
