"""Forecast of a campaign's duration, from averages seen on 2 cores."""

from __future__ import annotations

from collections.abc import Sequence

from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.plan import Trial

_AROUND_WINDOW_S = 8.5
"""Starting, importing, compiling, pausing and ending a trial."""
_COLD_S = 15
"""A cold trial, which is one epoch long."""
_AROUND_FEEDING_S = 25
"""Starting a trial, and training on one batch or the sweep of demands."""
_AROUND_STAGES_S = 5
"""Starting the processes that measure the machine limits."""
_STAGES = 8
_AROUND_FETCHING_S = 10
"""Starting, compiling and downloading."""
_FETCHED_IMAGES_PER_S = 3000


def expected_s(campaign: Campaign, trials: Sequence[Trial], searching: int = 0) -> float:
    """Return about how long trials and the machine limits of their blocks take. `searching`: trials of searches.

    It leaves out what a limited network adds, see `loaderbench.run.bucket_under_test.network_s`.
    """
    timing, tuning, stream = campaign.timing, campaign.tuning, campaign.stream
    total_s = searching * (tuning.warmup_s + tuning.window_s + _AROUND_WINDOW_S)
    if timing.stage_s:
        total_s += len({trial.block for trial in trials}) * (_AROUND_STAGES_S + _STAGES * timing.stage_s)
    for variant in (trial.variant for trial in trials):
        if variant.cache == "cold":
            total_s += _COLD_S
        elif variant.consumer != "hungry":
            feeding = campaign.feedings[variant.consumer]
            total_s += feeding.warmup_s + feeding.window_s + _AROUND_FEEDING_S
        elif variant.transport and stream:
            images = stream.epochs * (campaign.data.samples or campaign.work.epoch_images)
            total_s += _AROUND_FETCHING_S + images / _FETCHED_IMAGES_PER_S
        else:
            total_s += timing.warmup_s + timing.window_s + _AROUND_WINDOW_S
    return total_s
