"""Replace what a data set's function for reading a file does: other copies of the files, or another decoder."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loaderbench.doctor.changes import Reader
from loaderbench.doctor.steps import READER, Point, levels

_COPIES = 128
"""Files that stand for all. They stay in the page cache."""
_SIDE, _QUALITY = 256, 90
_TO_TENSOR = ("transform ToTensor", "transform PILToTensor", "transform ToImage")


def change(reader: Reader, points: Sequence[Point], dataset: Any) -> None:
    """Change the reader at its point. Raises NotImplementedError if the data set has none."""
    samples = next(filter(None, (getattr(level, "samples", None) for level in levels(dataset))), None)
    point = next((point for point in points if point.name == READER), None)
    if point is None or samples is None:
        raise NotImplementedError("the data set has no `loader` and `samples`, as torchvision's ImageFolder has")
    if reader != "torchvision.io":
        original, copies = point.get(), _copies(samples, small=reader == "256 px copies")
        point.put(lambda path: original(copies[hash(path) % len(copies)]))
        return
    point.put(_decoded)
    for each in points:
        if each.name in _TO_TENSOR:
            each.put(_as_float if each.name == _TO_TENSOR[0] else _unchanged)


def _copies(samples: Sequence[tuple[str, int]], *, small: bool) -> list[str]:
    """Return the paths of local copies of some files. They lie in this process's folder for temporary files."""
    from PIL import Image

    folder, copies = Path(tempfile.mkdtemp()), []
    for number, (path, _) in enumerate(samples[:: -(-len(samples) // _COPIES)]):
        copy = folder / f"{number}{'.jpg' if small else Path(path).suffix}"
        if small:
            with Image.open(path) as image:
                shown = image.convert("RGB")
            shown.thumbnail((_SIDE, _SIDE))
            shown.save(copy, quality=_QUALITY)
        else:
            copy.write_bytes(Path(path).read_bytes())
        copies.append(str(copy))
    return copies


def _decoded(path: Any) -> Any:
    from torchvision.io import ImageReadMode, decode_image

    return decode_image(str(path), ImageReadMode.RGB)


def _as_float(image: Any) -> Any:
    return image.float() / 255


def _unchanged(image: Any) -> Any:
    return image
