"""The random files in the bucket of the S3 tests, and the files of a copy."""

from __future__ import annotations

import random
from pathlib import Path

from loaderbench.machine.progress import Display

URL = "s3://images/set"


class Shown(Display):
    """Keeps all messages."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def grow(folder: Path, classes: int, per_class: int) -> Path:
    """Fill class folders with files of random bytes, an empty file and one with an odd name."""
    draw = random.Random(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(per_class):
            (folder / f"class{label}" / f"{number}.jpg").write_bytes(draw.randbytes(draw.randrange(1, 4000)))
    (folder / "class0" / "empty.jpg").write_bytes(b"")
    (folder / "class0" / "a b+c%20d#?ü&=~.jpg").write_bytes(b"odd name")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keys_in(cache: Path, prefix: str = "set/") -> set[str]:
    """Return the keys whose files have arrived in the only copy of a cache."""
    there = {path for folder in cache.glob("s3/*/files") for path in content(folder)}
    return {f"{prefix}{path}" for path in there if not path.endswith(".partial")}
