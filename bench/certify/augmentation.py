"""Check that crops and flips are drawn as requested, independently for each image and epoch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, ks_2samp

from loaderbench.api import random_crop
from loaderbench.certify.observation import EPOCHS, Observation
from loaderbench.certify.probe import SIZES

REFERENCES = 8
"""Reference crops that are drawn for every delivered crop."""
SIGNIFICANCE = 1e-6
"""Level of each test: a few tests for each of a few contestants give hardly ever a false alarm."""
_SAME = 0.02
"""Edges that differ by less than this share of the image are the same. They are read more exactly than that."""
_SAME_AREA, _SAME_ASPECT = 0.004, 0.015
"""The same random numbers give areas and logarithms of aspects that differ by up to this, due to whole pixels."""
_STALE_SHARE = 0.1
_CHANCE = 2
_NARROW = 0.85
"""The position of a crop wider than this share of the image is hardly random."""


def examine(seen: Observation) -> tuple[dict[str, float], list[str]]:
    """Return the measured figures, and in words what is not drawn as requested.

    The figures are the largest distance of each distribution from the reference's (Kolmogorov and Smirnov's D, 0 to 1),
    the share of flipped images, and the shares of repeated crops.
    """
    if len(seen.edges) == 0:
        return {}, []
    tests = _tests(seen)
    figures = {
        **{f"crop_{name.replace(' ', '_')}_distance": float(r.statistic) for name, r in tests.items()},
        "flipped_share": float(seen.flipped.mean()),
        "same_next_epoch_share": _same_next_epoch(seen),
        "same_in_other_batch_share": _same_in_other_batch(seen),
    }
    return figures, list(_faults(seen, tests, figures))


def _faults(seen: Observation, tests: dict[str, Any], found: dict[str, float]) -> Iterator[str]:
    spread = seen.edges.std(axis=0).max()
    if spread < _SAME:
        middle = np.abs(seen.edges[:, :2] + seen.edges[:, 2:] - 1).max() < 2 * _SAME
        yield f"every image is cut at the same place{', its middle,' if middle else ''} instead of at random"
    else:
        off = [f"{name} (D = {r.statistic:.2f})" for name, r in tests.items() if r.pvalue < SIGNIFICANCE]
        if off:
            yield f"crops are not drawn as RandomResizedCrop draws them, by their {', '.join(off)}"
        if found["same_next_epoch_share"] > _STALE_SHARE:
            yield f"{100 * found['same_next_epoch_share']:.0f} % of the images have the same crop in the next epoch"
        if found["same_in_other_batch_share"] > _STALE_SHARE:
            share = 100 * found["same_in_other_batch_share"]
            yield f"{share:.0f} % of the crops repeat those of another batch: workers or ranks draw the same numbers"
    flipped, count = int(seen.flipped.sum()), len(seen.flipped)
    if binomtest(flipped, count).pvalue < SIGNIFICANCE:
        none_or_all = {0: "no image is flipped", count: "every image is flipped"}
        yield none_or_all.get(flipped, f"{100 * flipped / count:.0f} % of the images are flipped instead of 50 %")


def _tests(seen: Observation) -> dict[str, Any]:
    """Compare each property of the crops with that of reference crops, drawn for the same images."""
    random = np.random.default_rng(0)
    shape = _sizes(seen)
    drawn = []
    for width, height in shape.astype(int).tolist() * REFERENCES:
        crop = random_crop((height, width), random.random)
        left, top = crop.left / width, crop.top / height
        drawn.append((left, top, left + crop.width / width, top + crop.height / height))
    ours, theirs = _properties(seen.edges, shape), _properties(np.array(drawn), np.tile(shape, (REFERENCES, 1)))
    return {name: ks_2samp(ours[name], theirs[name], method="asymp") for name in ours if len(ours[name])}


def _properties(edges: NDArray[np.float64], sizes: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    width, height = edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1]
    wide, high = (np.clip(side, 1e-3, None) for side in (width, height))
    return {
        "area": width * height,
        "aspect": np.log(wide * sizes[:, 0] / (high * sizes[:, 1])),
        "horizontal position": (edges[:, 0] / np.clip(1 - width, 1e-3, None))[width < _NARROW],
        "vertical position": (edges[:, 1] / np.clip(1 - height, 1e-3, None))[height < _NARROW],
    }


def _same_next_epoch(seen: Observation) -> float:
    """Return the share of samples with the same crop in both epochs."""
    of_sample: list[dict[int, NDArray[np.float64]]] = [{} for _ in range(EPOCHS)]
    count = len(seen.edges)
    for epoch, label, edges in zip(
        seen.image_epoch[:count].tolist(), seen.image_label[:count].tolist(), seen.edges, strict=True
    ):
        of_sample[epoch].setdefault(label, edges)
    both = of_sample[0].keys() & of_sample[1].keys()
    same = [np.abs(of_sample[0][label] - of_sample[1][label]).max() < _SAME for label in both]
    return float(np.mean(same)) if same else 0.0


def _same_in_other_batch(seen: Observation) -> float:
    """Return the largest share of a batch's crops that have the area and aspect of the crops at the same places of
    another batch.

    The same random numbers give that to images of any size. Up to two such crops may be chance and give 0.
    """
    count = len(seen.edges)
    key = seen.image_epoch[:count] * (seen.image_batch.max(initial=0) + 1) + seen.image_batch[:count]
    drawn = _properties(seen.edges, _sizes(seen))
    forms = np.stack([drawn["area"] / _SAME_AREA, drawn["aspect"] / _SAME_ASPECT], axis=1)
    batches = [forms[key == number] for number in np.unique(key)]
    size = max((len(batch) for batch in batches), default=0)
    whole = [batch for batch in batches if len(batch) == size]
    most = 0.0
    for number, one in enumerate(whole):
        for other in whole[number + 1 :]:
            same = int((np.abs(one - other).max(axis=1) < 1).sum())
            most = max(most, same / size if same > _CHANCE else 0.0)
    return most


def _sizes(seen: Observation) -> NDArray[np.float64]:
    """Return width and height in pixels of the image of each crop, n x 2."""
    sizes = [SIZES[label % len(SIZES)] for label in seen.image_label[: len(seen.edges)].tolist()]
    return np.array(sizes, float)
