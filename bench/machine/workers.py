"""Map a function over many items in worker processes, in order."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from loaderbench.machine.cores import core_count
from loaderbench.machine.guardian import follow

Mapping = Callable[[Iterable[Any]], Iterator[Any]]
AHEAD = 4
"""Items for each process that are under way or wait for the process, while the caller uses an earlier result."""


class WorkerDiedError(RuntimeError):
    """A worker process was killed or crashed."""

    def __init__(self, item: object) -> None:
        super().__init__(f"a worker process died at or soon after {item}")
        self.item = item
        """The first item without a result."""


@contextmanager
def map_processes(function: Callable[[Any], Any], processes: int | None = None) -> Iterator[Mapping]:
    """Give a `map` that applies `function` to items in worker processes and yields the results in order.

    `function` and the items must be picklable. `processes`: by default `core_count` of them. Each has one OpenCV
    thread. They end with the block, and if this process is killed.

    The mapping raises what `function` raises, or WorkerDiedError.
    """
    processes = processes or core_count()
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")  # the caller may run threads, which a fork would break
    executor = ProcessPoolExecutor(processes, spawn, _begin, (os.getpid(),))
    try:
        yield lambda items: _results(executor, function, items, AHEAD * processes)
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()  # the executor would wait until each has finished its item
        executor.shutdown(cancel_futures=True)


def _results(
    executor: ProcessPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any], ahead: int
) -> Iterator[Any]:
    pending: deque[tuple[Any, Future[Any]]] = deque()
    item = None
    try:
        for item in items:
            pending.append((item, _submit(executor, function, item)))
            if len(pending) > ahead:
                yield pending[0][1].result()
                pending.popleft()
        while pending:
            yield pending[0][1].result()
            pending.popleft()
    except BrokenProcessPool:
        raise WorkerDiedError(pending[0][0] if pending else item) from None


def _submit(executor: ProcessPoolExecutor, function: Callable[[Any], Any], item: Any) -> Future[Any]:
    """Submit an item. Ctrl-C reaches all processes; one that this call starts inherits the mask and leaves it to us."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(function, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(parent: int) -> None:
    """Prepare a worker process, which the kernel kills when its parent ends."""
    follow(parent)

    import cv2

    cv2.setNumThreads(1)
