"""Measure what all processes together did on the allowed cores, and how fast the cores were."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

_WORK = bytes(4 << 20)
_ROUNDS = 15
_CGROUPS, _MOUNTS = Path("/proc/self/cgroup"), Path("/proc/self/mountinfo")  # see cgroups(7) and proc(5)


@dataclass(frozen=True)
class Cores:
    """Totals since the machine's start, over the cores that this process may use."""

    busy_s: float
    """Seconds spent running anything in this machine."""
    steal_s: float
    """Seconds that this machine wanted and the hypervisor gave to another."""
    thermal_events: int | None
    """How often these cores were slowed for their heat. None if the kernel does not report it."""
    quota_events: int | None
    """How often the cgroups that this process is in had used up their CPU quota. None if it cannot be read."""


def cores() -> Cores:
    """Return the totals of the allowed cores, from /proc/stat, in steps of one tick."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    busy = steal = 0
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, ticks[:8])
            busy += user + nice + system + irq + softirq
            steal += stolen
    return Cores(busy * tick_s, steal * tick_s, _thermal_events(names), _quota_events())


def _thermal_events(names: set[str]) -> int | None:
    counts = [Path("/sys/devices/system/cpu", name, "thermal_throttle/core_throttle_count") for name in names]
    return sum(int(count.read_text()) for count in counts) if all(count.exists() for count in counts) else None


def _quota_events() -> int | None:
    """Return how often the cgroups that this process is in, from its own up to the root, were throttled."""
    stats = [path / "cpu.stat" for path in _cpu_cgroups()]
    lines = [line.split() for stat in stats if stat.exists() for line in stat.read_text().splitlines()]
    events = [int(value) for name, value in lines if name == "nr_throttled"]
    return sum(events) if events else None


def quota_cores() -> float | None:
    """Return how many cores' time the CPU quotas of this process's cgroups allow; None without a quota."""
    found = []
    for folder in _cpu_cgroups():
        v2, v1 = folder / "cpu.max", [folder / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        texts = v2.read_text().split() if v2.exists() else [path.read_text() for path in v1 if path.exists()]
        if texts and texts[0] != "max" and int(texts[0]) > 0:  # v1 has -1 for none
            found.append(int(texts[0]) / int(texts[1]))
    return min(found, default=None)


def _cpu_cgroups() -> Iterator[Path]:
    """Yield the folders of this process's cgroup for CPU time and of those above it, of cgroup v1 or v2."""
    groups = [line.split(":", 2) for line in _CGROUPS.read_text().splitlines()] if _CGROUPS.exists() else []
    v1 = [path for _, controllers, path in groups if "cpu" in controllers.split(",")]
    v2 = [path for number, _, path in groups if number == "0"]
    for own in (v1 or v2)[:1]:
        if ".." in PurePath(own).parts:  # outside of this process's namespace
            return
        for line in _MOUNTS.read_text().splitlines():
            mount, _, file_system = line.partition(" - ")
            (root, point), (kind, _, options) = mount.split()[3:5], file_system.split()
            of_cpu_time = kind == "cgroup" and "cpu" in options.split(",") if v1 else kind == "cgroup2"
            if of_cpu_time and PurePath(own).is_relative_to(root):  # otherwise another namespace's folders are mounted
                folder = Path(point, PurePath(own).relative_to(root))
                yield from (path for path in (folder, *folder.parents) if path.is_relative_to(point))
                return


def canary_s() -> float:
    """Return the shortest time that one core takes for a fixed piece of work, of a few tries.

    Compared before and after a trial, it shows a change of the clock frequency or a neighbour on the same core.
    """
    return min(_work_s() for _ in range(_ROUNDS))


def _work_s() -> float:
    start = time.perf_counter()
    hashlib.sha256(_WORK).digest()
    return time.perf_counter() - start
