"""The memory of a loader's processes, and how it grows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import psutil

from loaderbench.machine.counters import processes


def own_mib() -> dict[int, float]:
    """Return the memory of this process and of each descendant, in MiB, without what is shared and without files.

    It is read from statm (proc(5)), which costs far less than the exact figure.
    """
    own = {}
    for process in processes():
        with suppress(psutil.Error):
            seen = process.memory_info()
            own[process.pid] = (seen.rss - seen.shared) / 2**20
    return own


def lasting(readings: Sequence[tuple[int, Mapping[int, float]]]) -> Iterator[tuple[int, float]]:
    """Yield the sum of each reading over the processes that all readings have.

    Otherwise the new workers of an epoch would look like growing memory.
    """
    processes_of_all = set.intersection(*(set(each) for _, each in readings))
    for batches, each in readings:
        yield batches, sum(each[pid] for pid in processes_of_all)
