from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from loaderbench.findings.analysis import analyse
from loaderbench.findings.comparison import Ratio
from loaderbench.findings.crossover import DeliveryCurve
from loaderbench.findings.findings import Analysis, ContestantSummary, Failure, shown
from loaderbench.records.record import Record
from tests import fabricate

FAST, SLOW, REFERENCE = (
    fabricate.Actor(name, name.title(), "ffcv", "ffcv-raw", 1000) for name in ("fast", "slow", "reference")
)
CAST = (SLOW, REFERENCE, FAST)


def analysis_of(rows: list[Record], blocks: int = 3) -> Analysis:
    return analyse(rows, fabricate.environment(CAST, blocks, "reference")["campaign"])


def runs(actor: fabricate.Actor, *speeds: float) -> list[Record]:
    return [fabricate.load(actor, block, images_per_s=s) for block, s in enumerate(speeds, 1)]


def summary(name: str, analysis: Analysis) -> ContestantSummary:
    return next(s for s in analysis.summaries if s.name == name)


def ratio_of(name: str, rows: list[Record]) -> Ratio:
    reference = summary(name, analysis_of(rows)).reference
    assert reference is not None
    return reference.ratio


def test_a_contestant_keeps_median_and_every_block() -> None:
    fast = summary("fast", analysis_of(runs(FAST, 300, 100, 110)))
    assert fast.speeds == (300, 100, 110)
    assert fast.median == 110


def test_start_is_the_median_of_sums() -> None:
    phases = [(1, 0, 9), (9, 1, 0), (2, 2, 2)]
    rows = [
        fabricate.load(FAST, block, import_s=i, construct_s=c, first_batch_s=f)
        for block, (i, c, f) in enumerate(phases, 1)
    ]
    medians = summary("fast", analysis_of(rows)).medians
    assert medians["start_s"] == 10
    assert (medians["import_s"], medians["construct_s"], medians["first_batch_s"]) == (2, 1, 2)


def test_file_backed_memory_and_switches_per_second_are_medians_of_each_trial() -> None:
    memory = [(900.0, 100.0), (1000.0, 900.0), (1100.0, 500.0)]
    rows = [
        fabricate.load(FAST, block, peak_memory_mib=peak, peak_anon_memory_mib=anon, context_switches=n, window_s=s)
        for block, ((peak, anon), n, s) in enumerate(zip(memory, (100, 900, 800), (1.0, 3.0, 4.0), strict=True), 1)
    ]
    medians = summary("fast", analysis_of(rows)).medians
    assert (medians["file_backed_mib"], medians["context_switches_per_s"]) == (600, 200)  # of medians: 500 and 267


def test_ratio_pairs_blocks_and_has_a_t_interval_on_the_log() -> None:
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
def test_no_ratio_without_a_reference(rows: list[Record]) -> None:
    assert summary("fast", analysis_of(rows + runs(FAST, 300, 900))).reference is None


def test_order_is_by_median_and_those_without_a_speed_come_last() -> None:
    rows = runs(SLOW, 100, 110) + runs(FAST, 300, 310) + [fabricate.failed(REFERENCE, 1)]
    assert [s.name for s in analysis_of(rows).summaries] == ["fast", "slow", "reference"]


def test_ranks_are_ranges_where_the_test_does_not_decide() -> None:
    close = [1000.0, 1040, 990, 1050, 1010, 1030]
    rows = runs(FAST, *close) + runs(REFERENCE, *reversed(close)) + runs(SLOW, *[speed / 2 for speed in close])
    analysis = analysis_of(rows, blocks=6)
    assert {s.name: s.rank for s in analysis.summaries} == {"fast": (1, 2), "reference": (1, 2), "slow": (3, 3)}
    assert {s.name: s.faster_than for s in analysis.summaries}["fast"] == {"slow"}


def test_with_few_blocks_there_is_no_rank() -> None:
    analysis = analysis_of(runs(FAST, *[300] * 5) + runs(SLOW, *[100] * 5), blocks=5)
    assert {s.rank for s in analysis.summaries} == {None}


def test_of_several_attempts_the_quietest_counts_whatever_its_speed() -> None:
    again = [
        fabricate.load(FAST, 1, attempt=attempt, images_per_s=speed, steal_pct=steal)
        for attempt, speed, steal in ((1, 300.0, 9.0), (2, 100.0, 0.0), (3, 200.0, 0.0))
    ]
    analysis = analysis_of(again, blocks=1)
    assert summary("fast", analysis).speeds == (100,)
    assert analysis.counted == {again[1].trial}
    assert [record.trial for record, _ in analysis.flagged] == [again[0].trial]
    assert analysis.recorded == 1


