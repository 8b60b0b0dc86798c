"""Read what the control groups of this process allow it, and make groups with less memory."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

import psutil

from loaderbench.machine.errors import FixableError

_CGROUPS, _MOUNTS = Path("/proc/self/cgroup"), Path("/proc/self/mountinfo")  # see cgroups(7) and proc(5)
_MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")  # the last one is that of cgroup v1

_LIMITS_TO_SET = ("memory.max", "memory.limit_in_bytes")
_PROCESSES, _HARNESS = "cgroup.procs", "loaderbench"


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


@contextmanager
def limited(memory_mib: int) -> Iterator[Path]:
    """Make a group whose processes together have so much memory, page cache included; remove it with the block.

    Yields the file into which a process writes its number to enter the group. Raises FixableError.
    """
    own = next(_folders("memory"), None)
    try:
        if own is None:
            raise FileNotFoundError(errno.ENOENT, "this process has no control group for memory")
        if (own / "cgroup.controllers").exists():  # v2 allows limits only below groups that hold no processes
            own = _vacated(own)
        group = Path(tempfile.mkdtemp(prefix="loaderbench-", dir=own))
        limit = next(path for name in _LIMITS_TO_SET if (path := group / name).exists())
        limit.write_text(str(memory_mib << 20))
    except (OSError, StopIteration) as error:
        raise FixableError(
            f"memory cannot be limited here ({error}); run the command as root, or in a group of its own: "
            "systemd-run --user --scope -p Delegate=yes COMMAND"
        ) from None
    try:
        yield group / _PROCESSES
    finally:
        with suppress(OSError):  # a process that was killed has not ended yet
            group.rmdir()


def _vacated(own: Path) -> Path:
    """Move this process out of its group into one below, and return the group, which then gives memory to others."""
    if own.name == _HARNESS:
        return own.parent
    (own / _HARNESS).mkdir(exist_ok=True)
    (own / _HARNESS / _PROCESSES).write_text("0")
    (own / "cgroup.subtree_control").write_text("+memory")
    return own


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
