"""Compare the losses of trainings that differ only in their loader, and tell what Lightning adds to each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.special import stdtrit

from loaderbench.findings.comparison import SIGNIFICANCE, Ratio, mean_interval, ratio

if TYPE_CHECKING:
    import pandas as pd

LOSSES = ("loss_first", "loss_last")
_ROUNDING = 1e-9
"""Largest difference between equal losses, from rounding."""


@dataclass(frozen=True, kw_only=True)
class UnderLightning:
    """One contestant in training under Lightning, against plain PyTorch in the same blocks."""

    contestant: str
    ratio: Ratio
    """Images/s under Lightning over images/s without it."""
    added_ms: tuple[float, float | None, float | None]
    """Time added to each step: mean over blocks, and the ends of its 95 % interval."""


def outlier_losses(rows: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return, for each contestant whose losses differ from the others', the columns in which they do.

    The test is Student's t on a contestant's mean over blocks against the mean of all, at 5 %, corrected for the number
    of contestants and columns (Bonferroni). Its error is the spread between blocks after removing what all contestants
    share in a block, which comes from the seed. The largest outlier is excluded before the rest are compared, because
    it shifts the mean of all. If there are only two contestants and they differ, both are outliers. There are none with
    fewer than 2 contestants, or fewer than 2 blocks that all of them have. `rows`: the ok ones of one consumer.
    """
    outliers: dict[str, list[str]] = {}
    for column in LOSSES:
        losses = _losses(rows, column)
        while _comparable(losses) and (farthest := _farthest(losses)):
            for contestant in farthest:
                outliers.setdefault(contestant, []).append(column)
            losses = losses.drop(columns=farthest)
    return {contestant: tuple(columns) for contestant, columns in outliers.items()}


def blocks_compared(rows: pd.DataFrame) -> tuple[int, ...]:
    """Return the number of blocks over which `outlier_losses` compares each of `LOSSES`; 0 if it cannot."""
    tables = [_losses(rows, column) for column in LOSSES]
    return tuple(len(losses) if _comparable(losses) else 0 for losses in tables)


def _losses(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the losses by block and contestant, for blocks that all contestants have."""
    return rows.pivot_table(index="block", columns="contestant", values=column).dropna()


def _comparable(losses: pd.DataFrame) -> bool:
    return min(losses.shape) > 1


def _farthest(losses: pd.DataFrame) -> list[str]:
    """Return the contestant farthest from the mean of all, or both of two, if the distance is significant."""
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
    """Return what Lightning adds for each contestant that trains with and without it in one block. `rows`: ok ones.

    Trainings with other numbers of workers than the campaign's are left out.
    """
    rows = rows[rows["track"] != "scaling"]
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
