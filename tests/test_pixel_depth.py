"""Pixels of more than 8 bits a channel keep their meaning, or the image is left out with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loaderbench.images.decoding import Unreadable, decode

RAMP = np.arange(64 * 64).reshape(64, 64)


def saved(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        ((RAMP / RAMP.max()).astype(np.float32), "floats of unknown range"),
        ((RAMP * 300_000).astype(np.int32), "32-bit integers of unknown range"),
    ],
)
def test_pixels_without_a_known_range_are_left_out(pixels: np.ndarray, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(saved(pixels, tmp_path / "image.tif"))


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_dark_16_bit_image_does_not_become_flat(name: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"16-bit values, 0 to 200, are one value in 8 bits"):
        decode(saved((RAMP % 201).astype(np.uint16), tmp_path / name))


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_16_bit_image_keeps_its_upper_8_bits(name: str, tmp_path: Path) -> None:
    pixels, _ = decode(saved((RAMP * 16).astype(np.uint16), tmp_path / name))
    assert np.array_equal(pixels[:, :, 0], RAMP * 16 >> 8)


def test_16_bit_image_of_one_value_is_sound(tmp_path: Path) -> None:
    assert not decode(saved(np.zeros((8, 8), np.uint16), tmp_path / "black.png"))[0].any()
