"""Outlier losses are found between loaders, and the time that Lightning adds is measured."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from loaderbench.findings import training
from tests.fabricate import CAST, fed
from tests.reports import rows_of, written

if TYPE_CHECKING:
    from pathlib import Path

    from loaderbench.records.record import Record

pytestmark = pytest.mark.usefixtures("one_picture")
FOUR = CAST[:4]


def trained(seed: int, blocks: int, shift: float = 0.0) -> list[Record]:
    """Return rows of four contestants whose losses vary by block and by noise; `shift` is added to the first one's."""
    draw = random.Random(seed)
    seeds = [draw.gauss(0, 0.2) for _ in range(blocks)]
    return [
        fed(
            actor,
            block,
            "train",
            loss_first=2.8 + by_seed + draw.gauss(0, 0.02),
            loss_last=2.5 + by_seed + draw.gauss(0, 0.02) + shift * (actor is FOUR[0]),
        )
        for block, by_seed in enumerate(seeds, 1)
        for actor in FOUR
    ]


def apart(rows: list[Record]) -> dict[str, tuple[str, ...]]:
    return training.outlier_losses(pd.DataFrame([vars(row) for row in rows]))


def test_only_the_loader_with_a_shifted_loss_is_an_outlier() -> None:
    found = [apart(trained(seed, blocks=3, shift=0.15)) for seed in range(20)]
    assert [of_one.get(FOUR[0].name) for of_one in found] == [("loss_last",)] * 20


def test_a_far_outlier_makes_no_other_loader_an_outlier() -> None:
    found = [apart(trained(seed, blocks=5, shift=5.0)) for seed in range(20)]
    assert [of_one.pop(FOUR[0].name) for of_one in found] == [("loss_last",)] * 20
    assert sum(bool(others) for others in found) <= 2


def test_two_loaders_with_different_losses_are_both_outliers() -> None:
    two = {actor.name for actor in FOUR[:2]}
    assert set(apart([row for row in trained(0, blocks=5, shift=5.0) if row.contestant in two])) == two


def test_chance_differences_are_seldom_outliers() -> None:
    assert sum(bool(apart(trained(seed, blocks=3))) for seed in range(100)) <= 10


def test_equal_losses_and_single_blocks_have_no_outliers() -> None:
    assert apart([fed(actor, block, "train") for actor in FOUR for block in (1, 2)]) == {}
    assert apart(trained(0, blocks=1, shift=5)) == {}


def test_report_marks_an_outlier_loss(tmp_path: Path) -> None:
    feeding = [actor.name for actor in FOUR]
    text = written(tmp_path, trained(0, blocks=3, shift=0.15), cast=FOUR, feeding=feeding)
    losses = {
        title: rows_of(text[text.index("## How fast is training with each loader?") :], title)[0][-1]
        for title in (a.title for a in FOUR)
    }
    assert [title for title, loss in losses.items() if "outlier" in loss] == [FOUR[0].title]


def test_report_says_which_losses_were_compared(tmp_path: Path) -> None:
    feeding = [actor.name for actor in FOUR]
    rows = [replace(row, loss_last=None) for row in trained(0, blocks=3)]
    text = " ".join(written(tmp_path, rows, cast=FOUR, feeding=feeding).split())
    assert "the first losses were compared over 3 blocks, the later ones over 0 blocks" in text


def test_added_time_of_lightning_is_paired_within_blocks(tmp_path: Path) -> None:
    """The machine is half as fast in block 2; Lightning always takes 10 % longer."""
    rows = [
        fed(FOUR[0], block, consumer, images_per_s=speed / slower)
        for block, speed in ((1, 1000.0), (2, 500.0))
        for consumer, slower in (("train", 1.0), ("lightning", 1.1))
    ]
    [found] = training.under_lightning(pd.DataFrame([vars(replace(row, ranks=1)) for row in rows]))
    assert found.ratio.mean == pytest.approx(1 / 1.1)
    assert found.ratio.low == pytest.approx(1 / 1.1)
    assert found.added_ms[0] == pytest.approx((12.8 + 25.6) / 2)  # batches of 128
    text = written(tmp_path, rows, cast=FOUR[:1], blocks=2, feeding=[FOUR[0].name])
    shown = rows_of(text[text.index("### What does Lightning add?") :], FOUR[0].title)[0]
    assert shown[1:3] == ["750", "682"]
    assert shown[3].startswith("0.909")
    assert shown[4].startswith("19.2 [")


def test_report_without_lightning_omits_its_section(tmp_path: Path) -> None:
    text = written(tmp_path, trained(0, blocks=2), cast=FOUR, feeding=[actor.name for actor in FOUR])
    assert "What does Lightning add" not in text
