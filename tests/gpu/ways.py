"""All ways by which pixels get from a format onto the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loaderbench.api import Work

SIDE = 64
FORMATS: dict[str, dict[str, Any]] = {
    "files": {"writer": "imagefolder", "mode": "jpeg"},
    "ffcv-raw": {"writer": "ffcv", "mode": "raw"},
    "ffcv-jpeg": {"writer": "ffcv", "mode": "jpeg"},
    "litdata-raw": {"writer": "litdata", "mode": "raw"},
    "litdata-jpeg": {"writer": "litdata", "mode": "jpeg"},
}


@dataclass(frozen=True)
class Way:
    """One loader with its options, and where its batches are requested: on the device, or in the CPU's memory."""

    loader: str
    format: str
    device: str = "cuda"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def delivers_on_cpu(self) -> bool:
        """Whether the loader also delivers in the CPU's memory."""
        return self.loader != "nvjpeg"

    @property
    def work(self) -> Work:
        """Validation at the size of the stored images, in random order: each image is delivered as it is stored."""
        return Work(batch_size=8, workers=2, image_size=SIDE, augment="validation", centre=1.0, device=self.device)


TORCHVISION = {"decode": "torchvision"}
WAYS = (
    Way("ffcv", "ffcv-raw"),  # by its own ToDevice
    Way("ffcv", "ffcv-jpeg"),
    Way("ffcv", "ffcv-jpeg", "cpu"),  # copied by the training
    Way("litdata", "litdata-raw"),  # from pinned memory, by the harness
    Way("litdata", "litdata-jpeg"),
    Way("litdata", "litdata-jpeg", options={"pin_memory": False}),
    Way("imagefolder", "files", options=TORCHVISION),
    Way("imagefolder", "files", options=TORCHVISION | {"pin_memory": False}),
    Way("imagefolder", "files", "cpu", options=TORCHVISION),
    Way("imagefolder", "files", options={"decode": "pil"}),
    Way("threads", "files"),
    Way("threads", "files", "cpu"),
    Way("nvjpeg", "files"),
)
LOADERS = tuple(dict.fromkeys(way.loader for way in WAYS))
