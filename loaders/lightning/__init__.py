"""Any contestant in Lightning's Trainer: `from loaders.lightning import DataModule`."""

from loaders.lightning.datamodule import DataModule

__all__ = ["DataModule"]
