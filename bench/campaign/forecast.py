"""Forecast of a campaign's duration, from averages seen on 2 cores, and the time limits of its trials."""

from collections.abc import Sequence

from loaderbench.campaign import plan, tuning
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.plan import Trial
from loaderbench.campaign.variant import Variant

SLOWEST_IMAGES_PER_S = 100
"""A trial is killed if it is slower than this at what it must load, and takes longer than `timing.limit_s`."""
_IMAGES_PER_S = 2500
_AROUND_WINDOW_S = 8.5
"""Starting, importing, compiling, pausing and ending a trial."""
_AROUND_FEEDING_S = 25
"""Starting a trial, and training on one batch or the sweep of demands."""
_AROUND_STAGES_S = 5
"""Starting the processes that measure the machine limits."""
_STAGES = 10
_AROUND_FETCHING_S = 10
"""Starting, compiling and downloading."""
_SHARE_OF_LIMIT = 0.75
EPOCHS_BEFORE = 1
"""Epochs that fill a limited page cache, before the window."""


def limit_s(campaign: Campaign, variant: Variant, samples: int) -> float:
    """Return the time limit of a trial in seconds, without the time that a limited network takes.

    It is `timing.limit_s`, or longer if what the trial must load takes longer at `SLOWEST_IMAGES_PER_S`.
    """
    timing, feeding = campaign.timing, campaign.feedings.get(variant.consumer)
    around = feeding or timing
    batches = around.window_batches * campaign.work.batch_size * campaign.work.processes
    images = whole_epochs(campaign, variant) * _epoch_images(campaign, variant, samples) or batches
    return max(timing.limit_s, around.warmup_s + images / SLOWEST_IMAGES_PER_S)


def whole_epoch_s(campaign: Campaign) -> float:
    """Return how long a warm trial's first epoch may take to be finished although the window is closed."""
    return _SHARE_OF_LIMIT * campaign.timing.limit_s


def expected_s(campaign: Campaign, trials: Sequence[Trial], samples: int, searching: int = 0) -> float:
    """Return about how long trials and the machine limits of their blocks take. `searching`: trials of searches.

    `samples`: of the data set. It leaves out what a limited network adds, see
    `loaderbench.run.bucket_under_test.network_s`.
    """
    timing, search = campaign.timing, campaign.tuning
    total_s = searching * (search.warmup_s + search.window_s + _AROUND_WINDOW_S)
    if timing.stage_s:
        sets = {(form.max_side, form.quality) for form in campaign.selected_formats}  # of images, each with its limits
        blocks = {trial.block for trial in trials}
        total_s += len(blocks) * len(sets) * (_AROUND_STAGES_S + _STAGES * timing.stage_s)
    for variant in (trial.variant for trial in trials):
        epoch_s = _epoch_images(campaign, variant, samples) / _IMAGES_PER_S
        if epochs := whole_epochs(campaign, variant):
            total_s += (_AROUND_FETCHING_S if variant.transport else _AROUND_WINDOW_S) + epochs * epoch_s
        elif feeding := campaign.feedings.get(variant.consumer):
            total_s += feeding.warmup_s + feeding.window_s + _AROUND_FEEDING_S
        else:
            finished_s = epoch_s if epoch_s <= whole_epoch_s(campaign) else 0
            total_s += max(timing.warmup_s + timing.window_s, finished_s) + _AROUND_WINDOW_S
    return total_s


def whole_s(campaign: Campaign, samples: int) -> float:
    """Return about how long the selected trials of all blocks and their searches take, as `expected_s` does."""
    trials = [trial for block in range(1, campaign.timing.blocks + 1) for trial in plan.trials(campaign, block)]
    searched = [campaign.best[c.name] for c in campaign.selected if c.name in campaign.best]
    return expected_s(campaign, trials, samples, sum(tuning.likely_trials(b, campaign.tuning) for b in searched))


def whole_epochs(campaign: Campaign, variant: Variant) -> int:
    """Return how many whole epochs a trial must load; 0 if a window of a minimum length is enough."""
    if variant.transport and campaign.stream:
        return campaign.stream.epochs
    if campaign.limited:
        return EPOCHS_BEFORE + campaign.limited.epochs
    return int(variant.cache == "cold")


def _epoch_images(campaign: Campaign, variant: Variant, samples: int) -> int:
    """Return how many images an epoch has; the cache would answer further visits to data from a bucket."""
    return samples * (1 if variant.transport else campaign.work_on(samples, 1).passes)
