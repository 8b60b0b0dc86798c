"""How is a function applied to many items on all cores? In order, by processes that never outlive this one."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from typing import TYPE_CHECKING, Any

import cv2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

AHEAD = 4  # items each process is given before the first result is taken from it


class WorkerDiedError(RuntimeError):
    """A process ended without an answer, killed or crashed."""

    def __init__(self, exit_code: int | None, item: object) -> None:
        super().__init__(f"a worker process died (exit code {exit_code}) at or soon after {item}")
        self.exit_code = exit_code
        self.item = item


@contextmanager
def apply_to_all(
    function: Callable[[Any], Any], processes: int | None = None
) -> Iterator[Callable[[Sequence[Any]], Iterator[Any]]]:
    """Give a mapping from items to the function's results, in order; the processes serve until the block ends.

    `function` and items must be picklable; OpenCV uses one thread in each process. `processes` is by default one per
    allowed core. The mapping raises what the function raises, and WorkerDiedError.
    """
    context = get_context("spawn")  # the caller may run threads, which a fork would break
    workers: list[tuple[Any, Connection]] = []
    resource_tracker.ensure_running()  # started later, it would unblock the signal below
    # Ctrl-C reaches the whole process group: workers inherit this mask and leave it to the parent.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(processes or len(os.sched_getaffinity(0))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, function), daemon=True)
            process.start()
            workers.append((process, ours))
            theirs.close()  # the worker holds the only other end, so its death is our end of file
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield lambda items: _results(workers, items)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for process, ours in workers:
            process.kill()
            process.join()
            ours.close()


def _results(workers: Sequence[tuple[Any, Connection]], items: Sequence[Any]) -> Iterator[Any]:
    def give(place: int) -> None:
        with suppress(ConnectionError):  # taking from a dead worker says so, at the right item
            workers[place % len(workers)][1].send(items[place])

    ahead = AHEAD * len(workers)
    for place in range(min(ahead, len(items))):
        give(place)
    for place, item in enumerate(items):
        process, connection = workers[place % len(workers)]
        try:
            result, error = connection.recv()
        except (EOFError, ConnectionError):
            process.join()
            raise WorkerDiedError(process.exitcode, item) from None
        if place + ahead < len(items):
            give(place + ahead)
        if error:
            raise error
        yield result


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Answer each item with the function's result or exception, until the parent has gone or kills this process."""
    cv2.setNumThreads(1)
    with suppress(EOFError, ConnectionError):
        while True:
            item = connection.recv()
            try:
                answer: tuple[Any, Exception | None] = function(item), None
            except Exception as error:  # noqa: BLE001 - the parent raises it
                answer = None, error
            connection.send(answer)
