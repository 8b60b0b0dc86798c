"""Write FFCV's format: one .beton file."""

from __future__ import annotations

import _thread
import signal
import threading
from multiprocessing import active_children, connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from loaderbench.api import Encoding, Source

requires = ("ffcv",)
modes = ("raw", "jpeg", "proportion", "smart")
resumes = False  # the tables of its one file are written last


class _Samples:
    """The source, as the indexed dataset that FFCV's writer expects."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.source.pixels(index), self.source.label(index)


def write(source: Source, out: Path, encoding: Encoding, workers: int) -> None:
    """Write the .beton file. FFCV encodes JPEG itself, with the call that made the canonical bytes: both are equal."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    field = RGBImageField(
        write_mode="jpg" if encoding.mode == "jpeg" else encoding.mode,
        max_resolution=encoding.max_side,
        jpeg_quality=encoding.quality,
        compress_probability=encoding.compress_probability,
        smart_threshold=encoding.smart_threshold_bytes,
    )
    writer = DatasetWriter(str(out / "samples.beton"), {"image": field, "label": IntField()}, num_workers=workers)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell makes its children ignore SIGINT
    threading.Thread(target=_interrupt_when_a_worker_fails, args=(done := threading.Event(),), daemon=True).start()
    try:
        writer.from_indexed_dataset(_Samples(source))
    except KeyboardInterrupt:
        if not done.is_set():
            raise
        raise RuntimeError("a worker process of FFCV's writer failed; its own message is above") from None


def _interrupt_when_a_worker_fails(failed: threading.Event) -> None:
    """Interrupt FFCV's writer if a worker dies, for example of a full disk; it would wait for it without end."""
    pending = set()
    while not pending:
        pending = set(active_children())
        failed.wait(0.05)
    while pending:
        connection.wait([p.sentinel for p in pending])
        ended = {p for p in pending if p.exitcode is not None}
        if any(p.exitcode for p in ended):
            failed.set()
            _thread.interrupt_main()
            return
        pending -= ended


def payloads(out: Path) -> Iterator[bytes]:
    from ffcv.reader import Reader

    reader = Reader(str(out / "samples.beton"))
    sizes = {int(row["ptr"]): int(row["size"]) for row in reader.alloc_table}
    with (out / "samples.beton").open("rb") as beton:
        for pointer in reader.metadata["f0"]["data_ptr"]:
            beton.seek(int(pointer))
            yield beton.read(sizes[int(pointer)])
