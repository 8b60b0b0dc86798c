"""Read what the control groups of this process allow it: CPU time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath

import psutil

_CGROUPS, _MOUNTS = Path("/proc/self/cgroup"), Path("/proc/self/mountinfo")  # see cgroups(7) and proc(5)
_MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")  # the last one is that of cgroup v1


def quota_cores() -> float | None:
    """Return how many cores' time the CPU quotas of this process's cgroups allow; None without a quota."""
    found = []
    for folder in _folders("cpu"):
        v2, v1 = folder / "cpu.max", [folder / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        texts = v2.read_text().split() if v2.exists() else [path.read_text() for path in v1 if path.exists()]
        if texts and texts[0] != "max" and int(texts[0]) > 0:  # v1 has -1 for none
            found.append(int(texts[0]) / int(texts[1]))
    return min(found, default=None)


def throttle_events() -> int | None:
    """Return how often the cgroups that this process is in had used up their CPU quota. None if it cannot be read."""
    stats = [folder / "cpu.stat" for folder in _folders("cpu")]
    lines = [line.split() for stat in stats if stat.exists() for line in stat.read_text().splitlines()]
    events = [int(value) for name, value in lines if name == "nr_throttled"]
    return sum(events) if events else None


def memory_limit_bytes() -> int | None:
    """Return how much memory, page cache included, this process's cgroups may hold; None if all of the machine's."""
    paths = [folder / name for folder in _folders("memory") for name in _MEMORY_LIMITS]
    texts = [path.read_text().strip() for path in paths if path.exists()]
    everything = psutil.virtual_memory().total  # cgroup v1 has a limit of nearly 2**63 bytes for none
    return min((limit for text in texts if text != "max" and (limit := int(text)) < everything), default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup for a controller and of those above it, of cgroup v1 or v2."""
    groups = [line.split(":", 2) for line in _CGROUPS.read_text().splitlines()] if _CGROUPS.exists() else []
    v1 = [path for _, controllers, path in groups if controller in controllers.split(",")]
    v2 = [path for number, _, path in groups if number == "0"]
    for own in (v1 or v2)[:1]:
        if ".." in PurePath(own).parts:  # outside of this process's namespace
            return
        for line in _MOUNTS.read_text().splitlines():
            mount, _, file_system = line.partition(" - ")
            (root, point), (kind, _, options) = mount.split()[3:5], file_system.split()
            controls = kind == "cgroup" and controller in options.split(",") if v1 else kind == "cgroup2"
            if controls and PurePath(own).is_relative_to(root):  # otherwise another namespace's folders are mounted
                folder = Path(point, PurePath(own).relative_to(root))
                yield from (path for path in (folder, *folder.parents) if path.is_relative_to(point))
                return
