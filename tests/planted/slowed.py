"""ImageFolder with extra work of a known CPU time per image: a regression of known size."""

import time
from contextlib import contextmanager

from loaderbench.loaders import imagefolder

requires = imagefolder.requires
reads = imagefolder.reads
streams = imagefolder.streams


@contextmanager
def stream(artifact, work, *, extra_ms_per_image=0.0):
    from torchvision.datasets import folder

    def load(path):
        image = read(path)
        end_s = time.thread_time() + extra_ms_per_image / 1000
        while time.thread_time() < end_s:
            pass
        return image

    read, folder.default_loader = folder.default_loader, load
    with imagefolder.stream(artifact, work) as batches:
        yield batches
