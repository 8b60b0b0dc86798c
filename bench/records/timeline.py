"""What follows from when each batch was asked for and handed over? Pure arithmetic on a trial's raw times."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from loaderbench.machine.files import force_to_disk

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_NS_PER_S = 1e9
_NS_PER_MS = 1e6
BANKED_SHARE = 0.5
"""After a pause, a batch that comes within this share of the usual interval was ready before it was asked for.

To take a ready batch from a worker process may itself cost a tenth of the interval; one that is not ready takes all.
"""
MOST_BANKED = 256
"""So many ready batches are counted; of a loader that has more, the number is not known."""


def _numbers() -> MutableSequence[int]:
    return array("q")


@dataclass
class Timeline:
    """The raw times of a trial, in nanoseconds of one clock. Arrays, to add little to the trial's memory."""

    asked_ns: MutableSequence[int] = field(default_factory=_numbers)
    """When each batch was asked for. An epoch's first batch is asked for together with its `iter()`."""
    exits_ns: MutableSequence[int] = field(default_factory=_numbers)
    """When each batch was handed over."""
    images: MutableSequence[int] = field(default_factory=_numbers)
    """Images in each batch."""
    epochs: list[int] = field(default_factory=list)
    """Index of each epoch's first batch."""
    opened: int | None = None
    """Index of the batch whose hand-over opens the steady window."""
    closed: int | None = None
    """Index of the batch whose hand-over closes it; the window's images are those of the batches after `opened`."""
    paused: int | None = None
    """Index of the first batch asked for after the pause that follows the window."""
    complete: int = 0
    """Epochs that were over, all checked."""
    ranks: list[int] = field(default_factory=list)
    """Which rank or job each batch was for; empty if there is one process only."""
    gpu_util_pct: list[tuple[int, float]] = field(default_factory=list)
    """NVML's samples of the GPU's utilisation in the window: microseconds of NVML's clock, per cent."""

    @classmethod
    def together(cls, ranks: Sequence[Timeline], first_asked_ns: Sequence[int]) -> Timeline:
        """Return what ranks or jobs saw at the same time, on one clock: its window is open where those of all are.

        `first_asked_ns`: when each asked for its first batch. Epochs and pauses are each rank's own, and left out.
        Raises ValueError if there is no time at which all windows are open.
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
            raise ValueError("the processes' windows were never open at the same time")
        return cls(
            asked_ns=asked[order].tolist(),
            exits_ns=exits[order].tolist(),
            images=images[order].tolist(),
            epochs=[0],
            opened=int(np.searchsorted(exits[order], opened_ns.max())),
            closed=int(np.searchsorted(exits[order], closed_ns.min())),
            gpu_util_pct=ranks[0].gpu_util_pct,
            ranks=np.repeat(np.arange(len(ranks)), [len(rank.images) for rank in ranks])[order].tolist(),
        )

    @property
    def size_mib(self) -> float:
        """Memory that the times of all batches take, in arrays of eight bytes a number."""
        return 8 * sum(map(len, (self.asked_ns, self.exits_ns, self.images))) / 2**20

    def bank_is_known(self) -> bool:
        """Return whether the newest batch after the pause was not ready, or too many were."""
        assert self.paused is not None
        ready = self.exits_ns[-1] - self.asked_ns[-1] <= self._banked_ns()
        return not ready or len(self.exits_ns) - self.paused >= MOST_BANKED

    def _banked_ns(self) -> float:
        assert self.opened is not None
        assert self.closed is not None
        return BANKED_SHARE * (self.exits_ns[self.closed] - self.exits_ns[self.opened]) / (self.closed - self.opened)

    def columns(self) -> dict[str, float | int | None]:
        """Return the columns of `Record` that follow from the times alone."""
        assert self.opened is not None
        assert self.closed is not None
        first, last = self.opened, self.closed
        asked, exits = np.array(self.asked_ns), np.array(self.exits_ns)
        images = np.array(self.images)
        window_images = int(images[first + 1 : last + 1].sum())
        boundaries_ns = [exits[e] - exits[e - 1] for e in self.epochs[1:]]
        bank_images = self._bank(asked, exits, images)
        return {
            "images_per_s": _rate(images, exits, first, last),
            "half_drift_pct": self._drift(images, exits),
            **self._epoch1(images, asked, exits),
            "sustained_images_per_s": self._sustained(images, exits),
            "first_batch_s": float(max((exits - asked)[self._firsts()])) / _NS_PER_S,
            **self._between_ranks(images, exits),
            "window_s": float(exits[last] - exits[first]) / _NS_PER_S,
            "window_images": window_images,
            "window_epochs": sum(first < epoch <= last for epoch in self.epochs),
            "epoch_end_s": float(np.mean(boundaries_ns)) / _NS_PER_S if boundaries_ns else None,
            "bank_images": bank_images,
            "bank_bias_bound_pct": None if bank_images is None else 100 * bank_images / window_images,
            **_waits((exits - asked)[first + 1 : last + 1]),
        }

    def save(self, path: Path) -> None:
        """Keep the raw times in one compressed NumPy file, and force it to the disk.

        `interval_ns`: between the hand-overs of one batch and the one before, the first from when it was asked for.
        `wait_ns`: between asking for a batch and having it. The rest as in this class; `paused` is -1 without a pause.
        `first_asked_ns`: when the first batch was asked for, by the machine's monotonic clock, which is no part of what
        is loaded again. Files of schema 3 have no `complete`, which is the number of `epochs` there, and no `ranks`;
        those of schema 4 no `first_asked_ns` and no `gpu_util_pct`, n x 2.
        """
        exits = np.array(self.exits_ns)
        with path.open("wb") as file:
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
                ranks=np.array(self.ranks, np.int32),
                gpu_util_pct=np.array(self.gpu_util_pct, np.float64).reshape(-1, 2),
            )
        force_to_disk(path)
        force_to_disk(path.parent)

    @classmethod
    def load(cls, path: Path) -> Timeline:
        """Return what `save` has kept. Its clock begins when the first batch was asked for."""
        with path.open("rb") as file, np.load(file) as kept:
            exits_ns = np.cumsum(kept["interval_ns"])
            opened, closed = kept["window"].tolist()
            [paused] = kept["paused"].tolist()
            return cls(
                asked_ns=(exits_ns - kept["wait_ns"]).tolist(),
                exits_ns=exits_ns.tolist(),
                images=kept["images"].tolist(),
                epochs=kept["epochs"].tolist(),
                opened=opened,
                closed=closed,
                paused=None if paused < 0 else paused,
                complete=int(kept["complete"][0]) if "complete" in kept else len(kept["epochs"]),
                ranks=kept["ranks"].tolist() if "ranks" in kept else [],
                gpu_util_pct=[(int(at_us), pct) for at_us, pct in kept["gpu_util_pct"].tolist()]
                if "gpu_util_pct" in kept
                else [],
            )

    def _drift(self, images: NDArray[np.int64], exits: NDArray[np.int64]) -> float | None:
        """Return how much faster the window's second half was than its first."""
        assert self.opened is not None
        assert self.closed is not None
        middle = int(np.searchsorted(exits, (exits[self.opened] + exits[self.closed]) // 2))
        if not self.opened < middle < self.closed:
            return None
        return 100 * (_rate(images, exits, middle, self.closed) / _rate(images, exits, self.opened, middle) - 1)

    def _firsts(self) -> list[int]:
        """Return the index of each rank's first batch."""
        return [self.ranks.index(rank) for rank in sorted(set(self.ranks))] or [0]

    def _between_ranks(self, images: NDArray[np.int64], exits: NDArray[np.int64]) -> dict[str, float | None]:
        """Return how the window's images were shared between ranks or jobs."""
        assert self.opened is not None
        assert self.closed is not None
        if not self.ranks:
            return {"slowest_rank_images_per_s": None, "fairness": None}
        inside = slice(self.opened + 1, self.closed + 1)
        of_each = np.bincount(self.ranks[inside], images[inside], minlength=max(self.ranks) + 1)
        window_s = float(exits[self.closed] - exits[self.opened]) / _NS_PER_S
        return {"slowest_rank_images_per_s": float(of_each.min()) / window_s, "fairness": fairness(of_each / window_s)}

    def _epoch1(
        self, images: NDArray[np.int64], asked: NDArray[np.int64], exits: NDArray[np.int64]
    ) -> dict[str, float | None]:
        """Return what is known of the first epoch once it is over."""
        if not self.complete:
            return {"epoch1_images_per_s": None, "epoch1_s": None}
        end = self.epochs[1] if len(self.epochs) > 1 else len(exits)
        epoch1_s = float(exits[end - 1] - asked[0]) / _NS_PER_S
        return {"epoch1_images_per_s": float(images[:end].sum()) / epoch1_s, "epoch1_s": epoch1_s}

    def _sustained(self, images: NDArray[np.int64], exits: NDArray[np.int64]) -> float | None:
        """Return the speed over all whole epochs after the first, the waits between epochs included."""
        if len(self.epochs) < 3:  # noqa: PLR2004 - the third's start is the second's end
            return None
        return _rate(images, exits, self.epochs[1] - 1, self.epochs[-1] - 1)

    def _bank(self, asked: NDArray[np.int64], exits: NDArray[np.int64], images: NDArray[np.int64]) -> int | None:
        """Return how many images were ready after the pause: what the loader prepares ahead. None: not known."""
        if self.paused is None:
            return None
        waits_ns = (exits - asked)[self.paused :]
        slow = np.flatnonzero(waits_ns > self._banked_ns())
        if not len(slow):
            return None
        ready = int(slow[0])
        return int(images[self.paused : self.paused + ready].sum())


def fairness(speeds: NDArray[np.float64]) -> float:
    """Return Jain's index: the squared sum of the speeds over their number times the sum of their squares.

    1 if all are equal, 1/n if one of n has everything. R. Jain, D. Chiu, W. Hawe, A Quantitative Measure of Fairness
    and Discrimination for Resource Allocation in Shared Computer Systems, DEC-TR-301, 1984.
    """
    return float(speeds.sum() ** 2 / (len(speeds) * (speeds**2).sum()))


def _rate(images: NDArray[np.int64], exits: NDArray[np.int64], first: int, last: int) -> float:
    """Return images/s between two hand-overs: those after the first, up to and with the last."""
    return float(images[first + 1 : last + 1].sum()) / (float(exits[last] - exits[first]) / _NS_PER_S)


def _waits(waits_ns: NDArray[np.int64]) -> dict[str, float]:
    """Return percentiles of the time between asking for a batch and having it."""
    p50, p95, p99, most = np.percentile(waits_ns, [50, 95, 99, 100]) / _NS_PER_MS
    return {"wait_p50_ms": p50, "wait_p95_ms": p95, "wait_p99_ms": p99, "wait_max_ms": most}
