"""Takes batches as fast as they come, and does nothing with them but make sure that they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Artifact, Work
    from bench.consumers import Consume
    from bench.trial import Meter

PAGE_BYTES = 4096
TOUCHED_AT_ONCE = 1 << 14
"""Pages. Torch sums more than 32,768 values in several threads, which go on spinning for milliseconds."""


def prepare(artifact: Artifact, work: Work) -> Consume:  # noqa: ARG001 - others need to know
    """Return the consumer, which needs nothing."""
    return _consume


def _consume(meter: Meter) -> dict[str, Any]:
    while not meter.done:
        for images, _ in meter:
            touch(images)
    return {}


def touch(images: Tensor) -> None:
    """Read one byte of each page, so that a batch that is only promised has to be there."""
    one_a_page = images.as_strided((images.numel(),), (1,))[:: PAGE_BYTES // images.element_size()]
    for start in range(0, len(one_a_page), TOUCHED_AT_ONCE):
        one_a_page[start : start + TOUCHED_AT_ONCE].sum()
