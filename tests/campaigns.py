"""Small campaigns for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from loaderbench.campaign.campaign import Campaign
from loaderbench.formats import Prepared

Ready = Callable[[Campaign], Prepared]
"""The type of the fixture `ready`."""

TOML = """
name = "small"
question = "?"
reference = "a"
data = { probe = 0 }
work = { batch_size = 8, workers = 1, image_size = 32, epoch_images = 96 }
formats = [{ name = "files", title = "files", writer = "imagefolder", mode = "jpeg", max_side = 64 }]

[timing]
blocks = 1
warmup_s = 0.05
window_s = 0.3
window_batches = 1
pause_s = 0.1
limit_s = 600
stage_s = 0

[[contestants]]
name = "a"
title = "a"
loader = "imagefolder"
format = "files"
"""


TIMING = {
    "blocks": 2,
    "warmup_s": 0.05,
    "window_s": 0.2,
    "window_batches": 1,
    "pause_s": 0.1,
    "limit_s": 600,
    "stage_s": 0,
}


def file(folder: Path, text: str = TOML) -> Path:
    """Write a campaign file; by default its only format needs no library."""
    path = folder / "small.toml"
    path.write_text(text)
    return path


def campaign(  # noqa: PLR0913 - each is a table of its own
    contestants: dict[str, dict[str, Any]],
    formats: dict[str, dict[str, Any]] | None = None,
    *,
    cold: tuple[str, ...] = (),
    best: dict[str, Any] | None = None,
    tuning: dict[str, Any] | None = None,
    consumers: dict[str, Any] | None = None,
    ranks: int = 1,
    jobs: int = 1,
    **timing: Any,
) -> Campaign:
    """A small campaign of these contestants, given as names with the keys of their tables; the first is the reference.

    `cold`: contestants that also run with a cold page cache. `best`: settings to search, by contestant. `timing`: keys
    that replace those of the table `timing`.
    """
    formats = formats or {"files": {"writer": "imagefolder", "mode": "jpeg"}}
    return Campaign.model_validate(
        {
            "name": "small",
            "question": "Does it work?",
            "reference": next(iter(contestants)),
            "cold": cold,
            "best": best or {},
            "tuning": tuning or {},
            "consumers": consumers or {},
            "data": {"samples": None, "probe": 0},
            "work": {
                "batch_size": 16,
                "workers": 2,
                "image_size": 32,
                "epoch_images": 96,
                "ranks": ranks,
                "jobs": jobs,
            },
            "timing": TIMING | timing,
            "formats": [{"name": name, "title": name, "max_side": 64} | keys for name, keys in formats.items()],
            "contestants": [
                {"name": name, "title": name, "loader": "planted", "format": next(iter(formats))} | keys
                for name, keys in contestants.items()
            ],
        }
    )
