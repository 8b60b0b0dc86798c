"""Published ratios are compared with measured ones, and the effect of each change of the set-up is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.findings import publication
from loaderbench.findings.analysis import analyse
from loaderbench.findings.comparison import RANKING_BLOCKS
from tests import fabricate
from tests.fabricate import Actor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loaderbench.findings.findings import Analysis

CAST = tuple(
    Actor(name, name.upper(), "ffcv", form, 1000)
    for name, form in (
        ("old", "ffcv-raw"),
        ("older", "ffcv-raw"),
        ("new", "ffcv-jpeg"),
        ("base", "ffcv-raw"),
        ("kept", "ffcv-raw"),
    )
)
SPEEDS = {"base": 1000.0, "kept": 500.0, "older": 800.0, "old": 1200.0, "new": 3000.0}
STEPS = [
    {"from": "older", "to": "old", "what": "one thing"},
    {"from": "old", "to": "new", "what": "another"},
    {"from": "base", "to": "kept", "what": "a third"},
]
FIGURES = {
    "base": {"images_per_s": [100.0, 200.0], "size_gib": None},
    "older": {"images_per_s": [150.0, 220.0], "size_gib": 10.0},
}


def found(speeds: Mapping[str, float] = SPEEDS, **changes: Any) -> Analysis:
    """Analyse a campaign with published figures of BASE, the reference, and OLDER; `changes` replace its keys."""
    told = {"source": "?", "images": 2**20, "contestants": FIGURES}
    campaign = fabricate.environment(CAST, RANKING_BLOCKS, "base")["campaign"] | {"published": told, "changes": STEPS}
    rows = [
        fabricate.load(actor, block, images_per_s=speeds[actor.name])
        for block in range(1, RANKING_BLOCKS + 1)
        for actor in CAST
        if actor.name in speeds
    ]
    stored = [fabricate.write("ffcv-raw"), fabricate.write("ffcv-jpeg", payload_bytes=fabricate.SAMPLES * 7)]
    return analyse([*rows, *stored], campaign | changes)


def test_published_ratios_are_taken_per_epoch() -> None:
    base, older = found().replications
    assert base.ratios == (1, 1)
    assert older.ratios == (1.5, 1.1)
    assert older.ratio == pytest.approx((1.5 * 1.1) ** 0.5)


def test_published_sizes_are_given_per_image() -> None:
    base, older = found().replications
    assert base.bytes_per_image is None
    assert older.bytes_per_image == 10 * 1024
    assert older.stored_bytes == pytest.approx(142_400)


def test_set_up_is_measured_as_published_and_after_all_changes() -> None:
    _, older = found().replications
    assert older.measured
    assert older.measured.mean == pytest.approx(0.8)
    assert older.equal
    assert older.equal.mean == pytest.approx(3000 / 500)


def test_effect_of_a_change_compares_its_two_ends() -> None:
    first, second, third = found().setup_effects
    assert (first.what, first.before, first.after) == ("one thing", "OLDER", "OLD")
    assert [c.comparison.ratio.mean for c in (first, second, third) if c.comparison] == pytest.approx([1.5, 2.5, 0.5])
    assert first.comparison
    assert first.comparison.verdict == "faster"
    assert third.comparison
    assert third.comparison.verdict == "slower"
    assert (second.bytes_before, second.bytes_after) == (pytest.approx(142_400), 7)


def test_a_contestant_without_speed_has_no_ratio() -> None:
    analysis = found({name: speed for name, speed in SPEEDS.items() if name not in {"old", "kept"}})
    _, older = analysis.replications
    assert older.measured
    assert older.equal is None
    assert [c.comparison for c in analysis.setup_effects] == [None, None, None]


def test_a_campaign_without_published_figures_has_no_replications() -> None:
    analysis = found(published=None, changes=[])
    assert analysis.replications == ()
    assert analysis.setup_effects == ()


def test_published_figures_that_do_not_hold_are_named() -> None:
    """NEW is 3 times as fast as the reference and takes a twentieth of its bytes; OLDER takes as many, at 0.8 times."""
    figures = {
        "base": {"images_per_s": [100.0, 100.0], "size_gib": 100.0},
        "older": {"images_per_s": [60.0, 70.0], "size_gib": 40.0},
        "old": {"images_per_s": [119.0, 121.0], "size_gib": 91.0},
        "new": {"images_per_s": [], "size_gib": 0.0049},
        "kept": {"images_per_s": [90.0], "size_gib": None},
    }
    analysis = found(published={"source": "?", "images": 2**20, "contestants": figures})
    assert [p.name for p in analysis.replications if p.ratio is None] == ["new"]
    times, dash = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
    assert list(publication.contradicted(analysis)) == [
        f"OLDER: 0.600{dash}0.700{times} the speed of BASE was published; here it is 0.800{times} (95% CI 0.800).",
        f"OLDER: 0.400{times} the bytes per image of BASE were published; here they are 1.00{times}.",
        f"KEPT: 0.900{times} the speed of BASE was published; here it is 0.500{times} (95% CI 0.500).",
    ]


def test_litdata_campaign_changes_one_thing_at_a_time() -> None:
    campaign = config.load("litdata-pr572")
    assert campaign.published
    assert set(campaign.published.contestants) == {change.from_ for change in campaign.changes}
    ends = {change.from_ for change in campaign.changes} | {change.to for change in campaign.changes}
    assert ends == {c.name for c in campaign.contestants if not c.control}
    work = campaign.work_on(4096, 1)
    assert (work.batch_size, work.dtype, work.shuffle) == (256, "float32", False)
    by_name = {c.name: c for c in campaign.contestants}
    for change in campaign.changes:
        before, after = by_name[change.from_], by_name[change.to]
        differ = [before.format != after.format, before.options != after.options]
        assert sum(differ) == 1, change.what
