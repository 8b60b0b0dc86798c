"""Do trainings that differ in their loader alone agree, and what does Lightning add to each? Statistics over rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.special import stdtrit

from loaderbench.findings.comparison import SIGNIFICANCE, mean_interval, ratio

if TYPE_CHECKING:
    import pandas as pd

    from loaderbench.findings.comparison import Ratio

LOSSES = ("loss_first", "loss_last")
_ROUNDING = 1e-9
"""What it may leave between equal losses."""


@dataclass(frozen=True, kw_only=True)
class UnderLightning:
    """One contestant in training under Lightning, against the same in plain PyTorch in the same blocks."""

    contestant: str
    ratio: Ratio
    """Images/s under Lightning over those without."""
    added_ms: tuple[float, float | None, float | None]
    """To each step: mean over blocks, and the ends of its 95 % interval."""


def outlier_losses(rows: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return, for each contestant whose losses are not those of the others, the columns of them.

    `rows`: the ok ones of one consumer. By Student's t on a contestant's mean over blocks against that of all, with the
    spread between blocks that is left when what all have in common in a block is taken out, which comes from the seed;
    at 5 %, corrected for the number of contestants and columns (Bonferroni). The one farthest off is left out before
    the others are compared, for it takes the mean of all with it; of two that differ both are apart. Nothing is with
    fewer than 2 blocks that all contestants have, or fewer than 2 contestants.
    """
    apart: dict[str, list[str]] = {}
    for column in LOSSES:
        losses = _losses(rows, column)
        while _comparable(losses) and (farthest := _farthest(losses)):
            for contestant in farthest:
                apart.setdefault(contestant, []).append(column)
            losses = losses.drop(columns=farthest)
    return {contestant: tuple(columns) for contestant, columns in apart.items()}


def blocks_compared(rows: pd.DataFrame) -> tuple[int, ...]:
    """Return over how many blocks `outlier_losses` compares each of `LOSSES`; 0 if it cannot."""
    tables = [_losses(rows, column) for column in LOSSES]
    return tuple(len(losses) if _comparable(losses) else 0 for losses in tables)


def _losses(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the losses by block and contestant, of the blocks that all contestants have."""
    return rows.pivot_table(index="block", columns="contestant", values=column).dropna()


def _comparable(losses: pd.DataFrame) -> bool:
    return min(losses.shape) > 1


def _farthest(losses: pd.DataFrame) -> list[str]:
    """Return the contestant that is farthest from the mean of all, or both of two, if that is more than chance."""
    blocks, contestants = losses.shape
    freedom = (blocks - 1) * (contestants - 1)
    effects = losses.mean() - losses.to_numpy().mean()
    left = losses.sub(losses.mean(axis=1), axis=0) - effects
    error = math.sqrt((left.to_numpy() ** 2).sum() / freedom * (contestants - 1) / (contestants * blocks))
    least = float(stdtrit(freedom, 1 - SIGNIFICANCE / (2 * contestants * len(LOSSES)))) * error
    most = float(effects.abs().max())
    if most <= least + _ROUNDING:
        return []
    return [str(contestant) for contestant, effect in effects.items() if abs(effect) >= most - _ROUNDING]


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
