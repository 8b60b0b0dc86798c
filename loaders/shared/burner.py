"""Burn CPU time and hold memory at a known rate: the child process of the calibration loader. This is no adapter."""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

TICK_S = 0.25


def burn_until(process_s: float) -> None:
    """Use the CPU until this process's total CPU time reaches `process_s`."""
    while time.process_time() < process_s:
        pass


@contextmanager
def held(descriptor: int) -> Iterator[None]:
    """Map the memory and touch every page."""
    with mmap.mmap(descriptor, 0) as memory:
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1
        yield


def _serve(descriptor: int, own_cores: float, grandchild_cores: float) -> None:
    """Burn CPU time in this process and in a new grandchild at every tick, until killed or orphaned.

    The cost of forking is part of the burnt time.
    """
    parent = os.getppid()
    with held(descriptor):
        start_s, end_s = time.perf_counter(), time.process_time()
        while os.getppid() == parent:
            if grandchild_cores:
                grandchild = os.fork()
                if not grandchild:
                    burn_until(grandchild_cores * TICK_S)
                    os._exit(0)
                os.waitpid(grandchild, 0)
            end_s += own_cores * TICK_S
            burn_until(end_s)
            start_s += TICK_S
            time.sleep(max(0.0, start_s - time.perf_counter()))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
