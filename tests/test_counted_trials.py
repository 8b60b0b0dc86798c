"""Which trials count: the quietest complete attempt, and only the warm trials with shared settings in the ranking."""

from __future__ import annotations

import math

import pytest

from loaderbench.findings.analysis import analyse
from loaderbench.findings.findings import Analysis
from loaderbench.records.record import Record
from tests import fabricate
from tests.analysed import CAST, FAST, SLOW, analysis_of, runs, summary


def test_the_quietest_attempt_counts_regardless_of_its_speed() -> None:
    again = [
        fabricate.load(FAST, 1, attempt=attempt, images_per_s=speed, steal_pct=steal)
        for attempt, speed, steal in ((1, 300.0, 9.0), (2, 100.0, 0.0), (3, 200.0, 0.0))
    ]
    analysis = analysis_of(again, blocks=1)
    assert summary("fast", analysis).speeds == (100,)
    assert analysis.counted == {again[1].trial}
    assert [record.trial for record, _ in analysis.flagged] == [again[0].trial]
    assert analysis.recorded == 1


def test_a_failure_does_not_choose_the_attempt() -> None:
    first = [fabricate.load(actor, 1, images_per_s=300.0, steal_pct=9.0) for actor in (FAST, SLOW)]
    second = [fabricate.failed(FAST, 1, attempt=2), fabricate.load(SLOW, 1, attempt=2)]
    assert analysis_of(first + second, blocks=1).counted == {second[1].trial}


@pytest.mark.parametrize("own", [{"window_drift_pct": 50.0}, {"major_faults": 5000}])
def test_effects_of_the_contestant_do_not_choose_the_attempt(own: dict[str, float]) -> None:
    first, second = fabricate.load(FAST, 1, **own), fabricate.load(FAST, 1, attempt=2)
    assert analysis_of([first, second], blocks=1).counted == {first.trial}


def test_an_unfinished_attempt_does_not_count() -> None:
    first = [fabricate.load(actor, 1, images_per_s=300, steal_pct=9) for actor in (FAST, SLOW)]
    assert summary("fast", analysis_of([*first, fabricate.load(FAST, 1, attempt=2)], blocks=1)).speeds == (300,)


def test_bucket_trials_are_planned_and_not_ranked() -> None:
    rows = [*runs(FAST, 300), fabricate.fetched(FAST, 1, "bounded", images_per_s=9.0, cache_peak_mib=65.0)]
    stream = fabricate.STREAM | {"streaming": [], "bounded": ["fast"], "downloading": ["slow"]}
    analysis = analyse(rows, fabricate.environment(CAST, 1, "reference", stream=stream)["campaign"])
    assert summary("fast", analysis).speeds == (300,)
    assert (analysis.recorded, analysis.planned) == (2, 3 + 2)
    bounded, download = analysis.by_transport
    assert (bounded.title, bounded.summary.median, bounded.bound_held) == ("Fast, streamed, cache bounded", 9.0, False)
    assert (download.title, download.summary.speeds, download.end_s) == ("Slow, downloaded first", (), None)


def test_an_unread_cache_size_is_not_called_over_its_limit() -> None:
    stream = fabricate.STREAM | {"streaming": [], "bounded": ["fast"], "downloading": []}
    campaign = fabricate.environment(CAST, 1, "reference", stream=stream)["campaign"]
    [bounded] = analyse([fabricate.fetched(FAST, 1, "bounded", cache_peak_mib=None)], campaign).by_transport
    assert bounded.bound_held is None


def test_cold_trials_are_not_ranked() -> None:
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
"""ImageFolder, the reference, and FFCV raw and JPEG, for which the search finds better settings."""


def two_tracks(rows: list[Record] | None = None, blocks: int = 6) -> Analysis:
    """Analyse a campaign of TUNED with finished searches; `rows` replace those of the blocks."""
    names = [actor.name for actor in TUNED]
    found = [row for actor in TUNED for row in fabricate.searched(actor)]
    found += fabricate.finished(TUNED, blocks, (), names) if rows is None else rows
    return analyse(found, fabricate.environment(TUNED, blocks, names[-1], (), names)["campaign"])


def both(actor: fabricate.Actor, same: list[float], best: list[float]) -> list[Record]:
    return runs(actor, *same) + [fabricate.at_best(actor, block, images_per_s=s) for block, s in enumerate(best, 1)]


def test_tuned_trials_and_searches_leave_the_shared_track_unchanged() -> None:
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


def test_a_failure_of_a_tuned_trial_leaves_the_shared_track_unchanged() -> None:
    analysis = two_tracks([*runs(TUNED[0], 100), fabricate.at_best(TUNED[0], 1, status="failed", reason="it broke")])
    [best] = [best for best in analysis.tuned if best.tuned.name == TUNED[0].name]
    assert (best.shared.trouble, best.tuned.trouble) == ("", "failed: it broke")
    assert [failure.title for failure in analysis.failures] == ["FFCV raw, tuned"]


def test_the_gain_of_tuning_is_paired_by_block() -> None:
    # Ratios 2, 4 and 8, as above.
    analysis = two_tracks(both(TUNED[0], [100, 200, 50], [200, 800, 400]), blocks=3)
    gain = analysis.tuned[0].gain
    assert gain is not None
    half = 4.302653 / math.sqrt(3)
    assert gain.ratio.mean == pytest.approx(4)
    assert (gain.ratio.low, gain.ratio.high) == pytest.approx((2 ** (2 - half), 2 ** (2 + half)), rel=1e-6)
    assert (gain.p, gain.verdict) == (None, "unresolved")


def test_tuned_contestants_are_ranked_among_themselves() -> None:
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


def test_tuned_contestants_list_the_changed_settings() -> None:
    changes = {b.tuned.title: b.changes for b in two_tracks().tuned}
    assert changes["FFCV raw"] == {"os_cache": False, "workers": 3}
    assert changes["ImageFolder 256 px"] == {"decode": "torchvision", "workers": 3}
    litdata = fabricate.CAST[4]
    campaign = fabricate.environment([litdata], 1, litdata.name, (), [litdata.name])["campaign"]
    [best] = analyse(fabricate.searched(litdata), campaign).tuned
    assert (best.changes, best.search.gains, best.gain) == ({}, (), None)


def test_a_tuned_contestant_beyond_its_limit_is_flagged() -> None:
    rows = [*runs(TUNED[0], 100), fabricate.at_best(TUNED[0], 1, pct_of_bound=110.0)]
    assert [s.title for s in two_tracks(rows).beyond_limit] == ["FFCV raw"]


def test_the_latest_row_of_a_trial_counts() -> None:
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
