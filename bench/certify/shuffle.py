"""Measure the order of samples, and check that it is shuffled, differently in every epoch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from loaderbench.api import Work
from loaderbench.certify.observation import EPOCHS, Observation

Epoch = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Label and batch number of each image, in order of delivery."""
_FULL = 0.9
"""Batches drawn from all samples have at least this spread, of 1: for 8 batches of 64, all but one in a million."""
_SPREAD_OVER = 64
"""Smaller batches are taken together with the next ones, because their spread varies by chance."""
_ORDERED = 0.5
"""If a larger share of samples is followed by its neighbour, the order is not shuffled; by chance the share is 1/N."""


def figures(seen: Observation, samples: int) -> dict[str, float]:
    """Return figures on the first epoch's order. All but the last are 1 for a perfect shuffle.

    `displacement`: mean distance of a sample from its place in the source, over N/3, which chance gives.
    `batch_spread`: mean distance in the source between two samples of a batch, or of successive small batches, over
    (N + 1)/3.
    `new_companions`: chance over the observed share of pairs in a batch that share one again in the next epoch.
    `neighbours_kept`: share of samples that are followed by the one that follows them in the source.

    Empty if the first epoch has fewer than two images.
    """
    first, second = (_epoch(seen, epoch) for epoch in range(EPOCHS))
    return figures_of(first, second, samples)


def figures_of(one: Epoch, second: Epoch, samples: int) -> dict[str, float]:
    """Return what `figures` returns, for the epoch `one`. `second`: another epoch, for comparison."""
    first, batches = one
    if len(first) < 2:  # noqa: PLR2004 - no pair, no order
        return {}
    return {
        "displacement": float(np.abs(np.arange(len(first)) - first).mean() / (samples / 3)),
        "batch_spread": _spread(first, batches, samples),
        "new_companions": _new_companions(one, second, samples),
        "neighbours_kept": float((np.diff(first) == 1).mean()),
    }


def faults(seen: Observation, work: Work, found: dict[str, float], samples: int) -> Iterator[str]:
    """Yield in words how the order differs from the requested one. `found`: what `figures` returned."""
    (first, _), (second, _) = (_epoch(seen, epoch) for epoch in range(EPOCHS))
    if not found:
        return
    if not work.shuffle:
        if not np.array_equal(first, second):
            yield "epochs come in different orders, and the stored one was requested"
    elif found["neighbours_kept"] > _ORDERED:
        yield "samples come in the order in which they are stored: not shuffled"
    elif np.array_equal(first, second):
        yield "every epoch comes in the same order"
    elif found["batch_spread"] < _FULL:
        yield f"shuffled only within windows of about {found['batch_spread'] * samples:.0f} samples"


def _epoch(seen: Observation, epoch: int) -> Epoch:
    here = seen.image_epoch == epoch
    return seen.image_label[here], seen.image_batch[here]


def _spread(labels: NDArray[np.int64], batches: NDArray[np.int64], samples: int) -> float:
    distances = pairs = 0.0
    together = batches // -(-_SPREAD_OVER // np.bincount(batches).max())
    for number in np.unique(together):
        inside = labels[together == number]
        distances += np.abs(inside[:, None] - inside).sum()
        pairs += len(inside) * (len(inside) - 1)
    return float(distances / pairs / ((samples + 1) / 3)) if pairs else 1.0


def _new_companions(first: Epoch, second: Epoch, samples: int) -> float:
    """Return the pairs that would share a batch in both epochs by chance, over those that do; at most 1.

    Labels that name no sample are ignored.
    """
    (labels, batches), (then_labels, then_batches) = (
        (labels[known], batches[known])
        for labels, batches in (first, second)
        for known in [(labels >= 0) & (labels < samples)]
    )
    place = np.full(samples, -1)
    place[then_labels] = then_batches
    again = pairs = 0
    for batch in np.unique(batches):
        then = place[labels[batches == batch]]
        again += int((then[:, None] == then).sum()) - len(then)
        pairs += len(then) * (len(then) - 1)
    by_chance = sum(n * (n - 1) for n in np.bincount(then_batches)) / (samples * (samples - 1))
    return float(min(1.0, by_chance * pairs / again)) if again else 1.0
