"""ImageFolder delivers images of every kind with either decoder, and the kinds that torchvision.io lacks are noted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loaderbench.api import Work
from loaderbench.campaign import registry
from loaderbench.formats import Prepared, prepare
from loaderbench.machine.progress import Display
from tests.campaigns import campaign

pytestmark = pytest.mark.usefixtures("forked")
WORK = Work(batch_size=17, workers=1, image_size=32, shuffle=False, augment="validation", centre=1.0)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Links to 17 images: a BMP, a TIFF, a PPM, an animated GIF, an animated WebP, and PNGs."""
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    images = [Image.fromarray(np.full((32, 32, 3), draw.integers(0, 255, 3), np.uint8)) for _ in range(17)]
    names = ["00.bmp", "01.tif", "02.ppm", *(f"{number:02d}.png" for number in range(3, 17))]
    for image, name in zip(images, names, strict=True):
        image.save(folder / name)
    for number, kind in ((3, "GIF"), (4, "WEBP")):
        images[number].save(folder / names[number], kind, save_all=True, append_images=[images[0]], lossless=True)
    settings = campaign({"a": {"loader": "imagefolder"}}, {"files": {"writer": "imagefolder", "mode": "original"}})
    return prepare(settings, tmp_path / "images", tmp_path / "cache", Display(), strict=True)


def delivered(prepared: Prepared, loader: str, **options: str) -> np.ndarray:
    with registry.loader(loader).stream(prepared.artifacts["files"], WORK, **options) as batches:
        [(images, _)] = batches
        return images.numpy()


@pytest.mark.parametrize(("loader", "options"), [("imagefolder", {"decode": "torchvision"}), ("threads", {})])
def test_pil_decodes_what_the_own_decoder_cannot(prepared: Prepared, loader: str, options: dict[str, str]) -> None:
    assert np.array_equal(delivered(prepared, loader, **options), delivered(prepared, "imagefolder", decode="pil"))


def test_files_that_torchvision_cannot_decode_are_counted(prepared: Prepared) -> None:
    [note] = [note for note in prepared.data["notes"] if "torchvision.io" in note]
    kinds = "(BMP 1, PPM 1, TIFF 1, animated GIF 1, animated WEBP 1)"
    assert note.startswith(f"5 of 17 files are of kinds that torchvision.io cannot decode {kinds}")
