"""loaderbench: measure which image data loader a machine should train with.

What an adapter or a training script needs is here; everything else is the harness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loaderbench.api import Artifact, Encoding, Loader, Source, Work, Writer

if TYPE_CHECKING:
    from loaderbench.loaders.lightning import DataModule

__all__ = ["Artifact", "DataModule", "Encoding", "Loader", "Source", "Work", "Writer"]


def __getattr__(name: str) -> Any:
    """Import `DataModule` on first use, because it needs torch and Lightning."""
    if name == "DataModule":
        from loaderbench.loaders.lightning import DataModule

        return DataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
