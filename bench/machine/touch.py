"""Read one byte of each memory page of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PAGE_BYTES = 4096
PAGES_AT_ONCE = 1 << 14
"""Torch sums more than 32,768 values in several threads, which then spin for milliseconds."""


def touch(images: Tensor) -> None:
    """Read one byte of each page of a batch in the CPU's memory, so that a lazily delivered batch has to be there."""
    one_a_page = images.as_strided((images.numel(),), (1,))[:: PAGE_BYTES // images.element_size()]
    for start in range(0, len(one_a_page), PAGES_AT_ONCE):
        one_a_page[start : start + PAGES_AT_ONCE].sum()
