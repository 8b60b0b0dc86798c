"""What becomes of the batches? One file per consumer; all take them from a `trial.trial.Meter`, which times them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from loaderbench.api import Artifact, Loader, Work
    from loaderbench.trial.trial import Meter


Consume: TypeAlias = "Callable[[Loader, Meter], dict[str, Any]]"
"""Opens a loader and takes its epochs from a meter until that is done; returns columns of `Record` of its own."""


def prepare(name: str, artifact: Artifact, work: Work, options: dict[str, Any]) -> Consume:
    """Make a consumer ready, before any loader is there. `options`: as its module's `prepare` takes them.

    Raises NotImplementedError if a library is missing, or for work that it is not made for.
    """
    try:
        module = import_module(f"loaderbench.trial.consumers.{name}")
    except ModuleNotFoundError as error:
        message = f"not installed: {error.name}, which the consumer {name} needs; pip install 'loaderbench[{name}]'"
        raise NotImplementedError(message) from None
    consume: Consume = module.prepare(artifact, work, **options)
    return consume
