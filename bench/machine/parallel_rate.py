"""Measure the combined throughput of one step in several forked processes that start together."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.synchronize import Barrier
from time import perf_counter

import cv2

from loaderbench.machine.reasons import reason

Step = Callable[[int], Iterator[int]]
"""`step(index)` does one process's set-up and returns an iterator, whose items are the sizes of finished pieces."""


class StepError(RuntimeError):
    """A step cannot be measured. The message says why."""


@dataclass(frozen=True)
class Share:
    """Work done by one process."""

    amount: int
    """In images or bytes, as the step counts."""
    started_s: float
    ended_s: float
    """On a clock that all processes share."""


def parallel_rate(step: Step, processes: int, seconds: float) -> float:
    """Return the combined rate per second of `processes` forked processes that run `step` at the same time.

    Iteration starts once all set-ups are done, and stops after `seconds` or when the iterator ends. The caller's memory
    is shared copy-on-write; OpenCV uses one thread per process. Raises StepError if a process fails or dies.
    """
    return rate_per_s(shares(step, processes, seconds))


def shares(step: Step, processes: int, seconds: float) -> list[Share]:
    """Return what each process has done; see `parallel_rate`."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # else forked processes hang, waiting for this one's threads
    fork = get_context("fork")
    others = set(active_children())
    executor = ProcessPoolExecutor(processes, fork, _begin, (step, fork.Barrier(processes), seconds))
    try:
        return [future.result() for future in as_completed([executor.submit(_share, n) for n in range(processes)])]
    except BrokenProcessPool:
        raise StepError("one of the processes died") from None
    except Exception as error:  # noqa: BLE001 - a library may raise anything
        raise StepError(reason(error)) from None
    finally:
        for process in set(active_children()) - others:
            process.kill()  # the executor would wait for their shares
        executor.shutdown()
        cv2.setNumThreads(threads)


def rate_per_s(shares: Sequence[Share]) -> float:
    """Return the combined rate per second, from the earliest start to the latest end."""
    duration_s = max(share.ended_s for share in shares) - min(share.started_s for share in shares)
    return sum(share.amount for share in shares) / duration_s


_inherited: tuple[Step, Barrier, float]
"""In a forked process: the step, the barrier at which all processes wait for each other, and the time to work."""


def _begin(*inherited: object) -> None:
    global _inherited  # noqa: PLW0603 - a pool's processes keep what they inherit in a global
    _inherited = inherited  # type: ignore[assignment]


def _share(index: int) -> Share:
    step, barrier, seconds = _inherited
    pieces = step(index)
    barrier.wait()
    amount, started_s = 0, perf_counter()
    ended_s = started_s
    for size in pieces:
        amount += size
        ended_s = perf_counter()
        if ended_s - started_s >= seconds:
            break
    return Share(amount, started_s, ended_s)
