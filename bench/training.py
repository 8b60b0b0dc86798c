"""Do trainings that differ in their loader alone agree, and what does Lightning add to each? Statistics over rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.special import stdtrit

from bench.comparison import SIGNIFICANCE, mean_interval, ratio

if TYPE_CHECKING:
    import pandas as pd

    from bench.comparison import Ratio

LOSSES = ("loss_first", "loss_last")


@dataclass(frozen=True, kw_only=True)
class UnderLightning:
    """One contestant in training under Lightning, against the same in plain PyTorch in the same blocks."""

    contestant: str
    ratio: Ratio
    """Images/s under Lightning over those without."""
    added_ms: tuple[float, float | None, float | None]
    """To each step: mean over blocks, and the ends of its 95 % interval."""


def losses_apart(rows: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return, for each contestant whose losses are not those of the others, the columns of them.

    `rows`: the ok ones of one consumer. By Student's t on a contestant's mean over blocks against that of all, with the
    spread between blocks that is left when what all have in common in a block is taken out, which comes from the seed;
    at 5 %, corrected for the number of contestants and columns (Bonferroni). Nothing is apart with fewer than 2 blocks
    that all contestants have, or fewer than 2 contestants.
    """
    apart: dict[str, list[str]] = {}
    for column in LOSSES:
        losses = rows.pivot_table(index="block", columns="contestant", values=column).dropna()
        blocks, contestants = losses.shape
        if min(blocks, contestants) <= 1:
            continue
        freedom = (blocks - 1) * (contestants - 1)
        effects = losses.mean() - losses.to_numpy().mean()
        left = losses.sub(losses.mean(axis=1), axis=0) - effects
        error = math.sqrt((left.to_numpy() ** 2).sum() / freedom * (contestants - 1) / (contestants * blocks))
        most = float(stdtrit(freedom, 1 - SIGNIFICANCE / (2 * contestants * len(LOSSES)))) * error
        for contestant, effect in effects.items():
            if abs(effect) > most + 1e-9:  # what rounding leaves of equal ones
                apart.setdefault(str(contestant), []).append(column)
    return {contestant: tuple(columns) for contestant, columns in apart.items()}


def under_lightning(rows: pd.DataFrame) -> list[UnderLightning]:
    """Return what Lightning adds for each contestant that trains with it and without it in the same block.

    `rows`: the ok ones.
    """
    taken = rows["batch_size"] * rows["ranks"].fillna(1) * rows["jobs"].fillna(1)
    timed = rows.assign(step_ms=1000 * (taken / rows["images_per_s"]))
    found = []
    for contestant, own in timed.groupby("contestant", sort=False):
        both = own.pivot_table(index="block", columns="consumer", values="step_ms")
        if {"train", "lightning"} <= set(both) and len(both := both[["train", "lightning"]].dropna()):
            quotient = ratio([math.log(plain / wrapped) for plain, wrapped in both.to_numpy()])
            assert quotient
            added_ms = mean_interval((both["lightning"] - both["train"]).tolist())
            found.append(UnderLightning(contestant=str(contestant), ratio=quotient, added_ms=added_ms))
    return found
