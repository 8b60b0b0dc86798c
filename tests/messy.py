"""An ImageFolder tree with every image format and every fault of a file."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 30, 40
GREY16 = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 54).astype(np.uint16)
GREY = (GREY16 >> 8).astype(np.uint8)
RGB = np.dstack([GREY, GREY.max() - GREY, GREY[:, ::-1]])
LATIN1_NAME = os.fsdecode(b"caf\xe9.jpg")
READABLE = 20
"""Images that can be decoded, links followed."""


def grow(root: Path) -> Path:
    """Fill `root` and a folder beside it; return `root`."""
    cats, dogs, outside = root / "cats", root / "dogs", root.parent / "outside"
    for folder in (cats / "deep" / "er", dogs, outside, root / "birds"):
        folder.mkdir(parents=True)
    _images(cats)
    image = Image.fromarray(RGB)
    image.save(outside / "far.jpg")
    image.save(dogs / LATIN1_NAME)
    image.save(dogs / ".hidden.jpg")
    (dogs / "linked.jpg").symlink_to("../cats/plain.jpg")
    (dogs / "linked_folder").symlink_to(outside)
    (dogs / "loop").symlink_to("..")
    (dogs / "self.jpg").symlink_to("self.jpg")
    (dogs / "dangling.jpg").symlink_to("nowhere.jpg")
    (dogs / "empty.jpg").touch()
    (dogs / "text.jpg").write_text("not an image")
    (dogs / "truncated.jpg").write_bytes((cats / "plain.jpg").read_bytes()[:-50])
    os.mkfifo(dogs / "pipe.jpg")
    (root / "README.txt").write_text("my images")
    (cats / "labels.json").write_text("{}")
    return root


def _images(folder: Path) -> None:
    image, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    for name in ("plain.jpg", "UPPER.JPG", "mixed.JpEg", "deep/er/nested.png", "bitmap.bmp"):
        image.save(folder / name)
    image.save(folder / "lossless.webp", lossless=True)
    grey.save(folder / "grey.png")
    grey.save(folder / "grey.jpg")
    grey.point(lambda value: value > 99, "1").save(folder / "one_bit.png")
    grey.convert("LA").save(folder / "grey_alpha.png")
    image.quantize(256).save(folder / "palette.png", transparency=b"\x80" * 256)
    with_alpha = image.convert("RGBA")
    with_alpha.putalpha(7)
    with_alpha.save(folder / "alpha.png")
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=100)
    Image.fromarray(GREY16).save(folder / "grey16.png")
    Image.fromarray(GREY16).save(folder / "grey16.pgm")
    cv2.imwrite(str(folder / "rgb16.png"), RGB[:, :, ::-1].astype(np.uint16) * 257)
    image.save(folder / "animated.png", save_all=True, append_images=[Image.new("RGB", image.size)])
