"""What do all cores do of one kind of work, when all do it at once? In forked processes that begin together."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from time import perf_counter
from typing import TYPE_CHECKING, Any

import cv2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection


class StepError(RuntimeError):
    """A step cannot be measured. The message says why."""


@dataclass(frozen=True)
class Share:
    """What one process has done."""

    amount: int
    """Of what the step counts."""
    started_s: float
    ended_s: float
    """On a clock that all processes share."""


def at_once(step: Callable[[int], Iterator[int]], processes: int, seconds: float) -> list[Share]:
    """Run a step in so many processes and return what each has done.

    `step` gets the process's number from 0 on, makes ready, and returns an iterator that does a piece of work for each
    item, which is the piece's size. Each process works until `seconds` are over or nothing is left to do; OpenCV uses
    one thread in it. Raises StepError if one fails or dies.
    """
    context = get_context("fork")  # what the caller holds in memory is there once, not once per process
    workers: list[tuple[Any, Connection]] = []
    try:
        for number in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, step, number, seconds), daemon=True)
            process.start()
            workers.append((process, ours))
            theirs.close()  # the process holds the only other end, so its death is our end of file
        for process, ours in workers:
            _answer(process, ours)
        for _, ours in workers:
            ours.send(None)
        return [_answer(process, ours) for process, ours in workers]
    finally:
        for process, ours in workers:
            process.kill()
            process.join()
            ours.close()


def per_s(shares: Sequence[Share]) -> float:
    """Return what the processes did together per second, from the first one's start to the last one's end."""
    duration_s = max(share.ended_s for share in shares) - min(share.started_s for share in shares)
    return sum(share.amount for share in shares) / duration_s


def _answer(process: Any, connection: Connection) -> Any:
    try:
        answer = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise StepError(f"one of the processes died (exit code {process.exitcode})") from None
    if isinstance(answer, Exception):
        raise StepError(f"{type(answer).__name__}: {answer}")
    return answer


def _serve(connection: Connection, step: Callable[[int], Iterator[int]], number: int, seconds: float) -> None:
    cv2.setNumThreads(1)
    try:
        pieces = step(number)
        connection.send(None)
        connection.recv()
        amount, started_s = 0, perf_counter()
        ended_s = started_s
        for size in pieces:
            amount += size
            ended_s = perf_counter()
            if ended_s - started_s >= seconds:
                break
        connection.send(Share(amount, started_s, ended_s))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        connection.send(error)
