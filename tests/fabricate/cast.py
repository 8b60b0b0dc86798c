"""The contestants, formats, settings and machine limits of a made-up campaign."""

from __future__ import annotations

from dataclasses import dataclass

from loaderbench.campaign.schema import Best, Tuning


@dataclass(frozen=True)
class Actor:
    """A contestant with its speed and costs."""

    name: str
    title: str
    loader: str
    format: str
    images_per_s: float
    bytes_per_image: float = 16_600
    start_s: tuple[float, float, float] = (1.9, 0.02, 0.9)
    """Import, construct, first batch."""
    cores: float = 1.95


CAST = (
    Actor("ffcv-raw-mapped", "FFCV raw, os_cache on", "ffcv", "ffcv-raw", 10_100, 142_400, (2.6, 3.0, 6.1), 1.4),
    Actor("ffcv-raw-slots", "FFCV raw, os_cache off", "ffcv", "ffcv-raw", 9_870, 142_400, (2.6, 3.2, 6.2), 1.6),
    Actor("ffcv-jpeg-mapped", "FFCV JPEG, os_cache on", "ffcv", "ffcv-jpeg", 5_500, 16_800, (2.5, 3.1, 6.3)),
    Actor("ffcv-jpeg-slots", "FFCV JPEG, os_cache off", "ffcv", "ffcv-jpeg", 5_480, 16_800, (2.6, 3.1, 6.2)),
    Actor("litdata-raw", "LitData raw (PIL)", "litdata", "litdata-raw", 2_950, 142_100, (3.4, 0.1, 1.6)),
    Actor("litdata-jpeg", "LitData JPEG", "litdata", "litdata-jpeg", 3_600, 16_650, (3.4, 0.1, 1.5)),
    Actor("imagefolder-original-pil", "ImageFolder originals, PIL", "imagefolder", "original", 1_240, 110_300),
    Actor(
        "imagefolder-original-torchvision",
        "ImageFolder originals, torchvision.io",
        "imagefolder",
        "original",
        1_710,
        110_300,
    ),
    Actor("imagefolder-256-pil", "ImageFolder 256 px, PIL", "imagefolder", "jpeg-files", 2_300),
    Actor("imagefolder-256-torchvision", "ImageFolder 256 px, torchvision.io", "imagefolder", "jpeg-files", 3_590),
)
"""The contestants of the default campaign, about as fast as on two cores."""
FORMATS = {
    "original": ("original files", "imagefolder", 0.4, 110_300.0),
    "jpeg-files": ("256 px JPEG files", "imagefolder", 9.8, 16_600.0),
    "ffcv-raw": ("FFCV raw", "ffcv", 5.1, 142_400.0),
    "ffcv-jpeg": ("FFCV JPEG", "ffcv", 7.9, 16_800.0),
    "litdata-raw": ("LitData raw", "litdata", 8.6, 142_100.0),
    "litdata-jpeg": ("LitData JPEG", "litdata", 6.4, 16_650.0),
}
"""Title, writer, seconds to write and bytes per image of each format."""
MODES = {name: "original" if name == "original" else "raw" if name.endswith("raw") else "jpeg" for name in FORMATS}
STORED = {"original": "original files", "raw": "canonical pixels", "jpeg": "canonical JPEG bytes"}
ENCODING = {"mode": "raw", "max_side": 256, "quality": 90, "compress_probability": 0.5, "smart_threshold_bytes": None}
LIMITS = {"crop": 14_000.0, "decode + crop": 6_600.0, "decode originals + crop": 2_100.0}
"""Images/s that the machine can do of each step of the work."""
BOUND_BY = {
    "original": "decode originals + crop",
    "jpeg-files": "decode + crop",
    "ffcv-raw": "crop",
    "ffcv-jpeg": "decode + crop",
    "litdata-raw": "crop",
    "litdata-jpeg": "decode + crop",
}
"""The step that bounds each format."""
TUNED = {
    "ffcv-raw-mapped": "FFCV raw",
    "ffcv-jpeg-mapped": "FFCV JPEG",
    "litdata-raw": "LitData raw",
    "litdata-jpeg": "LitData JPEG",
    "imagefolder-original-pil": "ImageFolder originals",
    "imagefolder-256-pil": "ImageFolder 256 px",
}
"""The tuned contestants of the default campaign, with their titles."""
TRIED = {
    "ffcv": {"os_cache": (True, False), "workers": (2, 1, 3), "batches_ahead": (3, 1, 6)},
    "litdata": {"workers": (2, 1), "prefetch_factor": (2, 4)},
    "imagefolder": {"decode": ("pil", "torchvision"), "workers": (2, 3), "prefetch_factor": (2, 4)},
}
"""The settings that a search tries for each loader, its own first."""
SPEEDUP = {("os_cache", False): 1.05, ("workers", 1): 0.55, ("workers", 3): 1.07, ("decode", "torchvision"): 1.45}
"""The speed-up of a setting for any loader; other settings change nothing."""
TUNING = Tuning(trials=24, memory_mib=4096)
SAMPLES, EPOCH_IMAGES = 4096, 16384
TRAINED_IMAGES_PER_S = 2000.0
"""The speed of training on one cached batch."""
CONSUMERS = ("paced", "train", "lightning")
STREAM = {
    "streaming": ["litdata-jpeg"],
    "bounded": ["litdata-jpeg"],
    "downloading": ["ffcv-jpeg-mapped", "imagefolder-256-torchvision"],
    "epochs": 4,
    "cache_mib": 64.0,
    "rate_mib_per_s": 50.0,
    "latency_ms": 20.0,
}
"""The contestants with data in a bucket, and their network."""
DISK_BYTES_PER_S = 200e6
NO_GPU = "no NVIDIA driver on this machine"


def best_of(actor: Actor) -> Best:
    """Return the settings that a search tries for a contestant."""
    return Best(title=TUNED.get(actor.name, actor.title), settings=TRIED[actor.loader])
