"""Task of tests/test_work.py: record every image of two epochs of a loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import v2

from loaderbench.api import Artifact, Work
from loaderbench.campaign import pixel_values as values
from loaderbench.campaign import registry

_crops_tensors: set[bool] = set()


class _Watched(v2.RandomResizedCrop):
    def forward(self, *images):
        _crops_tensors.add(isinstance(images[0], torch.Tensor))
        return super().forward(*images)


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Stream with each of `spec["options"]` and write the recorded images to the file `spec["told"]`.

    `spec["look"]`: what else to record, one of the names in `looks`.
    """
    v2.RandomResizedCrop = _Watched  # before a loader is imported
    told = [_deliver(spec, options, changes) for options, changes in spec["options"]]
    Path(spec["told"]).write_text(json.dumps(told))
    return {"status": "ok", "reason": ""}


def _deliver(spec: dict[str, Any], options: dict[str, Any], changes: dict[str, Any]) -> tuple[list[Any], Any]:
    _crops_tensors.clear()
    loader, work = registry.loader(spec["loader"]), Work(**{**spec["work"], **changes})
    with loader.stream(Artifact.from_dict(spec["artifact"]), work, **options) as batches:
        if work.device == "meta":  # where tensors have a form and no content
            return [], sorted({_form(images, labels) for images, labels in batches})
        epochs = [[_image(*one, work) for batch in batches for one in zip(*batch, strict=True)] for _ in range(2)]
        looks = {
            "": lambda: None,
            "sharing": torch.multiprocessing.get_sharing_strategy,
            "crops": lambda: [sorted(_crops_tensors), torch.multiprocessing.get_sharing_strategy()],
            "transforms": lambda: [type(one).__name__ for one in batches.pipeline_specs["image"].transforms],
        }
        return epochs, looks[spec["look"]]()


def _form(images: torch.Tensor, labels: torch.Tensor) -> tuple[Any, ...]:
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return tuple(images.shape[1:]), str(images.dtype), images.device.type, labels.device.type, channels_last


def _image(image: torch.Tensor, label: torch.Tensor, work: Work) -> tuple[int, float, float, str, float]:
    """The image's label, smallest and largest value, dtype, and its largest distance from whole grey levels."""
    levels = 255 * values.unnormalised(image[None], work)
    off = float((levels - levels.round()).abs().max())
    return int(label), float(image.min()), float(image.max()), str(image.dtype), off
