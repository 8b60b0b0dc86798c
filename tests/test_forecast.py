"""Time limits and forecasts follow from what a trial must load."""

from __future__ import annotations

from pathlib import Path

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.campaign import forecast, plan
from loaderbench.campaign.variant import MAIN, Variant
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.run import runner
from tests.campaigns import Ready, campaign

QUICK, STREAM = config.load("quick"), config.load("stream")
COLD, STREAMED, TRAINED = Variant(cache="cold"), Variant(transport="stream"), Variant(consumer="train")
IMAGENET = 1_281_167


@pytest.mark.parametrize(
    ("campaign", "variant", "samples", "limit_s"),
    [
        (QUICK, MAIN, IMAGENET, QUICK.timing.limit_s),
        (QUICK, COLD, 200_000, 2 + 2000),
        (QUICK, COLD, 4096, 2 + 163.84),
        (STREAM, STREAMED, IMAGENET, STREAM.timing.warmup_s + 20 * 12811.67),
        (config.load("train"), TRAINED, IMAGENET, config.load("train").timing.limit_s),
        (config.load("quick", {"work": {"batch_size": 1024}}), MAIN, 4096, 2 + 80 * 10.24),
    ],
)
def test_a_trial_has_time_for_all_that_it_must_load_at_100_images_per_s(
    campaign: config.Campaign, variant: Variant, samples: int, limit_s: float
) -> None:
    assert forecast.limit_s(campaign, variant, samples) == pytest.approx(limit_s)


def test_forecast_of_whole_epochs_grows_with_the_data_set_and_that_of_windows_does_not() -> None:
    standard = config.load("standard")
    warm, cold = ([trial for trial in plan.trials(standard, 1) if trial.variant == v] for v in (MAIN, COLD))
    few, many = (forecast.expected_s(standard, warm, samples) for samples in (4096, IMAGENET))
    assert many == pytest.approx(few, rel=0.05)
    per_image_s = [forecast.expected_s(standard, cold, samples) / samples / len(cold) for samples in (10**6, 2 * 10**6)]
    assert per_image_s == pytest.approx([1 / 2500] * 2, rel=0.05)


def test_forecast_of_a_whole_campaign_follows_its_selection() -> None:
    few = QUICK.limited_to(["ffcv-raw-mapped"])
    assert 5 < forecast.whole_s(QUICK, 4096) / forecast.whole_s(few, 4096) < len(QUICK.contestants)


@pytest.mark.usefixtures("forked")
def test_a_loader_too_slow_to_finish_an_epoch_is_measured_on_a_part_of_it(ready: Ready, tmp_path: Path) -> None:
    """An epoch of 1,000,000 images takes this one more than an hour; its time limit is a minute."""
    slow = campaign({"slow": {"loader": "pace", "options": {"images_per_s": 200.0}}}, blocks=1, limit_s=60)
    large = slow.model_copy(update={"work": slow.work.model_copy(update={"epoch_images": 1_000_000})})
    folder = runner.run(large, ready(large), tmp_path, Display())
    [row] = [row for row in trials_csv.read(folder / "trials.csv") if row.kind == "load"]
    assert (row.status, row.reason, row.epoch1_images_per_s) == ("ok", "", None)
    assert row.window_images
