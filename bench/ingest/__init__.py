"""Where do the images live? Whatever `--data` names becomes a local folder of class folders, as `bench.source` scans.

What the user has is only read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.display import Display


def folder(data: str | Path, cache: Path, display: Display) -> Path:  # noqa: ARG001 - what copies will want
    """Return the folder of class folders that `data` is, or that is made of it in the cache.

    Raises SourceError.
    """
    return Path(data)
