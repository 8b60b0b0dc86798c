"""A writer that encodes at quality 60, whatever it was asked for."""

from PIL import Image
from planted_writer import payloads

__all__ = ["payloads"]
requires = ("PIL",)
modes = ("jpeg",)


def write(source, out, encoding, workers):
    for index in range(len(source)):
        Image.fromarray(source.pixels(index)).save(out / f"{index:09d}.jpg", quality=60)
