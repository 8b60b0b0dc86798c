"""Train with any loader in Lightning's Trainer: `from loaderbench.loaders.lightning import DataModule`."""

from loaderbench.loaders.lightning.datamodule import DataModule

__all__ = ["DataModule"]
