"""Consume a loader's batches, through a `trial.meter.Meter` that times them; one module per consumer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from loaderbench.records.record import Consumer

if TYPE_CHECKING:
    from collections.abc import Callable

    from loaderbench.api import Artifact, Loader, Work
    from loaderbench.trial.meter import Meter


Consume: TypeAlias = "Callable[[Loader, Meter], dict[str, Any]]"
"""Opens a loader, takes its epochs through a meter until that is done, and returns its own columns of `Record`."""
MODULES: dict[Consumer, str] = {
    "hungry": "drain",
    "paced": "demand_sweep",
    "train": "train",
    "lightning": "lightning",
}
"""The module of each consumer, by the name that `Record` and campaign files have for it."""


def prepare(name: Consumer, artifact: Artifact, work: Work, options: dict[str, Any]) -> Consume:
    """Return a consumer, prepared before there is any loader. `options`: keyword arguments of its module's `prepare`.

    Raises NotImplementedError if a library is missing or the consumer does not support the work.
    """
    try:
        module = import_module(f"loaderbench.trial.consumers.{MODULES[name]}")
    except ModuleNotFoundError as error:
        message = (
            f"not installed: {error.name}, which the consumer {name} needs; pip install '.[{name}]' in the checkout"
        )
        raise NotImplementedError(message) from None
    consume: Consume = module.prepare(artifact, work, **options)
    return consume
