"""A third-party loader with one fault."""

import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

requires = ()
reads = ("imagefolder",)
streams = False


def stream(artifact, work, *, fault="nothing"):
    return STREAMS.get(fault, managed)(artifact, work, fault)


def plain(artifact, work, fault):
    yield from batches(artifact, work)


@contextmanager
def managed(artifact, work, fault):
    if fault in AT_OPENING:
        AT_OPENING[fault]()
    yield Epochs(artifact, work, fault) if fault != "one epoch" else batches(artifact, work)
    if fault == "hangs at its end":
        time.sleep(600)


@contextmanager
def swallowing(artifact, work, fault):
    with suppress(BaseException):
        yield Epochs(artifact, work, "dict")


class Epochs:
    def __init__(self, artifact, work, fault):
        self.artifact, self.work, self.fault = artifact, work, fault

    def __iter__(self):
        for number, batch in enumerate(batches(self.artifact, self.work) if self.fault != "no batch" else ()):
            if number == 2 and self.fault in IN_EPOCH:
                IN_EPOCH[self.fault]()
            yield CHANGES.get(self.fault, lambda batch: batch)(batch)


def batches(artifact, work):
    import torch

    labels = [
        label
        for label, name in enumerate(sorted(os.listdir(artifact.path)))
        for _ in os.listdir(Path(artifact.path, name))
    ]
    labels = torch.tensor(labels * work.passes)
    images = torch.zeros((work.batch_size, 3, work.image_size, work.image_size), dtype=torch.uint8)
    for part in labels.split(work.batch_size):
        images[:, 0, 0].random_(2)
        yield images[: len(part)].clone(), part


def _raise(error):
    def act():
        raise error

    return act


STREAMS = {"plain": plain, "swallows": swallowing}
AT_OPENING = {
    "refuses": _raise(NotImplementedError("no such work")),
    "hangs at its beginning": lambda: time.sleep(600),
}
IN_EPOCH = {
    "gives up": _raise(NotImplementedError("no third batch")),
    "exits": lambda: sys.exit("the planted exit"),
    "ends": lambda: os._exit(0),
    "interrupts": _raise(KeyboardInterrupt()),
    "raises": _raise(BaseException("neither an Exception")),
    "crashes": lambda: os.kill(os.getpid(), 11),
    "prints": lambda: print("x" * (8 << 20)),
}
CHANGES = {
    "dict": lambda batch: {"image": batch[0], "label": batch[1]},
    "three": lambda batch: (*batch, 7),
    "arrays": lambda batch: [part.numpy() for part in batch],
    "float labels": lambda batch: (batch[0], batch[1].float()),
    "no labels": lambda batch: batch[0],
}