def test_a_failure_does_not_choose_the_attempt_that_counts() -> None:
    first = [fabricate.load(actor, 1, images_per_s=300.0, steal_pct=9.0) for actor in (FAST, SLOW)]
    second = [fabricate.failed(FAST, 1, attempt=2), fabricate.load(SLOW, 1, attempt=2)]
    assert analysis_of(first + second, blocks=1).counted == {second[1].trial}


@pytest.mark.parametrize("own", [{"half_drift_pct": 50.0}, {"major_faults": 5000}])
def test_what_a_contestant_did_itself_does_not_choose_the_attempt_that_counts(own: dict[str, float]) -> None:
    first, second = fabricate.load(FAST, 1, **own), fabricate.load(FAST, 1, attempt=2)
    assert analysis_of([first, second], blocks=1).counted == {first.trial}


def test_an_unfinished_attempt_does_not_count_however_quiet() -> None:
    first = [fabricate.load(actor, 1, images_per_s=300, steal_pct=9) for actor in (FAST, SLOW)]
    assert summary("fast", analysis_of([*first, fabricate.load(FAST, 1, attempt=2)], blocks=1)).speeds == (300,)


def test_trials_with_data_in_a_bucket_have_no_part_in_the_ranking_and_are_planned() -> None:
    rows = [*runs(FAST, 300), fabricate.fetched(FAST, 1, "bounded", images_per_s=9.0, cache_peak_mib=65.0)]
    stream = fabricate.STREAM | {"streaming": [], "bounded": ["fast"], "downloading": ["slow"]}
    analysis = analyse(rows, fabricate.environment(CAST, 1, "reference", stream=stream)["campaign"])
    assert summary("fast", analysis).speeds == (300,)
    assert (analysis.recorded, analysis.planned) == (2, 3 + 2)
    bounded, download = analysis.by_transport
    assert (bounded.title, bounded.summary.median, bounded.bound_held) == ("Fast, streamed, cache bounded", 9.0, False)
    assert (download.title, download.summary.speeds, download.end_s) == ("Slow, downloaded first", (), None)


def test_cold_trials_have_no_part_in_the_ranking() -> None:
    rows = [*runs(FAST, 300), fabricate.load(FAST, 1, cache="cold", images_per_s=9.0, epoch1_images_per_s=20.0)]
    rows[0] = fabricate.load(FAST, 1, images_per_s=300.0, epoch1_images_per_s=40.0)
    campaign = fabricate.environment(CAST, 1, "reference")["campaign"] | {"cold": ["fast"]}
    analysis = analyse(rows, campaign)
    assert summary("fast", analysis).speeds == (300,)
    [cold] = analysis.cold_starts
    assert cold.ratio is not None
    assert cold.ratio.mean == pytest.approx(0.5)
    assert cold.states == "cold (1)"
    assert (analysis.planned, analysis.recorded) == (4, 2)


TUNED = (fabricate.CAST[0], fabricate.CAST[2], fabricate.CAST[8])
"""FFCV raw and JPEG, of which the search finds something better, and ImageFolder, the reference."""


def two_tracks(rows: list[Record] | None = None, blocks: int = 6) -> Analysis:
    """Of a campaign of TUNED whose searches are over; `rows`: in place of those in blocks."""
    names = [actor.name for actor in TUNED]
    found = [row for actor in TUNED for row in fabricate.searched(actor)]
    found += fabricate.finished(TUNED, blocks, (), names) if rows is None else rows
    return analyse(found, fabricate.environment(TUNED, blocks, names[-1], (), names)["campaign"])


def both(actor: fabricate.Actor, same: list[float], best: list[float]) -> list[Record]:
    return runs(actor, *same) + [fabricate.at_best(actor, block, images_per_s=s) for block, s in enumerate(best, 1)]


def test_trials_at_best_settings_and_of_searches_have_no_part_in_the_other_track() -> None:
    analysis = two_tracks()
    alone = analyse(fabricate.finished(TUNED, 6), fabricate.environment(TUNED, 6, TUNED[2].name)["campaign"])
    assert analysis.summaries == alone.summaries
    assert (analysis.controls, analysis.limits, analysis.least_difference) == (
        alone.controls,
        alone.limits,
        alone.least_difference,
    )
    assert (analysis.planned, analysis.recorded) == (36, 36)
    assert (alone.planned, alone.tuned) == (18, ())


def test_a_failure_at_its_best_is_no_trouble_at_equal_settings() -> None:
    analysis = two_tracks([*runs(TUNED[0], 100), fabricate.at_best(TUNED[0], 1, status="failed", reason="it broke")])
    [best] = [best for best in analysis.tuned if best.tuned.name == TUNED[0].name]
    assert (best.shared.trouble, best.tuned.trouble) == ("", "failed: it broke")
    assert [failure.title for failure in analysis.failures] == ["FFCV raw, tuned"]


