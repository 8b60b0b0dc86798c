"""A campaign with data in a bucket is refused before it starts if it cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loaderbench import cli
from loaderbench.bucket import rclone
from loaderbench.campaign import campaign as config
from loaderbench.campaign.campaign import CampaignError
from loaderbench.machine.errors import FixableError
from loaderbench.run import bucket_under_test as remote

MIB = 1 << 20


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"streaming": ["imagefolder-256-pil"]}, "cannot read from a bucket; list it in stream.downloading"),
        ({"bounded": ["litdata-jpeg"]}, "stream.cache_mib is missing"),
        ({"downloading": ["imagefolder-original-pil"]}, "links to local files"),
        ({"downloading": ["nobody"]}, "stream.downloading: unknown contestant nobody"),
        ({"downloading": [], "epochs": 1}, "greater than or equal to 2"),
    ],
)
def test_campaigns_that_cannot_stream_are_refused_with_the_reason(
    tmp_path: Path, table: dict[str, Any], said: str
) -> None:
    with pytest.raises(CampaignError, match=said):
        config.load("quick", {"stream": table})


@pytest.mark.parametrize("several", ["ranks", "jobs"])
def test_streaming_with_several_processes_is_refused(several: str) -> None:
    with pytest.raises(CampaignError, match="stream needs a single process"):
        config.load("stream", {"work": {several: 2}})


def test_a_missing_rclone_is_reported_before_anything_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rclone, "_INSTALLED_WITH", {"rclone": "make setup"})
    monkeypatch.setattr(rclone.shutil, "which", lambda name, path: None if name == "rclone" else name)
    monkeypatch.setattr("sys.argv", ["loaderbench", "bench", "stream", "--cache", str(tmp_path / "cache")])
    monkeypatch.setattr("loaderbench.formats.prepare", lambda *_, **__: pytest.fail("prepared"))
    with pytest.raises(FixableError, match="rclone is not installed"):
        cli.app(standalone_mode=False)
    remote.check(config.load("stream"), "s3://ready")
    remote.check(config.load("quick"), None)


def test_a_bounded_cache_multiplies_the_network_time_by_the_epochs() -> None:
    settings = config.load("stream", {"stream": {"epochs": 20, "rate_mib_per_s": 50}}).stream
    assert settings
    once, again = (remote.network_s(settings, transport, 500 * MIB) for transport in ("download", "bounded"))
    assert (once, again) == (10, 200)
    assert remote.network_s(settings.model_copy(update={"rate_mib_per_s": None}), "bounded", 500 * MIB) == 0
