"""The shipped campaigns are valid, have the promised contestants, and can be changed and extended."""

from __future__ import annotations

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.campaign import plan, schema
from loaderbench.campaign.campaign import CampaignError
from loaderbench.campaign.forecast import expected_s


def test_shipped_campaigns_are_valid_and_named_like_their_file() -> None:
    for path in config.CAMPAIGNS.glob("*.toml"):
        assert config.load(path.stem).name == path.stem


def test_a_dumped_campaign_is_read_back_unchanged() -> None:
    for path in config.CAMPAIGNS.glob("*.toml"):
        campaign = config.load(path.stem)
        assert config.Campaign.model_validate(campaign.model_dump(mode="json")) == campaign


def test_quick_campaign_has_the_promised_contestants() -> None:
    contestants = [c for c in config.load("quick").contestants if not c.control]
    settings = {(c.loader, c.format, *c.options.values()) for c in contestants}
    assert settings == {
        ("ffcv", "ffcv-raw", True),
        ("ffcv", "ffcv-raw", False),
        ("ffcv", "ffcv-jpeg", True),
        ("ffcv", "ffcv-jpeg", False),
        ("litdata", "litdata-raw"),
        ("litdata", "litdata-jpeg"),
        ("imagefolder", "original", "pil"),
        ("imagefolder", "original", "torchvision"),
        ("imagefolder", "jpeg-files", "pil"),
        ("imagefolder", "jpeg-files", "torchvision"),
        ("threads", "jpeg-files"),
    }


def test_gpu_campaign_delivers_to_the_gpu_and_trains_on_it() -> None:
    campaign = config.load("gpu")
    assert {campaign.work_on(1, 1, c).device for c in campaign.contestants} == {"cuda"}
    assert {c.name: c.work.dtype for c in campaign.competing if c.work.dtype} == {
        "ffcv-jpeg-float16": "float16",
        "ffcv-jpeg-float16-gpu": "float16",
        "imagefolder-256-float16": "float16",
    }
    assert [c.name for c in campaign.competing if c.apart] == ["nvjpeg"]
    assert campaign.consumers.train
    assert campaign.consumers.train.options.model == "resnet50"
    assert set(campaign.consumers.train.contestants) == {c.name for c in campaign.competing} | {
        "pace-pinned",
        "pace-device",
    }


def test_gpu_campaign_has_controls_of_known_speed_in_the_cpus_memory_and_on_the_gpu() -> None:
    campaign = config.load("gpu")
    assert {c.name: c.options for c in campaign.contestants if c.control == "known"} == {
        "pace-pinned": {"images_per_s": 1500.0, "cpu_memory": "pinned"},
        "pace-device": {"images_per_s": 1500.0},
    }


def test_gpu_workers_campaign_trains_resnet50_with_1_to_16_workers_on_16_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "core_count", lambda: 16)
    campaign = config.load("gpu-workers")
    assert campaign.consumers.train
    assert campaign.consumers.train.options.model == "resnet50"
    trained = [trial for trial in plan.trials(campaign, 1) if trial.variant.consumer == "train"]
    by_workers = {trial.variant.workers or campaign.work.count_workers() for trial in trained}
    assert by_workers == {1, 2, 4, 8, 16}
    assert {trial.contestant.name for trial in trained} == {c.name for c in campaign.competing} | {"pace-pinned"}
    timed_s = len(trained) * (campaign.consumers.train.warmup_s + campaign.consumers.train.window_s)
    assert campaign.timing.blocks == 1
    assert timed_s < 300  # of ten minutes; the rest is for starting


def test_formats_campaign_has_each_format_of_ffcv_at_its_published_sizes() -> None:
    campaign = config.load("ffcv-formats")
    formats = {f.name: (f.mode, f.quality, f.max_side) for f in campaign.formats}
    jpegs = {
        (f"jpeg{quality}-{side}", ("jpeg", quality, side)) for quality in (75, 90, 100) for side in (256, 384, 512)
    }
    others = {
        ("raw-256", "raw", 256),
        ("raw-512", "raw", 512),
        ("half-256", "proportion", 256),
        ("smart-256", "smart", 256),
    }
    assert formats == dict(jpegs) | {name: (mode, 90, side) for name, mode, side in others}
    assert [(c.name, c.format, c.loader) for c in campaign.competing] == [(name, name, "ffcv") for name in formats]
    trials = [trial for block in range(1, campaign.timing.blocks + 1) for trial in plan.trials(campaign, block)]
    content = campaign.model_dump()
    of_one_size = [form | {"max_side": 256, "quality": 90} for form in content["formats"]]
    alike = config.Campaign.model_validate({**content, "formats": of_one_size})
    assert expected_s(alike, trials, 4096) < expected_s(campaign, trials, 4096) < 720


def test_error_for_an_unknown_campaign_names_the_shipped_ones() -> None:
    with pytest.raises(CampaignError, match=r"shipped are .*quick"):
        config.load("slow")


def test_overrides_replace_single_keys() -> None:
    campaign = config.load("quick", {"timing": {"blocks": 7}})
    assert campaign.timing.blocks == 7
    assert campaign.timing.window_s == config.load("quick").timing.window_s


def test_forecast_is_longer_for_longer_campaigns() -> None:
    quick, publish = config.load("quick"), config.load("publish")
    one, two = (plan.trials(quick, 1), plan.trials(quick, 1) + plan.trials(quick, 2))
    assert expected_s(quick, one, 4096) < expected_s(quick, two, 4096) < expected_s(publish, two, 4096)
    standard, train = config.load("standard"), config.load("train")
    assert expected_s(standard, plan.trials(standard, 1), 4096) > expected_s(quick, one, 4096)
    assert expected_s(train, plan.trials(train, 1), 4096) > expected_s(quick, one, 4096)


def test_search_starts_with_overrides_and_the_loaders_defaults() -> None:
    settings = config.load("best", {"work": {"workers": 7}}).best["litdata-raw"].settings
    assert (settings["workers"][0], settings["prefetch_factor"][0]) == (7, 2)


def test_best_campaign_tunes_one_contestant_per_loader_and_format() -> None:
    campaign = config.load("best")
    pairs = [(c.loader, c.format) for c in campaign.contestants if c.name in campaign.best]
    assert sorted(pairs) == sorted({(c.loader, c.format) for c in campaign.contestants if not c.control})
    assert campaign.contestants == config.load("quick").contestants


def test_forecast_includes_the_search() -> None:
    campaign = config.load("best")
    trials = plan.trials(campaign, 1)
    assert expected_s(campaign, trials, 4096, 60) > expected_s(campaign, trials, 4096)