def test_the_gain_is_paired_by_block() -> None:
    # Ratios 2, 4 and 8, as above.
    analysis = two_tracks(both(TUNED[0], [100, 200, 50], [200, 800, 400]), blocks=3)
    gain = analysis.tuned[0].gain
    assert gain is not None
    half = 4.302653 / math.sqrt(3)
    assert gain.ratio.mean == pytest.approx(4)
    assert (gain.ratio.low, gain.ratio.high) == pytest.approx((2 ** (2 - half), 2 ** (2 + half)), rel=1e-6)
    assert (gain.p, gain.verdict) == (None, "unresolved")


def test_those_at_their_best_are_ranked_among_themselves() -> None:
    analysis = two_tracks(
        both(TUNED[0], [300.0] * 6, [310.0] * 6)
        + both(TUNED[1], [200.0] * 6, [900.0] * 6)
        + both(TUNED[2], [100.0] * 6, [100.0] * 6)
    )
    assert [(b.tuned.title, b.tuned.rank) for b in analysis.tuned] == [
        ("FFCV JPEG", (1, 1)),
        ("FFCV raw", (2, 2)),
        ("ImageFolder 256 px", (3, 3)),
    ]
    assert [s.name for s in analysis.measured] == [actor.name for actor in TUNED]
    assert [b.gain.verdict for b in analysis.tuned if b.gain] == ["faster", "faster", "tie"]


def test_what_the_search_changed_is_told_and_nothing_where_it_found_nothing() -> None:
    changes = {b.tuned.title: b.changes for b in two_tracks().tuned}
    assert changes["FFCV raw"] == {"os_cache": False, "workers": 3}
    assert changes["ImageFolder 256 px"] == {"decode": "torchvision", "workers": 3}
    litdata = fabricate.CAST[4]
    campaign = fabricate.environment([litdata], 1, litdata.name, (), [litdata.name])["campaign"]
    [best] = analyse(fabricate.searched(litdata), campaign).tuned
    assert (best.changes, best.search.gains, best.gain) == ({}, (), None)


def test_more_than_its_bound_is_also_flagged_at_its_best() -> None:
    rows = [*runs(TUNED[0], 100), fabricate.at_best(TUNED[0], 1, pct_of_bound=110.0)]
    assert [s.title for s in two_tracks(rows).beyond_limit] == ["FFCV raw"]


def test_limits_are_medians_and_who_passes_them_by_more_than_can_be_told_is_flagged() -> None:
    limits = [fabricate.limit("crop", block, speed) for block, speed in enumerate((900.0, 1000.0, 1100.0), 1)]
    rows = [fabricate.load(FAST, 1, pct_of_bound=103.0), fabricate.load(SLOW, 1, pct_of_bound=101.0)]
    other = fabricate.limit("crop", 1, 1.0, attempt=2)  # of an attempt that does not count
    analysis = analysis_of([*limits, other, *rows, *runs(REFERENCE, 10, 10, 10)])
    assert analysis.limits == {"crop": 1000}
    assert [s.name for s in analysis.beyond_limit] == ["fast"]


def test_a_limit_that_failed_is_a_failure_and_one_that_this_machine_lacks_is_not() -> None:
    crop = fabricate.limit("crop", 1)
    rows = [
        replace(crop, status="timeout", reason="killed", images_per_s=None),
        replace(crop, title="host-to-device", status="unavailable", reason="no GPU", images_per_s=None),
    ]
    analysis = analysis_of(rows)
    assert [(failure.kind, failure.title) for failure in analysis.failures] == [("limit", "crop")]
    assert analysis.limits_missing == {"crop": "killed", "host-to-device": "no GPU"}


def test_one_contestant_with_few_blocks_does_not_make_the_others_descriptive() -> None:
    rows = runs(FAST, *[300] * 6) + runs(REFERENCE, *[100] * 6) + runs(SLOW, 50, 50)
    analysis = analysis_of(rows, blocks=6)
    assert not analysis.descriptive
    assert {s.name: s.rank for s in analysis.summaries} == {"fast": (1, 2), "reference": (2, 3), "slow": None}


@pytest.mark.parametrize(("blocks", "descriptive"), [(5, True), (6, False)])
def test_fewer_than_six_blocks_are_descriptive(blocks: int, descriptive: bool) -> None:  # noqa: FBT001
    rows = runs(FAST, *range(300, 300 + blocks)) + runs(REFERENCE, *range(100, 100 + blocks))
    assert analysis_of(rows, blocks=6).descriptive is descriptive


