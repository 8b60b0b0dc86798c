"""Map a function over many items in worker processes, in order."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Any

from loaderbench.machine.cores import core_count
from loaderbench.machine.guardian import follow
from loaderbench.machine.reasons import killer

Mapping = Callable[[Iterable[Any]], Iterator[Any]]
AHEAD = 4
"""Items for each process that are under way or wait for the process, while the caller uses an earlier result."""
_ELAPSED = 10
"""Elapsed time that an item may take, as a multiple of its CPU time limit: it may wait for a slow disk."""


class WorkerDiedError(RuntimeError):
    """A worker process was killed or crashed."""

    def __init__(self, item: object) -> None:
        super().__init__(f"a worker process died at or soon after {item}")
        self.item = item
        """The first item without a result."""


@contextmanager
def map_processes(
    function: Callable[[Any], Any],
    processes: int | None = None,
    *,
    limit_s: float | None = None,
    instead: Callable[[str], Any] | None = None,
) -> Iterator[Mapping]:
    """Give a `map` that applies `function` to items in worker processes and yields the results in order.

    `function` and the items must be picklable. `processes`: by default `core_count` of them. Each has one OpenCV
    thread. They end with the block, and if this process is killed. `limit_s`: CPU time after which the process of an
    item is killed. `instead`: returns the result of an item that has ended its process twice, the second time as the
    only item under way; it gets the reason. The dead process is replaced.

    The mapping raises what `function` raises, and WorkerDiedError if a process dies and there is no `instead`.
    """
    pool = _Pool(function, processes or core_count(), limit_s)
    try:
        yield partial(_results, pool, instead)
    finally:
        pool.kill()


class _Pool:
    """An executor that is replaced after one of its processes has died."""

    def __init__(self, function: Callable[[Any], Any], processes: int, limit_s: float | None) -> None:
        self.processes, self._limit_s = processes, limit_s
        self._function = partial(_limited, function, limit_s) if limit_s else function
        self._others = set(multiprocessing.active_children())
        self._start()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")  # the caller may run threads, which a fork would break
        self._executor = ProcessPoolExecutor(self.processes, spawn, _begin, (os.getpid(),))
        self._workers = set[Any]()

    def submit(self, item: Any) -> Future[Any]:
        """Submit an item; its future raises BrokenProcessPool if a process has died.

        Ctrl-C reaches all processes; one that this call starts inherits the mask and leaves it to us.
        """
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._executor.submit(self._function, item)
        except BrokenProcessPool as error:
            lost: Future[Any] = Future()
            lost.set_exception(error)
            return lost
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._workers |= set(multiprocessing.active_children()) - self._others

    def replace(self) -> str:
        """Replace the executor after one of its processes has died; return why it died."""
        self._executor.shutdown()
        codes = {worker.exitcode for worker in self._workers} - {None, 0, -signal.SIGTERM}  # SIGTERM ends the others
        self._start()
        code = min(codes, default=0)
        if -code in {signal.SIGPROF, signal.SIGALRM}:
            return f"its process ran into the time limit of {self._limit_s:g} s"
        return f"its process was ended by {killer(-code)}" if code < 0 else f"its process ended with {code}"

    def kill(self) -> None:
        """End all processes. The executor would wait until each has finished its item."""
        for worker in set(multiprocessing.active_children()) - self._others:
            worker.kill()
        self._executor.shutdown(cancel_futures=True)


def _results(pool: _Pool, instead: Callable[[str], Any] | None, items: Iterable[Any]) -> Iterator[Any]:
    pending: deque[tuple[Any, Future[Any]]] = deque()

    def first() -> Any:
        if instead and _is_lost(pending[0][1]):
            _repeat(pool, pending, instead)
        item, future = pending[0]
        try:
            result = future.result()
        except BrokenProcessPool:
            raise WorkerDiedError(item) from None
        pending.popleft()
        return result

    for item in items:
        pending.append((item, pool.submit(item)))
        if len(pending) > AHEAD * pool.processes:
            yield first()
    while pending:
        yield first()


def _is_lost(future: Future[Any]) -> bool:
    """Wait for an item; return whether it was lost with a process."""
    return isinstance(future.exception(), BrokenProcessPool)


def _repeat(pool: _Pool, pending: deque[tuple[Any, Future[Any]]], instead: Callable[[str], Any]) -> None:
    """Repeat the items that were lost with a process, one at a time, to find the one that ends its process."""
    pool.replace()
    for place, (item, lost) in enumerate(list(pending)):
        if _is_lost(lost):
            future = pool.submit(item)
            if _is_lost(future):
                future = Future()
                future.set_result(instead(pool.replace()))
            pending[place] = item, future


def _limited(function: Callable[[Any], Any], limit_s: float, item: Any) -> Any:
    """Return the function's result. The kernel ends this process if that takes too long, also within compiled code."""
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    signal.setitimer(signal.ITIMER_REAL, _ELAPSED * limit_s)
    try:
        return function(item)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _begin(parent: int) -> None:
    """Prepare a worker process, which the kernel kills when its parent ends."""
    follow(parent)

    import cv2

    cv2.setNumThreads(1)
