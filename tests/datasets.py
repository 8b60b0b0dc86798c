"""A module of torch datasets of a user's own, most of them with a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CODE = """
import os, random, sys
import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 24, 32, 3), dtype=np.uint8)

class Plain:
    classes = ["cat", "dog", "fox"]
    def __len__(self):
        return 20
    def __getitem__(self, place):
        return PIXELS[place], place % 2

class Items(Plain):
    def __init__(self, convert=lambda pixels: pixels, length=20, label=lambda place: place % 2):
        self.convert, self.length, self.label = convert, length, label
    def __len__(self):
        return self.length
    def __getitem__(self, place):
        return self.convert(PIXELS[place]), self.label(place)

class Item(Plain):
    def __init__(self, item):
        self.item = item
    def __getitem__(self, place):
        return self.item

class Streamed(Plain):  # like torch's IterableDataset with a length
    def __iter__(self):
        return iter(())
    def __getitem__(self, place):
        raise NotImplementedError

class Handle(Plain):  # like a file of h5py
    def __reduce__(self):
        raise TypeError("h5py objects cannot be pickled")

class Unbuilt(Plain):
    def __init__(self, needed):
        self.needed = needed
    def __reduce__(self):
        return Unbuilt, ()

class File(Plain):
    def __init__(self):
        self.file = open(__file__)
    def __del__(self):
        self.file.close()

class Long(Plain):
    def __len__(self):
        raise RuntimeError("no length yet")

def arrays(): return Items()
def images(): return Items(Image.fromarray)
def tensors():
    import torch
    return Items(lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1), label=torch.tensor)
made = Items()
def floats(): return Items(lambda pixels: pixels / 255)
def nothing(): return Items(lambda pixels: None)
def flat(): return Items(lambda pixels: pixels[:0])
def empty(): return Items(length=0)
def streamed(): return iter(range(3))
def raises():
    def fail(pixels):
        if (pixels == PIXELS[7]).all(): raise OSError("no such file")
        return pixels
    return Items(fail)
def dies():
    def end(pixels):
        if (pixels == PIXELS[7]).all(): os._exit(1)
        return pixels
    return Items(end)
def random_crop():
    def crop(pixels): return pixels[:, random.randrange(16):][:, :16]
    return Items(crop)
def broken(): raise KeyError("x")
def a_dict(): return Item({"image": PIXELS[0], "label": 1})
def a_triple(): return Item((PIXELS[0], 1, "x.jpg"))
def no_item(): return Item(None)
def no_label(): return Item((PIXELS[0], None))
def one_hot(): return Item((PIXELS[0], np.array([0, 1])))
"""


def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the module, make its folder the current one, and return the module's name."""
    name = f"mine_{folder.name}"
    (folder / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return name
