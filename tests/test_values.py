"""In every dtype, normalised or not, a value stands for exactly one grey level."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from loaderbench.api import DEVIATION, MEAN, Work
from loaderbench.campaign import pixel_values as values
from loaderbench.certify.delivery import _range
from loaderbench.certify.observe import Observation, _Notes

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)


def work_of(dtype: str, normalised: bool) -> Work:  # noqa: FBT001
    return Work(batch_size=1, workers=1, image_size=16, dtype=dtype, passes=1, seed=0, normalised=normalised)


def delivered(work: Work) -> torch.Tensor:
    images = v2.functional.to_dtype(LEVELS, torch.float32, scale=True)
    if work.normalised:
        images = v2.functional.normalize(images, list(MEAN), list(DEVIATION))
    return images.to(getattr(torch, work.dtype))


FLOATS = [work_of(dtype, normalised) for dtype in ("float32", "float16", "bfloat16") for normalised in (False, True)]
NAMES = [f"{work.dtype}{' normalised' if work.normalised else ''}" for work in FLOATS]


@pytest.mark.parametrize("work", FLOATS, ids=NAMES)
def test_rounding_restores_every_level_of_every_channel(work: Work) -> None:
    levels = values.unnormalised(delivered(work), work) * 255
    assert torch.equal(levels.round().to(torch.uint8), LEVELS)


@pytest.mark.parametrize("work", FLOATS, ids=NAMES)
def test_span_includes_black_and_white_and_excludes_brighter_values(work: Work) -> None:
    low, high = values.span(work)
    images = delivered(work)
    assert low <= float(images.min()) <= float(images.max()) <= high
    assert float(2 * images.max()) > high


@pytest.mark.parametrize("work", FLOATS, ids=NAMES)
def test_certificates_judge_the_original_levels(work: Work) -> None:
    notes = _Notes(work)
    notes.note(0, 0, delivered(work), torch.tensor([0]))
    seen = notes.columns()
    assert torch.equal(torch.from_numpy(seen["crops"]).permute(0, 3, 1, 2), LEVELS)
    assert not list(_range(_observation(seen), work))


def test_missing_normalisation_is_a_fault() -> None:
    asked = work_of("float16", normalised=True)
    notes = _Notes(asked)
    notes.note(0, 0, delivered(work_of("float16", normalised=False)), torch.tensor([0]))
    [fault] = _range(_observation(notes.columns()), asked)
    assert fault == "values range from 0.406 to 0.714 instead of 0 to 1 before they were normalised"


def _observation(seen: dict) -> Observation:
    return Observation(**seen, changed_in_use=False, intact_batches=0, again_label=torch.empty(0).numpy())
