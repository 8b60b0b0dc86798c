"""A campaign is analysed into medians, ratios, ranks, limits and failures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from loaderbench.findings.analysis import analyse
from loaderbench.findings.comparison import Ratio
from loaderbench.findings.crossover import DeliveryCurve
from loaderbench.findings.findings import Failure, shown
from loaderbench.records.record import Record
from tests import fabricate
from tests.analysed import CAST, FAST, REFERENCE, SLOW, analysis_of, runs, summary


def ratio_of(name: str, rows: list[Record]) -> Ratio:
    reference = summary(name, analysis_of(rows)).reference
    assert reference is not None
    return reference.ratio


def test_summary_has_the_median_and_the_speed_of_every_block() -> None:
    fast = summary("fast", analysis_of(runs(FAST, 300, 100, 110)))
    assert fast.speeds == (300, 100, 110)
    assert fast.median == 110


def test_start_up_time_is_the_median_of_the_sums() -> None:
    phases = [(1, 0, 9), (9, 1, 0), (2, 2, 2)]
    rows = [
        fabricate.load(FAST, block, import_s=i, construct_s=c, first_batch_s=f)
        for block, (i, c, f) in enumerate(phases, 1)
    ]
    medians = summary("fast", analysis_of(rows)).medians
    assert medians["start_s"] == 10
    assert (medians["import_s"], medians["construct_s"], medians["first_batch_s"]) == (2, 1, 2)


def test_file_backed_memory_and_switches_are_computed_per_trial() -> None:
    memory = [(900.0, 100.0), (1000.0, 900.0), (1100.0, 500.0)]
    rows = [
        fabricate.load(FAST, block, memory_mib=peak, anon_memory_mib=anon, context_switches=n, window_s=s)
        for block, ((peak, anon), n, s) in enumerate(zip(memory, (100, 900, 800), (1.0, 3.0, 4.0), strict=True), 1)
    ]
    medians = summary("fast", analysis_of(rows)).medians
    assert (medians["file_backed_mib"], medians["context_switches_per_s"]) == (600, 200)  # of medians: 500 and 267


def test_ratio_pairs_blocks_and_has_a_t_interval_of_the_logarithm() -> None:
    # Ratios 2, 4 and 8: log2 has mean 2 and standard deviation 1; t(2, 97.5 %) = 4.302653.
    rows = runs(REFERENCE, 100, 200, 50) + runs(FAST, 200, 800, 400)
    ratio = ratio_of("fast", rows)
    half = 4.302653 / math.sqrt(3)
    assert ratio.mean == pytest.approx(4)
    assert (ratio.low, ratio.high) == pytest.approx((2 ** (2 - half), 2 ** (2 + half)), rel=1e-6)
    assert ratio.blocks == 3


def test_one_common_block_gives_a_ratio_without_interval() -> None:
    rows = [*runs(REFERENCE, 100), *runs(FAST, 300, 900)]
    ratio = ratio_of("fast", rows)
    assert (ratio.mean, ratio.low, ratio.high) == (pytest.approx(3), None, None)


@pytest.mark.parametrize("rows", [[], [fabricate.failed(REFERENCE, 1)]])
def test_a_campaign_without_reference_speed_has_no_ratio(rows: list[Record]) -> None:
    assert summary("fast", analysis_of(rows + runs(FAST, 300, 900))).reference is None


def test_summaries_are_ordered_by_median_speed() -> None:
    rows = runs(SLOW, 100, 110) + runs(FAST, 300, 310) + [fabricate.failed(REFERENCE, 1)]
    assert [s.name for s in analysis_of(rows).summaries] == ["fast", "slow", "reference"]


def test_undecided_contestants_share_a_range_of_ranks() -> None:
    close = [1000.0, 1040, 990, 1050, 1010, 1030]
    rows = runs(FAST, *close) + runs(REFERENCE, *reversed(close)) + runs(SLOW, *[speed / 2 for speed in close])
    analysis = analysis_of(rows, blocks=6)
    assert {s.name: s.rank for s in analysis.summaries} == {"fast": (1, 2), "reference": (1, 2), "slow": (3, 3)}
    assert {s.name: s.faster_than for s in analysis.summaries}["fast"] == {"slow"}


def test_few_blocks_give_no_rank() -> None:
    analysis = analysis_of(runs(FAST, *[300] * 5) + runs(SLOW, *[100] * 5), blocks=5)
    assert {s.rank for s in analysis.summaries} == {None}


def test_contestants_beyond_the_median_limit_are_flagged() -> None:
    limits = [fabricate.limit("crop", block, speed) for block, speed in enumerate((900.0, 1000.0, 1100.0), 1)]
    rows = [fabricate.load(FAST, 1, pct_of_bound=103.0), fabricate.load(SLOW, 1, pct_of_bound=101.0)]
    other = fabricate.limit("crop", 1, 1.0, attempt=2)  # of an attempt that does not count
    analysis = analysis_of([*limits, other, *rows, *runs(REFERENCE, 10, 10, 10)])
    assert analysis.limits == {"crop": 1000}
    assert [s.name for s in analysis.beyond_limit] == ["fast"]


def test_a_failed_limit_is_a_failure_and_an_unavailable_one_is_not() -> None:
    crop = fabricate.limit("crop", 1)
    rows = [
        replace(crop, status="timeout", reason="killed", images_per_s=None),
        replace(crop, title="host-to-device", status="unavailable", reason="no GPU", images_per_s=None),
    ]
    analysis = analysis_of(rows)
    assert [(failure.kind, failure.title) for failure in analysis.failures] == [("limit", "crop")]
    assert analysis.limits_missing == {"crop": "killed", "host-to-device": "no GPU"}


def test_one_contestant_with_few_blocks_leaves_the_others_ranked() -> None:
    rows = runs(FAST, *[300] * 6) + runs(REFERENCE, *[100] * 6) + runs(SLOW, 50, 50)
    analysis = analysis_of(rows, blocks=6)
    assert not analysis.descriptive
    assert {s.name: s.rank for s in analysis.summaries} == {"fast": (1, 2), "reference": (2, 3), "slow": None}


@pytest.mark.parametrize(("blocks", "descriptive"), [(5, True), (6, False)])
def test_fewer_than_six_blocks_are_descriptive(blocks: int, descriptive: bool) -> None:  # noqa: FBT001
    rows = runs(FAST, *range(300, 300 + blocks)) + runs(REFERENCE, *range(100, 100 + blocks))
    assert analysis_of(rows, blocks=6).descriptive is descriptive


@pytest.mark.parametrize("status", ["failed", "timeout", "invalid", "unavailable"])
def test_a_trial_that_is_not_ok_has_a_reason_and_no_speed(status: str) -> None:
    # Even if a figure was written before the trial was found wrong.
    bad = fabricate.load(FAST, 2, status=status, reason="broken", images_per_s=99_999.0)
    analysis = analysis_of([*runs(FAST, 300), bad])
    fast = summary("fast", analysis)
    assert fast.speeds == (300,)
    assert fast.trouble == f"{status}: broken"
    assert analysis.failures == (
        Failure(kind="load", title="Fast", status=status, reason="broken", rows=1, blocks=(2,)),
    )


def test_equal_failures_are_grouped_with_their_blocks() -> None:
    rows = [fabricate.failed(FAST, block) for block in (3, 1, 2)]
    rows.append(fabricate.failed(FAST, 1, attempt=2))
    (failure,) = analysis_of(rows).failures
    assert (failure.rows, failure.blocks) == (4, (1, 2, 3))


def test_an_unmeasured_figure_is_missing_and_not_zero() -> None:
    analysis = analysis_of([fabricate.load(FAST, 1, gpu_reason="no driver", cpu_load_pct=None)])
    assert not summary("fast", analysis).medians.keys() & {"gpu_util_pct", "cpu_load_pct"}
    assert analysis.gpu_reason == "no driver"


def test_a_gpu_figure_missing_from_many_trials_is_explained_once() -> None:
    rows = [fabricate.load(FAST, 1, gpu_reason="no power; no energy"), fabricate.load(FAST, 2, gpu_reason="no energy")]
    assert analysis_of(rows).gpu_reason == "no energy; no power"


def test_an_empty_campaign_is_analysed() -> None:
    analysis = analysis_of([])
    assert (analysis.measured, analysis.recorded, analysis.descriptive) == ((), 0, False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5480.4, "5,480"),
        (99.96, "100"),
        (12.0, "12.0"),
        (0.0123, "0.0123"),
        (3, "3"),
        (0.0, "0.00"),
    ],
)
def test_figures_have_three_digits_and_counts_are_whole(value: float, text: str) -> None:
    assert shown(value) == text


def test_different_work_is_compared_with_the_reference_and_not_ranked() -> None:
    rows = [row for a, speed in ((FAST, 300), (SLOW, 100), (REFERENCE, 200)) for row in runs(a, *[speed] * 6)]
    faulty = fabricate.certificate(faults=("no image is flipped",))
    certified = {"fast": faulty, "slow": fabricate.certificate(), "reference": fabricate.certificate()}
    analysis = analyse(rows, fabricate.environment(CAST, 6, "reference")["campaign"], certified)
    assert [s.name for s in analysis.measured] == ["reference", "slow", "fast"]
    assert [s.name for s in analysis.ranked] == ["reference", "slow"]
    assert [s.rank for s in analysis.measured] == [(1, 1), (2, 2), None]
    fast = summary("fast", analysis)
    assert fast.unranked_reason == "no image is flipped"
    assert fast.reference is not None
    assert fast.reference.ratio.mean == pytest.approx(1.5)
    assert fast.reference.p is None


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ({"apart": "decoded on a GPU"}, "decoded on a GPU"),
        (
            {"work": {"dtype": "float16", "normalised": True}},
            "delivers float16, normalised instead of uint8",
        ),
        ({"work": {"dtype": None, "normalised": None}, "apart": ""}, ""),
    ],
)
def test_a_contestant_with_its_own_work_is_not_ranked(own: dict[str, Any], reason: str) -> None:
    rows = [row for a in (FAST, REFERENCE) for row in runs(a, *[a.images_per_s] * 6)]
    campaign = fabricate.environment(CAST, 6, "reference")["campaign"]
    [fast] = [contestant for contestant in campaign["contestants"] if contestant["name"] == "fast"]
    fast.update(own)
    analysis = analyse(rows, campaign, {name: fabricate.certificate() for name in ("fast", "reference")})
    assert summary("fast", analysis).unranked_reason == reason
    assert ("fast" in [s.name for s in analysis.ranked]) == (not reason)


def test_others_are_compared_with_an_unranked_reference() -> None:
    rows = [row for a, speed in ((FAST, 300), (SLOW, 100), (REFERENCE, 200)) for row in runs(a, *[speed] * 6)]
    certified = dict.fromkeys(("fast", "slow"), fabricate.certificate())
    certified["reference"] = fabricate.certificate(faults=("no image is flipped",))
    analysis = analyse(rows, fabricate.environment(CAST, 6, "reference")["campaign"], certified)
    assert [(s.name, s.rank) for s in analysis.measured] == [("fast", (1, 1)), ("slow", (2, 2)), ("reference", None)]
    ratios = [s.reference.ratio.mean for s in analysis.ranked if s.reference]
    assert ratios == [pytest.approx(1.5), pytest.approx(0.5)]


def test_failures_of_different_variants_are_separate() -> None:
    rows = [fabricate.failed(FAST, 1), fabricate.failed(FAST, 1, cache="cold", trial="1/fast/cold")]
    assert [(f.title, f.blocks) for f in analysis_of([*runs(SLOW, 100), *rows]).failures] == [
        ("Fast", (1,)),
        ("Fast, cold cache", (1,)),
    ]


def test_equal_titles_are_distinguished_by_name() -> None:
    cast = [replace(actor, title="The same") for actor in (FAST, SLOW)]
    stream = fabricate.STREAM | {"streaming": ["fast", "slow"], "bounded": [], "downloading": []}
    rows = [fabricate.failed(actor, 1) for actor in cast] + [fabricate.load(actor, 2) for actor in cast]
    rows += [fabricate.fetched(actor, 2, "stream") for actor in cast]
    rows += [fabricate.write(name, title="A format") for name in ("ffcv-raw", "ffcv-jpeg")]
    campaign = fabricate.environment(cast, 2, "fast", stream=stream)["campaign"]
    for form in campaign["formats"]:
        form["title"] = "A format" if form["name"] in {"ffcv-raw", "ffcv-jpeg"} else form["title"]
    curves = {row.trial: DeliveryCurve.of(fabricate.course(row), 5.0) for row in rows if row.transport}
    analysis = analyse(rows, campaign, curves=curves)
    both = {"The same (fast)", "The same (slow)"}
    assert {s.title for s in analysis.summaries} == {failure.title for failure in analysis.failures} == both
    assert {w.title for w in analysis.writes} == {"A format (ffcv-raw)", "A format (ffcv-jpeg)"}
    [crossover] = analysis.crossovers
    assert {crossover.first, crossover.second} == {f"{title}, streamed" for title in both}
