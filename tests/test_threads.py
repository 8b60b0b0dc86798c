"""The loader `threads` ends when its stream ends."""

from __future__ import annotations

import threading
from pathlib import Path

from PIL import Image

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.loaders import threads


def test_an_iterator_that_is_left_over_can_be_closed_after_the_stream_has_ended(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(100):
        Image.new("RGB", (256, 256)).save(tmp_path / "a" / f"{number}.jpg")
    artifact = Artifact("files", str(tmp_path), 100, 0, 0, 0, Encoding("jpeg"), classes=1, label_counts=(100,))
    with threads.stream(artifact, Work(batch_size=2, workers=1, image_size=32), prefetch_factor=50) as batches:
        epoch = iter(batches)
        next(epoch)  # and 49 batches wait for the only thread
    closing = threading.Thread(target=epoch.close, daemon=True)
    closing.start()
    closing.join(timeout=20)
    assert not closing.is_alive()
