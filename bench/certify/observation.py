"""Record what a contestant delivered of the probe, and combine the records of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEEN, EMPTIED = "seen.npz", "emptied.npz"
"""File names of a rank's observations: of two epochs, and of one that still came once the files were empty."""
EPOCHS = 2
HELD_BATCHES = 8
"""Batches that are held, and compared again each time a further one comes."""


def limit_s(samples: int) -> float:
    """Return the time limit of an observation, in seconds, for a number of probe images."""
    return 200 + 0.06 * samples


_EACH = {"combine": np.concatenate}
_UNION = {"combine": lambda ranks: np.unique(np.concatenate(ranks))}
"""How the values of several ranks become one."""


@dataclass(frozen=True)
class Observation:
    """What was seen. Arrays named by epoch, batch or image have one entry per delivered image, in order of delivery."""

    image_epoch: NDArray[np.int64] = field(metadata=_EACH)
    image_batch: NDArray[np.int64] = field(metadata=_EACH)
    """Number of the batch within its epoch."""
    image_label: NDArray[np.int64] = field(metadata=_EACH)
    edges: NDArray[np.float64] = field(metadata=_EACH)
    flipped: NDArray[np.bool_] = field(metadata=_EACH)
    signatures: NDArray[np.uint8] = field(metadata=_EACH)
    """These three as in `probe.Views`; empty if batches have no form in which images can be found."""
    kept: NDArray[np.int64] = field(metadata=_EACH)
    """Numbers, in order of delivery, of the images in `crops`."""
    crops: NDArray[np.uint8] = field(metadata=_EACH)
    """k x H x W x 3."""
    forms: NDArray[np.str_] = field(metadata=_UNION)
    """Each form that batches had: shape but for the first number, dtype, memory format, device."""
    label_forms: NDArray[np.str_] = field(metadata=_UNION)
    lowest: float = field(metadata={"combine": min})
    highest: float = field(metadata={"combine": max})
    """Over all values of all images, as they were before they were normalised."""
    changed_in_use: bool = field(metadata={"combine": any})
    """Whether a batch changed before the next one was requested."""
    intact_batches: int = field(metadata={"combine": min})
    """How many further batches came before a held one changed; `HELD_BATCHES` if none ever did."""
    again_label: NDArray[np.int64] = field(metadata={"combine": lambda ranks: ranks[0]})
    """Labels of the first batch of a second stream with the same seed, opened later; of the first rank."""

    @classmethod
    def together(cls, ranks: Sequence[Observation]) -> Observation:
        """Return what all ranks saw, one rank after the other; batches keep distinct numbers."""
        batches = np.cumsum([0, *(rank.image_batch.max(initial=-1) + 1 for rank in ranks[:-1])])
        images = np.cumsum([0, *(len(rank.image_label) for rank in ranks[:-1])])
        numbered = [
            replace(rank, image_batch=rank.image_batch + batch, kept=rank.kept + image)
            for rank, batch, image in zip(ranks, batches, images, strict=True)
        ]
        return cls(**{f.name: f.metadata["combine"]([getattr(rank, f.name) for rank in numbered]) for f in fields(cls)})

    def save(self, path: Path) -> None:
        """Write it as one file."""
        np.savez(path, allow_pickle=False, **{name: np.asarray(value) for name, value in vars(self).items()})

    @classmethod
    def load(cls, path: Path) -> Observation:
        """Read a file that `save` wrote."""
        with np.load(path) as stored:
            return cls(**{f.name: stored[f.name][()] for f in fields(cls)})
