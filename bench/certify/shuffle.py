"""In what order do the samples come, and is it another one in every epoch?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loaderbench.certify.observe import EPOCHS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from loaderbench.api import Work
    from loaderbench.certify.observe import Observation

_FULL = 0.9
"""Batches drawn from all samples spread at least so far, of 1: for 8 batches of 64, all but one in a million."""
_ORDERED = 0.5
"""Share of samples followed by their neighbour above which there is no shuffling to speak of; by chance it is 1/N."""


def figures(seen: Observation, samples: int) -> dict[str, float]:
    """Return what tells orders apart, of the first epoch. All but the last are 1 for a perfect shuffle.

    `displacement`: mean distance of a sample from its place in the source, over N/3, which chance gives.
    `batch_spread`: mean distance in the source between two samples of a batch, over (N + 1)/3.
    `new_companions`: how seldom two samples of a batch share one again in the next epoch: chance over what was seen.
    `neighbours_kept`: share of samples that are followed by the one that follows them in the source.
    """
    first, second = (seen.image_label[seen.image_epoch == epoch] for epoch in range(EPOCHS))
    batches = [_batches(seen, epoch) for epoch in range(EPOCHS)]
    return {
        "displacement": float(np.abs(np.arange(len(first)) - first).mean() / (samples / 3)),
        "batch_spread": _spread(first, batches[0], samples),
        "new_companions": _new_companions(first, batches[0], second, batches[1], samples),
        "neighbours_kept": float((np.diff(first) == 1).mean()),
    }


def faults(seen: Observation, work: Work, found: dict[str, float], samples: int) -> Iterator[str]:
    """Tell in words what keeps the order from being the one asked for. `found`: what `figures` returned."""
    first, second = (seen.image_label[seen.image_epoch == epoch] for epoch in range(EPOCHS))
    if not work.shuffle:
        if not np.array_equal(first, second):
            yield "epochs come in different orders, and the stored one was asked for"
    elif found["neighbours_kept"] > _ORDERED:
        yield "samples come in the order in which they are stored: not shuffled"
    elif np.array_equal(first, second):
        yield "every epoch comes in the same order"
    elif found["batch_spread"] < _FULL:
        yield f"shuffled only within windows of about {found['batch_spread'] * samples:.0f} samples"


def _batches(seen: Observation, epoch: int) -> NDArray[np.int64]:
    batches: NDArray[np.int64] = seen.image_batch[seen.image_epoch == epoch]
    return batches


def _spread(labels: NDArray[np.int64], batches: NDArray[np.int64], samples: int) -> float:
    distances = pairs = 0.0
    for batch in np.unique(batches):
        inside = labels[batches == batch]
        distances += np.abs(inside[:, None] - inside).sum()
        pairs += len(inside) * (len(inside) - 1)
    return float(distances / pairs / ((samples + 1) / 3)) if pairs else 1.0


def _new_companions(
    first: NDArray[np.int64],
    first_batches: NDArray[np.int64],
    second: NDArray[np.int64],
    second_batches: NDArray[np.int64],
    samples: int,
) -> float:
    """Return the pairs that would share a batch in both epochs by chance, over those that do; at most 1."""
    place = np.full(max(samples, first.max(initial=0) + 1, second.max(initial=0) + 1), -1)
    place[second] = second_batches
    again = pairs = 0
    for batch in np.unique(first_batches):
        then = place[first[first_batches == batch]]
        again += int((then[:, None] == then).sum()) - len(then)
        pairs += len(then) * (len(then) - 1)
    by_chance = sum(n * (n - 1) for n in np.bincount(second_batches)) / (samples * (samples - 1))
    return float(min(1.0, by_chance * pairs / again)) if again else 1.0
