"""The raw times of a trial's batches, and the columns that follow from them."""

from __future__ import annotations

import math
from array import array
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaderbench.machine.files import force_to_disk, new_file
from loaderbench.records import arrays

NS_PER_S = 1e9
_NS_PER_MS = 1e6
MOST_WORKERS = 1 << 16
MOST_AFTER_PAUSE = 256
"""Maximum number of batches after the pause in which prefetched images are counted."""
_FILLING_SHARE = 0.8
"""A loader that prefetched less than this share of what it delivers in a time as long as the pause had filled its
queue before the pause was over."""


def _numbers() -> MutableSequence[int]:
    return array("q")


@dataclass
class Timeline:
    """The raw times of a trial, in nanoseconds of one clock; in arrays, which add little to the trial's memory."""

    asked_ns: MutableSequence[int] = field(default_factory=_numbers)
    """Time of the request for each batch. The request for an epoch's first batch includes its `iter()`."""
    exits_ns: MutableSequence[int] = field(default_factory=_numbers)
    """Time of the delivery of each batch."""
    images: MutableSequence[int] = field(default_factory=_numbers)
    """Images in each batch."""
    epochs: list[int] = field(default_factory=list)
    """Index of each epoch's first batch."""
    opened: int | None = None
    """Index of the batch whose delivery opens the window."""
    closed: int | None = None
    """Index of the batch whose delivery closes it; the window's images are those of the batches after `opened`."""
    paused: int | None = None
    """Index of the first batch requested after the pause that follows the window."""
    complete: int = 0
    """Number of epochs that ended."""
    workers: int = 1
    """Number of workers, in all ranks or jobs. They may finish their batches at the same time."""
    ranks: list[int] = field(default_factory=list)
    """Index of the rank or job that each batch was for; empty with one process."""
    gpu_util_pct: list[tuple[int, float]] = field(default_factory=list)
    """NVML's samples of the GPU's utilisation in the window: microseconds of NVML's clock, percent."""

    @classmethod
    def together(cls, ranks: Sequence[Timeline], first_asked_ns: Sequence[int]) -> Timeline:
        """Return the timelines of ranks or jobs merged on one clock; its window is open while all of theirs are.

        `first_asked_ns`: time of the first request of each. Epochs and pauses differ between ranks and are omitted.
        Raises ValueError if the windows were never all open.
        """
        shifts_ns = np.array(first_asked_ns) - min(first_asked_ns)
        asked, exits = (
            np.concatenate(
                [np.array(getattr(rank, name)) + shift for rank, shift in zip(ranks, shifts_ns, strict=True)]
            )
            for name in ("asked_ns", "exits_ns")
        )
        images = np.concatenate([rank.images for rank in ranks])
        order = np.argsort(exits, kind="stable")
        edges = [(rank.exits_ns[rank.opened or 0], rank.exits_ns[rank.closed or 0]) for rank in ranks]
        opened_ns, closed_ns = (np.array(edge) + shifts_ns for edge in zip(*edges, strict=True))
        if opened_ns.max() >= closed_ns.min():
            raise ValueError("the windows of the processes were never all open")
        return cls(
            asked_ns=asked[order].tolist(),
            exits_ns=exits[order].tolist(),
            images=images[order].tolist(),
            epochs=[0],
            opened=int(np.searchsorted(exits[order], opened_ns.max())),
            closed=int(np.searchsorted(exits[order], closed_ns.min())),
            gpu_util_pct=ranks[0].gpu_util_pct,
            workers=sum(rank.workers for rank in ranks),
            ranks=np.repeat(np.arange(len(ranks)), [len(rank.images) for rank in ranks])[order].tolist(),
        )

    @property
    def size_mib(self) -> float:
        """Memory of the times of all batches, in arrays of eight bytes a number."""
        return 8 * sum(map(len, (self.asked_ns, self.exits_ns, self.images))) / 2**20

    def prefetch_is_known(self) -> bool:
        """Return whether the prefetched images are used up, or can no longer be counted: in another epoch, or too many.

        They are used up once as many batches as there are workers did not come faster than in the window.
        """
        assert self.paused is not None
        ahead = self._ahead()
        used_up = len(ahead) - int(ahead.argmax()) > self.workers
        return used_up or self.epochs[-1] >= self.paused or len(ahead) >= MOST_AFTER_PAUSE

    def _ahead(self) -> NDArray[np.float64]:
        """Return, for each batch after the pause, how many images more had come than in that time in the window."""
        first, last = self.window
        images_per_ns = sum(self.images[first + 1 : last + 1]) / (self.exits_ns[last] - self.exits_ns[first])
        took_ns = np.array(self.exits_ns[self.paused :]) - self.asked_ns[self.paused or 0]
        return np.cumsum(self.images[self.paused :]) - images_per_ns * took_ns

    @property
    def window(self) -> tuple[int, int]:
        """The indices of the batches that opened and closed the window, which must be over."""
        assert self.opened is not None
        assert self.closed is not None
        return self.opened, self.closed

    def columns(self) -> dict[str, float | int | None]:
        """Return the columns of `Record` that follow from the times alone."""
        first, last = self.window
        asked, exits = np.array(self.asked_ns), np.array(self.exits_ns)
        images = np.array(self.images)
        window_images = int(images[first + 1 : last + 1].sum())
        images_per_s = rate(images, exits, first, last)
        prefetched = self._prefetched(asked, exits, images_per_s)
        return {
            "images_per_s": images_per_s,
            **self._drift(images, exits),
            **self._epochs(images, asked, exits),
            "first_batch_s": float(max((exits - asked)[self._firsts()])) / NS_PER_S,
            **self._between_ranks(images, exits),
            "window_s": float(exits[last] - exits[first]) / NS_PER_S,
            "window_images": window_images,
            "window_epochs": None if self.ranks else sum(first < epoch <= last for epoch in self.epochs),
            "prefetched_images": prefetched,
            "prefetch_bias_bound_pct": None if prefetched is None else 100 * prefetched / window_images,
            **_waits((exits - asked)[first + 1 : last + 1]),
        }

    def save(self, path: Path) -> None:
        """Write the raw times to a compressed NumPy file, and force it to the disk.

        `interval_ns`: between the deliveries of a batch and the previous one; of the first, since its request.
        `wait_ns`: from the request for a batch to its delivery. `paused`: -1 without a pause. `first_asked_ns`: of the
        machine's monotonic clock; `load` ignores it. Files of schema 3 lack `ranks` and `complete`, which is the number
        of `epochs` there; those of schema 4 lack `first_asked_ns` and `gpu_util_pct` (n x 2); those of schema 5 lack
        `workers`.
        """
        exits = np.array(self.exits_ns)
        with new_file(path) as file:
            np.savez_compressed(
                file,
                first_asked_ns=np.array(self.asked_ns[:1]),
                interval_ns=np.diff(exits, prepend=self.asked_ns[0]),
                wait_ns=exits - np.array(self.asked_ns),
                images=np.array(self.images, np.int32),
                epochs=np.array(self.epochs),
                window=np.array([self.opened, self.closed]),
                paused=np.array([-1 if self.paused is None else self.paused]),
                complete=np.array([self.complete]),
                workers=np.array([self.workers]),
                ranks=np.array(self.ranks, np.int32),
                gpu_util_pct=np.array(self.gpu_util_pct, np.float64).reshape(-1, 2),
            )
        force_to_disk(path)
        force_to_disk(path.parent)

    @classmethod
    def load(cls, path: Path) -> Timeline:
        """Return the timeline that `save` wrote; its clock starts with the first request.

        Raises FileNotFoundError, or ValueError for a file that `save` has not written.
        """
        with arrays.opened(path) as kept:
            exits_ns = np.cumsum(kept["interval_ns"])
            opened, closed = kept["window"].tolist()
            [paused] = kept["paused"].tolist()
            timeline = cls(
                asked_ns=(exits_ns - kept["wait_ns"]).tolist(),
                exits_ns=exits_ns.tolist(),
                images=kept["images"].tolist(),
                epochs=kept["epochs"].tolist(),
                opened=opened,
                closed=closed,
                paused=None if paused < 0 else paused,
                complete=int(kept["complete"][0]) if "complete" in kept else len(kept["epochs"]),
                workers=int(kept["workers"][0]) if "workers" in kept else 1,
                ranks=kept["ranks"].tolist() if "ranks" in kept else [],
                gpu_util_pct=[(int(at_us), pct) for at_us, pct in kept["gpu_util_pct"].tolist()]
                if "gpu_util_pct" in kept
                else [],
            )
            timeline._check()
            return timeline

    def _check(self) -> None:
        """Raise ValueError for times that no trial has."""
        batches, (first, last) = len(self.exits_ns), self.window
        right = (
            len(self.asked_ns) == batches
            and len(self.ranks) in {0, batches}
            and all(0 <= place <= batches for place in (*self.epochs, *self.ranks, self.paused or 0))
            and 0 <= first < last < len(self.images) <= batches
            and self.exits_ns[first] < self.exits_ns[last]
            and 1 <= self.workers <= MOST_WORKERS
        )
        if not right:
            raise ValueError("its arrays do not agree")

    def _drift(self, images: NDArray[np.int64], exits: NDArray[np.int64]) -> dict[str, float | None]:
        """Return how much faster the window's second half was than its first, and the standard error, in percent.

        Workers may finish together, so that batches arrive in bursts of up to one from each. Speeds are therefore taken
        over spans of as many batches as there are workers: wherever one begins, it holds one batch of each. The error
        follows from how the spans of each half differ; overlapping spans count as often as they fit side by side. Spans
        over the end of an epoch are omitted.
        """
        (first, last), n = self.window, self.workers
        middle, total = (first + last) // 2, np.cumsum(images)
        speeds, errors = [], []
        for begin, end in ((first, middle), (middle, last)):
            inside = np.arange(begin, end + 1 - n)
            before, after = (np.searchsorted(self.epochs, edge, "right") for edge in (inside, inside + n))
            spans = inside[before == after]
            took, held = exits[spans + n] - exits[spans], total[spans + n] - total[spans]
            if len(spans) < 2 or not took.sum():  # noqa: PLR2004 - one span has no spread
                return {"window_drift_pct": None, "window_drift_error_pct": None}
            speeds.append(held.sum() / took.sum())
            errors.append(np.std(took - held / speeds[-1], ddof=1) / took.mean() * np.sqrt(n / len(spans)))
        ratio = float(speeds[1] / speeds[0])
        error = ratio * float(np.hypot(*errors))
        return {"window_drift_pct": 100 * (ratio - 1), "window_drift_error_pct": 100 * error}

    def _firsts(self) -> list[int]:
        """Return the index of each rank's first batch."""
        return [self.ranks.index(rank) for rank in sorted(set(self.ranks))] or [0]

    def _between_ranks(self, images: NDArray[np.int64], exits: NDArray[np.int64]) -> dict[str, float | None]:
        """Return how the window's images were shared between ranks or jobs."""
        if not self.ranks:
            return {"slowest_rank_images_per_s": None, "fairness": None}
        first, last = self.window
        inside = slice(first + 1, last + 1)
        of_each = np.bincount(self.ranks[inside], images[inside], minlength=max(self.ranks) + 1)
        window_s = float(exits[last] - exits[first]) / NS_PER_S
        return {"slowest_rank_images_per_s": float(of_each.min()) / window_s, "fairness": fairness(of_each / window_s)}

    def _epochs(
        self, images: NDArray[np.int64], asked: NDArray[np.int64], exits: NDArray[np.int64]
    ) -> dict[str, float | None]:
        """Return the columns of the epochs that ended before the pause; None where there are too few."""
        paused = len(exits) if self.paused is None else self.paused
        ends = [end for end in [*self.epochs[1:], len(exits)][: self.complete] if end <= paused]
        gaps_ns = [exits[begin] - exits[begin - 1] for begin in self.epochs[1:] if begin < paused]
        epoch1_s = float(exits[ends[0] - 1] - asked[0]) / NS_PER_S if ends else None
        return {
            "epoch1_images_per_s": float(images[: ends[0]].sum()) / epoch1_s if epoch1_s else None,
            "epoch1_s": epoch1_s,
            "later_epochs_images_per_s": rate(images, exits, ends[0] - 1, ends[-1] - 1) if len(ends) > 1 else None,
            "epoch_gap_s": float(np.mean(gaps_ns)) / NS_PER_S if gaps_ns else None,
        }

    def _prefetched(self, asked: NDArray[np.int64], exits: NDArray[np.int64], images_per_s: float) -> int | None:
        """Return the number of prefetched images: by how many batches after the pause were ahead of the window's speed.

        None: they may be more.
        """
        if self.paused is None or self.paused >= len(exits):
            return None
        ahead = self._ahead()
        most = int(ahead.argmax())
        judged = self.paused + most + self.workers
        if judged >= len(exits) or any(self.paused <= epoch <= judged for epoch in self.epochs):
            return None  # they were not used up before the trial or the epoch ended
        prefetched = max(0, math.ceil(ahead[most]))
        pause_s = float(asked[self.paused] - exits[self.paused - 1]) / NS_PER_S
        return prefetched if prefetched < _FILLING_SHARE * images_per_s * pause_s or not prefetched else None


def fairness(speeds: NDArray[np.float64]) -> float:
    """Return Jain's index: the squared sum of the speeds over their number times the sum of their squares.

    1 if all are equal, 1/n if one of n has all. R. Jain, D. Chiu, W. Hawe, A Quantitative Measure of Fairness
    and Discrimination for Resource Allocation in Shared Computer Systems, DEC-TR-301, 1984.
    """
    return float(speeds.sum() ** 2 / (len(speeds) * (speeds**2).sum()))


def rate(images: NDArray[np.int64], exits: NDArray[np.int64], first: int, last: int) -> float:
    """Return images/s between two deliveries: those after the first, up to and including the last."""
    return float(images[first + 1 : last + 1].sum()) / (float(exits[last] - exits[first]) / NS_PER_S)


def _waits(waits_ns: NDArray[np.int64]) -> dict[str, float]:
    """Return percentiles of the time from the request for a batch to its delivery."""
    p50, p95, p99, most = np.percentile(waits_ns, [50, 95, 99, 100]) / _NS_PER_MS
    return {"wait_p50_ms": p50, "wait_p95_ms": p95, "wait_p99_ms": p99, "wait_max_ms": most}
