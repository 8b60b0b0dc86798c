"""Where do the images live? Whatever `--data` names becomes a local folder of class folders, as `bench.source` scans.

What the user has is only read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.s3.bucket import SCHEME
from bench.s3.copy import copy

if TYPE_CHECKING:
    from bench.display import Display


def folder(data: str | Path, cache: Path, display: Display) -> Path:
    """Return the folder of class folders that `data` is, or that is made of it in the cache.

    Raises SourceError.
    """
    if str(data).startswith(SCHEME):
        return copy(str(data), cache, display)
    return Path(data)
