"""loaderbench: measure which image data loader a machine should train with.

What an adapter or a training script needs is here; everything else is the harness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loaderbench.api import Artifact, Encoding, Loader, Source, Work, Writer

if TYPE_CHECKING:
    from loaderbench.formats import write_format
    from loaderbench.loaders.lightning import DataModule

__all__ = ["Artifact", "DataModule", "Encoding", "Loader", "Source", "Work", "Writer", "write_format"]


def __getattr__(name: str) -> Any:
    """Import `DataModule`, which needs torch and Lightning, and `write_format`, which needs OpenCV, on first use."""
    if name == "DataModule":
        from loaderbench.loaders.lightning import DataModule

        return DataModule
    if name == "write_format":
        from loaderbench.formats import write_format

        return write_format
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
