"""A loader that reads a MiB of one file for each image, and leaves `kept_mib` of the file in the page cache."""

import os
from contextlib import contextmanager
from pathlib import Path

requires = ("torch",)
reads = ()
streams = False
MIB = 1 << 20


@contextmanager
def stream(artifact, work, *, kept_mib=0):
    import torch

    class Epochs:
        def __iter__(self):
            file = os.open(Path(artifact.path) / "file", os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
            for first in range(0, artifact.samples, work.batch_size):
                for part in range(first, first + work.batch_size):
                    os.pread(file, MIB, part * MIB)
                    if part >= kept_mib:
                        os.posix_fadvise(file, part * MIB, MIB, os.POSIX_FADV_DONTNEED)
                images = torch.zeros((work.batch_size, 3, work.image_size, work.image_size), dtype=torch.uint8)
                yield images, torch.zeros(work.batch_size, dtype=torch.int64)
            os.close(file)

    yield Epochs()
