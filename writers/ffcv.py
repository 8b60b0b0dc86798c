"""Write FFCV's format: one .beton file."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING

from loaderbench.api import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from loaderbench.api import Encoding, Source

requires = ("ffcv",)
modes = ("raw", "jpeg", "proportion", "smart")
resumes = False  # the tables of its one file are written last
_PAGE_BYTES = 8 << 20
"""FFCV's default. No image is stored across pages, whose size is a power of 2."""


class _Samples:
    """The source, as the indexed dataset that FFCV's writer expects."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.source.pixels(index), self.source.label(index)


def write(source: Source, out: Path, encoding: Encoding, workers: int) -> None:
    """Write the .beton file. FFCV encodes JPEG itself, with the call that made the canonical bytes: both are equal.

    Pages are as large as the pixels of the largest image need.
    """
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    field = RGBImageField(
        write_mode="jpg" if encoding.mode == "jpeg" else encoding.mode,
        max_resolution=encoding.max_side,
        jpeg_quality=encoding.quality,
        compress_probability=encoding.compress_probability,
        smart_threshold=encoding.smart_threshold_bytes,
    )
    largest = max(CHANNELS * height * width for height, width in map(source.shape, range(len(source))))
    writer = DatasetWriter(
        str(out / "samples.beton"),
        {"image": field, "label": IntField()},
        page_size=max(_PAGE_BYTES, 1 << (largest - 1).bit_length()),
        num_workers=workers,
    )
    before = signal.signal(signal.SIGCHLD, _raise_if_a_worker_failed)
    try:
        writer.from_indexed_dataset(_Samples(source))
    finally:
        signal.signal(signal.SIGCHLD, before)


def _raise_if_a_worker_failed(*_: object) -> None:
    """Raise RuntimeError if a worker died, for example of a full disk; FFCV's writer would wait for it without end.

    It handles the signal SIGCHLD, so that no thread watches the workers.
    """
    reaped: set[int] = set()
    with suppress(ChildProcessError):  # none is left
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_status:
                raise RuntimeError("a worker process of FFCV's writer failed; its own message is above")
            if ended.si_pid in reaped:  # it is no worker, and another's to reap
                return
            reaped.add(ended.si_pid)
            active_children()  # reaps workers that ended well, so that the next one is seen


def payloads(out: Path) -> Iterator[bytes]:
    from ffcv.reader import Reader

    reader = Reader(str(out / "samples.beton"))
    sizes = {int(row["ptr"]): int(row["size"]) for row in reader.alloc_table}
    with (out / "samples.beton").open("rb") as beton:
        for pointer in reader.metadata["f0"]["data_ptr"]:
            beton.seek(int(pointer))
            yield beton.read(sizes[int(pointer)])
