"""Small campaigns for tests."""

from __future__ import annotations

from typing import Any

from bench.config import Campaign


def campaign(
    contestants: dict[str, dict[str, Any]], formats: dict[str, dict[str, Any]] | None = None, **timing: Any
) -> Campaign:
    """A campaign of these contestants (name to the keys of its table), the first being the reference."""
    formats = formats or {"files": {"writer": "imagefolder", "mode": "jpeg"}}
    return Campaign.model_validate(
        {
            "name": "small",
            "question": "Does it work?",
            "reference": next(iter(contestants)),
            "data": {"samples": None},
            "work": {"batch_size": 16, "workers": 2, "image_size": 32, "epoch_images": 96},
            "timing": {"blocks": 2, "warmup_s": 0.05, "window_s": 0.2, "window_batches": 1, "limit_s": 60} | timing,
            "formats": [{"name": name, "title": name, "max_side": 64} | keys for name, keys in formats.items()],
            "contestants": [
                {"name": name, "title": name, "loader": "planted", "format": next(iter(formats))} | keys
                for name, keys in contestants.items()
            ],
        }
    )