@pytest.mark.parametrize("status", ["failed", "timeout", "invalid", "unavailable"])
def test_what_is_not_ok_has_no_speed_and_says_why(status: str) -> None:
    # Even if a figure was written before the trial was found wrong.
    bad = fabricate.load(FAST, 2, status=status, reason="broken", images_per_s=99_999.0)
    analysis = analysis_of([*runs(FAST, 300), bad])
    fast = summary("fast", analysis)
    assert fast.speeds == (300,)
    assert fast.trouble == f"{status}: broken"
    assert analysis.failures == (
        Failure(kind="load", title="Fast", status=status, reason="broken", rows=1, blocks=(2,)),
    )


def test_equal_failures_are_one_with_all_their_blocks() -> None:
    rows = [fabricate.failed(FAST, block) for block in (3, 1, 2)]
    rows.append(fabricate.failed(FAST, 1, attempt=2))
    (failure,) = analysis_of(rows).failures
    assert (failure.rows, failure.blocks) == (4, (1, 2, 3))


def test_a_trial_run_again_counts_by_its_latest_row() -> None:
    analysis = analysis_of([fabricate.failed(FAST, 1), *runs(FAST, 300)])
    assert summary("fast", analysis).speeds == (300,)
    assert analysis.recorded == 1
    assert len(analysis.failures) == 1


def test_planned_trials_are_counted_against_recorded_ones() -> None:
    rows = [fabricate.write("ffcv-raw"), *runs(FAST, 300, 310), fabricate.failed(SLOW, 1)]
    analysis = analysis_of(rows)
    assert (analysis.planned, analysis.recorded) == (9, 3)


def test_the_latest_conversion_of_each_format_is_kept() -> None:
    rows = [fabricate.write("ffcv-raw", status="failed"), fabricate.write("ffcv-raw", write_synced_s=3.0)]
    (write,) = analysis_of(rows).writes
    assert write.write_synced_s == 3


def test_what_was_not_measured_is_absent_and_not_zero() -> None:
    analysis = analysis_of([fabricate.load(FAST, 1, gpu_reason="no driver", cpu_load_pct=None)])
    assert not summary("fast", analysis).medians.keys() & {"gpu_util_pct", "cpu_load_pct"}
    assert analysis.gpu_reason == "no driver"


def test_a_gpu_figure_missing_from_many_trials_is_explained_once() -> None:
    rows = [fabricate.load(FAST, 1, gpu_reason="no power; no energy"), fabricate.load(FAST, 2, gpu_reason="no energy")]
    assert analysis_of(rows).gpu_reason == "no energy; no power"


def test_no_rows_are_no_error() -> None:
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
def test_figures_are_shown_with_three_digits_and_counts_whole(value: float, text: str) -> None:
    assert shown(value) == text


def test_other_work_is_held_against_the_reference_and_not_ranked() -> None:
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
def test_who_has_work_of_its_own_is_not_ranked_with_the_others(own: dict[str, Any], reason: str) -> None:
    rows = [row for a in (FAST, REFERENCE) for row in runs(a, *[a.images_per_s] * 6)]
    campaign = fabricate.environment(CAST, 6, "reference")["campaign"]
    [fast] = [contestant for contestant in campaign["contestants"] if contestant["name"] == "fast"]
    fast.update(own)
    analysis = analyse(rows, campaign, {name: fabricate.certificate() for name in ("fast", "reference")})
    assert summary("fast", analysis).unranked_reason == reason
    assert ("fast" in [s.name for s in analysis.ranked]) == (not reason)


def test_where_the_reference_does_other_work_the_others_are_ranked_and_yet_held_against_it() -> None:
    rows = [row for a, speed in ((FAST, 300), (SLOW, 100), (REFERENCE, 200)) for row in runs(a, *[speed] * 6)]
    certified = dict.fromkeys(("fast", "slow"), fabricate.certificate())
    certified["reference"] = fabricate.certificate(faults=("no image is flipped",))
    analysis = analyse(rows, fabricate.environment(CAST, 6, "reference")["campaign"], certified)
    assert [(s.name, s.rank) for s in analysis.measured] == [("fast", (1, 1)), ("slow", (2, 2)), ("reference", None)]
    ratios = [s.reference.ratio.mean for s in analysis.ranked if s.reference]
    assert ratios == [pytest.approx(1.5), pytest.approx(0.5)]


def test_failures_of_different_variants_are_told_apart() -> None:
    rows = [fabricate.failed(FAST, 1), fabricate.failed(FAST, 1, cache="cold", trial="1/fast/cold")]
    assert [(f.title, f.blocks) for f in analysis_of([*runs(SLOW, 100), *rows]).failures] == [
        ("Fast", (1,)),
        ("Fast, cold cache", (1,)),
    ]


def test_contestants_and_formats_of_one_title_are_told_apart_by_their_names() -> None:
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
