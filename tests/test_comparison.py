"""Verdicts follow from exact tests that are corrected for all pairs together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loaderbench.findings.comparison import Ratio, compare_all, corrected_p, least_difference


def table(**speeds: list[float]) -> pd.DataFrame:
    return pd.DataFrame(speeds, index=range(1, len(next(iter(speeds.values()))) + 1))


def around(centre: float, blocks: int = 8, noise: float = 0.01, seed: int = 0) -> list[float]:
    return list(centre * np.exp(np.random.default_rng(seed).normal(0, noise, blocks)))


def test_p_of_one_pair_is_that_of_an_ordinary_sign_flip_test() -> None:
    differences = np.random.default_rng(1).normal(0.01, 0.02, 9)
    known = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert corrected_p(differences[:, None]) == pytest.approx([known.pvalue])


def test_clear_differences_keep_the_smallest_possible_p_among_many_pairs() -> None:
    """Holm's correction would make each of these 45 x 2 / 256."""
    differences = np.random.default_rng(2).normal(0, 0.02, (8, 45)) + np.linspace(1, 3, 45)
    assert corrected_p(differences) == pytest.approx(np.full(45, 2 / 2**8))


def test_correction_holds_the_family_wise_error_rate() -> None:
    draws = np.random.default_rng(3)
    wrong = sum(corrected_p(draws.normal(0, 1, (8, 20))).min() <= 0.05 for _ in range(200))
    assert wrong <= 20


def test_a_weaker_difference_never_has_a_smaller_p() -> None:
    differences = np.random.default_rng(4).normal(0, 1, (7, 6)) + np.array([0, 0.5, 1, 2, 4, 8])
    p = corrected_p(differences)
    strength = np.abs(differences.sum(axis=0)) / np.sqrt((differences**2).sum(axis=0))
    assert np.all(np.diff(p[np.argsort(-strength)]) >= 0)


def test_many_blocks_are_tested_by_random_flips() -> None:
    differences = np.random.default_rng(5).normal(0.02, 0.01, (40, 3))
    assert corrected_p(differences).max() < 0.01
    assert corrected_p(-differences) == pytest.approx(corrected_p(differences))


@pytest.mark.parametrize(
    ("speeds", "verdict"),
    [
        (around(1100, seed=1), "faster"),
        (around(900, seed=1), "slower"),
        (around(1000, seed=1), "tie"),
        (around(1030, noise=0.08, seed=1), "unresolved"),
        (around(1100, seed=1)[:5] + [float("nan")] * 3, "unresolved"),
    ],
)
def test_verdict_follows_from_test_and_smallest_difference(speeds: list[float], verdict: str) -> None:
    compared = compare_all(table(a=speeds, b=around(1000, seed=2)), least=0.02)
    assert compared["a", "b"].verdict == verdict
    opposite = {"faster": "slower", "slower": "faster"}
    assert compared["b", "a"].verdict == opposite.get(verdict, verdict)


def test_a_contestant_with_few_common_blocks_leaves_other_verdicts_unchanged() -> None:
    nan = float("nan")
    rare = [*around(3000, seed=3)[:4], *[nan] * 4]
    compared = compare_all(table(a=around(1100, seed=1), b=around(1000, seed=2), rare=rare), least=0.02)
    assert compared["a", "b"].verdict == "faster"
    assert compared["rare", "b"].p is None


def test_a_certain_but_small_difference_is_a_tie() -> None:
    compared = compare_all(table(a=around(1015, noise=0.001, seed=1), b=[1000.0] * 8), least=0.02)
    assert compared["a", "b"].verdict == "tie"


def test_contestants_without_a_common_block_are_not_compared() -> None:
    nan = float("nan")
    assert compare_all(table(a=[1.0, nan], b=[nan, 1.0]), least=0.02) == {}
    assert compare_all(pd.DataFrame(), least=0.02) == {}


@pytest.mark.parametrize(
    ("low", "high", "least"), [(0.99, 1.01, 0.02), (0.95, 1.05, (1.05 / 0.95) ** 0.5 - 1), (None, None, 0.02)]
)
def test_smallest_difference_is_the_resolution_of_the_a_a_control(
    low: float | None, high: float | None, least: float
) -> None:
    assert least_difference(Ratio(mean=1, low=low, high=high, blocks=8)) == pytest.approx(least)
