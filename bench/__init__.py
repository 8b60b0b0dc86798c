"""loaderbench: measure which image data loader a machine should train with.

What an adapter or a training script needs is here; everything else is the harness.
"""

from typing import TYPE_CHECKING, Any

from loaderbench.api import Artifact, Encoding, Loader, Source, Work, Writer

if TYPE_CHECKING:
    from loaderbench.doctor import watch
    from loaderbench.formats import write_format
    from loaderbench.loaders.lightning import DataModule

__all__ = ["Artifact", "DataModule", "Encoding", "Loader", "Source", "Work", "Writer", "watch", "write_format"]


def __getattr__(name: str) -> Any:
    """Import on first use what needs more than the standard library, or is a tool and no type."""
    if name == "DataModule":
        from loaderbench.loaders.lightning import DataModule

        return DataModule
    if name == "write_format":
        from loaderbench.formats import write_format

        return write_format
    if name == "watch":
        from loaderbench.doctor import watch

        return watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
