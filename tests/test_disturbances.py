"""A trial is flagged for each disturbance; only disturbances from outside repeat its block."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from loaderbench.campaign import disturbances
from loaderbench.report import report
from tests import fabricate

if TYPE_CHECKING:
    from pathlib import Path


ACTOR = fabricate.CAST[0]
QUIET = fabricate.load(
    ACTOR,
    1,
    steal_pct=0.5,
    other_cpu_pct=2.0,
    canary_drift_pct=-5.0,
    window_images=128 * 80,
    window_drift_pct=8.0,
    window_drift_error_pct=2.5,
    major_faults=20,
    thermal_throttle_events=0,
    quota_throttle_events=0,
    prefetch_bias_bound_pct=5.0,
    cache_state="warm",
)


def test_a_quiet_trial_has_no_flags() -> None:
    assert disturbances.flags(QUIET) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steal_pct": 0.6}, "the hypervisor took 0.6 %"),
        ({"other_cpu_pct": 2.1}, "other processes used 2.1 %"),
        ({"canary_drift_pct": -5.1}, "the time of a fixed piece of work changed by -5.1 %"),
        ({"window_drift_pct": -8.1}, "the halves of the window differ by -8.1 %"),
        ({"window_drift_pct": 4.0, "window_drift_error_pct": 0.4}, "the halves of the window differ by +4.0 %"),
        ({"major_faults": 21}, "21 page faults had to read"),
        ({"thermal_throttle_events": 1}, "cores were slowed for their heat 1 times"),
        ({"quota_throttle_events": 3}, "a CPU quota was used up 3 times"),
        ({"other_cpu_pct": 1.0, "cores_used": 32.0, "cpu_load_pct": 50.0}, "other processes used 1.0 %"),
        ({"pct_of_bound": 29_297.0}, "it reaches 29,297 % of the machine limit"),
        ({"prefetch_bias_bound_pct": 5.1}, "prefetching may account for 5.1 % of images/s"),
        ({"cache_state": "unproven"}, "the warm page cache is not verified"),
        (
            {"cache_state": "unproven", "resident_pct": 100.0, "resident_after_pct": 40.0, "window_read_bytes": 5},
            "not verified: 100 % of the format in it before the trial, 40 % after it, 5 bytes read",
        ),
        ({"gpu_throttle": "software power cap"}, "the GPU was slowed: software power cap"),
    ],
)
def test_each_disturbance_flags_a_trial(change: dict[str, Any], said: str) -> None:
    [sign] = disturbances.flags(replace(QUIET, **change))
    assert said in sign


@pytest.mark.parametrize(
    ("change", "flagged"), [({"window_drift_pct": 8.0}, 0), ({"window_drift_pct": 8.1}, 1), ({"throttle_events": 1}, 1)]
)
def test_rows_of_earlier_schemas_are_flagged_by_their_own_rules(change: dict[str, Any], flagged: int) -> None:
    """They have no error of the drift: two workers may hold a batch more in one half of 40."""
    earlier = replace(QUIET, schema=5, window_drift_error_pct=None, workers=2, batch_size=128)
    assert len(disturbances.flags(replace(earlier, **change))) == flagged


def test_cold_trials_are_flagged_only_if_unverified() -> None:
    cold = replace(QUIET, cache="cold", cache_state="guest-cold", window_drift_pct=50.0, major_faults=5000)
    assert disturbances.flags(cold) == ()
    assert disturbances.flags(replace(cold, cache_state="unproven")) == (
        "the cold page cache is not verified: 0 bytes read",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"window_drift_pct": -50.0},
        {"major_faults": 5000},
        {"prefetch_bias_bound_pct": 5.1},
        {"pct_of_bound": 29_297.0},
        {"cache_state": "unproven"},
        {"thermal_throttle_events": 1},
        {"gpu_throttle": "x"},
    ],
)
def test_effects_of_the_trial_itself_are_flagged_but_do_not_repeat_it(change: dict[str, Any]) -> None:
    assert disturbances.flags(replace(QUIET, **change))
    assert disturbances.disturbances(replace(QUIET, **change)) == ()


@pytest.mark.parametrize("change", [{"steal_pct": 9.0}, {"other_cpu_pct": 9.0}, {"canary_drift_pct": 9.0}])
def test_disturbances_from_outside_repeat_the_block(change: dict[str, Any]) -> None:
    assert disturbances.disturbances(replace(QUIET, **change)) == disturbances.flags(replace(QUIET, **change)) != ()


def test_a_failed_trial_has_no_flags() -> None:
    assert disturbances.flags(replace(QUIET, status="failed", steal_pct=50.0)) == ()


@pytest.mark.usefixtures("one_picture")
def test_flagged_trials_are_listed_and_still_count(tmp_path: Path) -> None:
    rows = [replace(QUIET, trial="1/a"), replace(QUIET, trial="2/a", block=2, other_cpu_pct=40.0)]
    made = fabricate.campaign(tmp_path / "made", rows, cast=[ACTOR], blocks=2)
    text = report.write(made, tmp_path / "out").read_text()
    assert "| 2/a |" in text
    assert "1 of 2 measured trials show signs of disturbance" in text
