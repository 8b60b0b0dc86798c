"""The sentences of a report's first screen claim only what the tests show."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from loaderbench.findings import publication, verdicts
from loaderbench.findings.analysis import analyse
from loaderbench.findings.crossover import DeliveryCurve
from tests import fabricate
from tests.fabricate import CAST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loaderbench.findings.findings import Analysis
    from loaderbench.records.record import Record

FAST, OTHER, REFERENCE = CAST[0], CAST[1], CAST[8]


def found(rows: Sequence[Record], blocks: int = 6, **changes: Any) -> Analysis:
    campaign = fabricate.environment((FAST, OTHER, REFERENCE), blocks, REFERENCE.name)["campaign"]
    return replace(analyse(rows, campaign), **changes)


def runs(actor: fabricate.Actor, *speeds: float, **columns: Any) -> list[Record]:
    return [fabricate.load(actor, block, images_per_s=speed, **columns) for block, speed in enumerate(speeds, 1)]


def three(*others: float, blocks: int = 6) -> list[Record]:
    """Rows of FAST, of OTHER at these speeds, and of the reference."""
    return [*runs(FAST, *[3000.0] * blocks), *runs(OTHER, *others), *runs(REFERENCE, *[1000.0] * blocks)]


def test_fastest_needs_a_test_against_every_other_contestant() -> None:
    analysis = found(three(*[2000.0] * 6))
    claim = verdicts.headline(analysis)
    assert claim.claim == f"{FAST.title} is fastest: 3,000 images/s"
    assert claim.detail == f", 3.00 times the reference, {REFERENCE.title} (95% CI 3.00\N{EN DASH}3.00)."
    assert "finds it faster than each of the other 2 ranked contestants" in verdicts.confidence(analysis)


def test_a_contestant_with_too_few_blocks_is_a_rival() -> None:
    """A rival that failed in one block has no rank, but is a rival."""
    failed = fabricate.failed(OTHER, 6)
    analysis = found([*three(*[2985.0] * 5), failed])
    assert verdicts.headline(analysis).claim == f"{FAST.title} has the highest median: 3,000 images/s"
    assert f"no test separates it from {OTHER.title} (only 5 blocks)." in verdicts.confidence(analysis)
    ranges = {FAST.name: (1, 2), OTHER.name: (1, 3), REFERENCE.name: (2, 3)}
    heading, places = verdicts.places(analysis.summaries)
    assert heading == "Rank"
    assert places == {name: f"{best}\N{EN DASH}{worst}" for name, (best, worst) in ranges.items()}


def test_a_contestant_without_a_common_block_is_a_rival() -> None:
    rows = [replace(row, block=(row.block or 0) + 6, trial=f"later/{row.trial}") for row in runs(OTHER, *[2000.0] * 6)]
    analysis = found([*runs(FAST, *[3000.0] * 6), *rows, *runs(REFERENCE, *[1000.0] * 6)], blocks=12)
    assert [s.title for s in verdicts.rivals(analysis.ranked)] == [OTHER.title]
    assert {s.name: s.rank for s in analysis.ranked} == {FAST.name: (1, 2), OTHER.name: (1, 3), REFERENCE.name: (2, 3)}


def test_an_unfinished_campaign_has_no_fastest_contestant() -> None:
    analysis = found(three(*[2000.0] * 6), blocks=8)
    assert verdicts.headline(analysis).claim == f"{FAST.title} has the highest median so far: 3,000 images/s"
    assert verdicts.progress(analysis) == "after 6 of 8 blocks, 18 of 24 trials"


@pytest.mark.parametrize(("blocks", "said"), [(1, "1 block"), (3, "3 blocks")])
def test_few_blocks_are_descriptive(blocks: int, said: str) -> None:
    analysis = found(three(*[2000.0] * blocks, blocks=blocks), blocks=blocks)
    assert verdicts.confidence(analysis).startswith(f"descriptive only. No contestant has a speed in more than {said};")
    assert ("from one block" in verdicts.headline(analysis).detail) is (blocks == 1)


def test_headline_says_that_no_contestant_can_be_ranked() -> None:
    rows = runs(FAST, *[3000.0] * 3)
    analysis = found(rows, blocks=3)
    unranked = tuple(replace(s, apart="other work") for s in analysis.summaries)
    claim = verdicts.headline(replace(analysis, summaries=unranked))
    assert claim.claim == "No contestant can be ranked"
    assert claim.detail == ": all that have a speed do different work or exceed the machine limit."


def test_price_is_compared_with_the_reference() -> None:
    price = verdicts.price(found(three(*[2000.0] * 6)))
    assert price.startswith("142,400 bytes per image on disk (reference: 16,600); 11.7 s to the first batch")
    assert price.endswith("640 MiB of anonymous and shared memory (reference: 640).")
    assert "(reference" not in verdicts.price(found(runs(REFERENCE, 1000.0), blocks=1))


def test_machine_limit_names_its_step() -> None:
    rows = [replace(row, bound_ips=4000.0, pct_of_bound=75.0, bound_by="crop") for row in three(2000.0, blocks=1)]
    assert verdicts.machine_limit(found(rows, blocks=1)) == (
        "it reaches 75.0% of the 4,000 images/s that this machine can do of its slowest required step (crop)."
    )
    beyond = [replace(row, pct_of_bound=120.0) for row in rows]
    assert f"{FAST.title} reaches 120% (crop)" in verdicts.beyond_limit(found(beyond, blocks=1))
    bare = [replace(row, bound_ips=None, pct_of_bound=None) for row in rows]
    assert verdicts.machine_limit(found(bare, blocks=1)) == verdicts.beyond_limit(found(bare, blocks=1)) == ""


def test_a_contestant_beyond_the_machine_limit_is_not_ranked() -> None:
    """One did 29,297 % of its limit, and had the first rank."""
    rows = [
        replace(row, pct_of_bound=29_297.0 if row.contestant == FAST.name else 50.0) for row in three(*[2000.0] * 6)
    ]
    analysis = found(rows)
    assert verdicts.headline(analysis).claim == f"{OTHER.title} is fastest: 2,000 images/s"
    assert [(s.name, s.rank) for s in analysis.summaries] == [
        (OTHER.name, (1, 1)),
        (REFERENCE.name, (2, 2)),
        (FAST.name, None),
    ]
    assert verdicts.unranked(analysis) == f"{FAST.title} (it reaches 29,297% of the machine limit)."
    assert FAST.title in verdicts.beyond_limit(analysis)


@pytest.mark.parametrize("change", [{"pct_of_bound": 29_297.0}, {}])
def test_an_unranked_contestant_never_leads_another_comparison(
    change: dict[str, Any],
) -> None:
    cast = (FAST, REFERENCE)
    names = [actor.name for actor in cast]
    stream = fabricate.STREAM | {"streaming": names, "bounded": [], "downloading": []}
    rows = fabricate.finished(cast, 6, (), names, names, stream)
    rows = [replace(row, **(change if row.contestant == FAST.name else {})) for row in rows]
    campaign = fabricate.environment(cast, 6, REFERENCE.name, (), names, feeding=names, stream=stream)["campaign"]
    campaign["contestants"][0]["apart"] = "" if change else "crops"
    curves = {row.trial: DeliveryCurve.of(fabricate.course(row), 5.0) for row in rows if row.transport}
    analysis = analyse(rows, campaign, curves=curves)
    assert "ImageFolder 256 px is the only one that can be ranked" in verdicts.tuned(analysis)
    for sentence in (verdicts.accelerator(analysis), verdicts.training(analysis), verdicts.bucket(analysis, 4)):
        assert REFERENCE.title in sentence
        assert FAST.title not in sentence


def test_training_without_a_cached_speed_counts() -> None:
    rows = [fabricate.fed(FAST, 1, "train", images_per_s=900.0, stall_vs_warm_cached_pct=None)]
    rows += [fabricate.fed(REFERENCE, 1, "train", images_per_s=500.0, stall_vs_warm_cached_pct=-2.0)]
    campaign = fabricate.environment((FAST, REFERENCE), 1, REFERENCE.name, feeding=[FAST.name, REFERENCE.name])
    assert verdicts.training(analyse(rows, campaign["campaign"])) == (
        f"{FAST.title} has the highest median in training: 900 images/s; the slowest is {REFERENCE.title} with "
        "500 images/s, 2.00% faster than on one cached batch."
    )


def test_contestants_of_different_work_are_grouped_by_reason() -> None:
    analysis = found(three(2000.0, blocks=1), blocks=1)
    apart = tuple(replace(s, apart="" if s.name == REFERENCE.name else "crops") for s in analysis.summaries)
    assert verdicts.unranked(replace(analysis, summaries=apart)) == f"{FAST.title}; {OTHER.title} (crops)."


def test_a_failed_control_warns_against_every_figure() -> None:
    campaign = fabricate.environment((FAST, REFERENCE), 6, REFERENCE.name)["campaign"]
    twin = campaign["contestants"][1] | {"name": "twin", "title": "Twin", "control": "twin"}
    campaign["contestants"].append(twin)
    actor = replace(REFERENCE, name="twin", title="Twin")
    for speed, passed in ((1000.0, True), (500.0, False)):
        rows = [*three(*[2000.0] * 6), *runs(actor, *[speed] * 6)]
        analysis = analyse(rows, campaign)
        assert ("Do not trust any figure" in verdicts.controls_failed(analysis)) is not passed
        assert f"{int(passed)} of 1 control passed" in verdicts.harness(analysis)


def test_missing_certificates_are_named() -> None:
    assert verdicts.unchecked(found(three(2000.0, blocks=1), blocks=1)).startswith("this campaign did not check")
    assert verdicts.unchecked(found(three(2000.0, blocks=1), blocks=2)).startswith("this campaign has not yet checked")
    assert verdicts.unchecked(found(three(2000.0, blocks=1), blocks=1, certified=True)) == ""


def test_uncompared_losses_are_named_once() -> None:
    assert verdicts.losses((3, 2)) == "the first losses were compared over 3 blocks, the later ones over 2 blocks"
    assert verdicts.losses((0, 0)).startswith("no losses were compared")


def test_an_empty_campaign_has_no_verdicts() -> None:
    nothing = found([])
    said = (
        *(verdicts.confidence, verdicts.price, verdicts.machine_limit, verdicts.beyond_limit, verdicts.unranked),
        *(verdicts.controls_failed, verdicts.harness, verdicts.tuned, verdicts.accelerator, verdicts.training),
        *(publication.published, verdicts.unchecked),
    )
    assert {sentence(nothing) for sentence in said} == {""}
    assert verdicts.progress(nothing) == "after 0 of 6 blocks, 0 of 18 trials"
