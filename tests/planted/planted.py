"""A third-party loader of known behaviour."""

import mmap
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loaderbench.machine import page_cache

requires = ("torch",)
reads = ("imagefolder", "planted-writer", "planted-empty")
streams = False
SECOND_SEED = 1_000_003


@contextmanager
def stream(artifact, work, *, behaviour="honest", pid_file="", seconds=0.0):
    import torch

    labels = [label for label, count in enumerate(_per_class(artifact.path)) for _ in range(count)] * work.passes
    labels = SHARES.get(behaviour, _everything)(labels, work)
    images = torch.zeros((work.batch_size, 3, work.image_size, work.image_size), dtype=getattr(torch, work.dtype))
    if behaviour == "share":
        images.share_memory_()
    batches = -(-len(labels) // work.batch_size)

    class Epochs:
        def __len__(self):
            return batches

        def __iter__(self):
            BEFORE_EPOCH.get(behaviour, _nothing)(Path(artifact.path))
            for start in range(0, len(labels), work.batch_size):
                part = torch.tensor(labels[start : start + work.batch_size])
                time.sleep(seconds)
                images[:, 0, 0].random_(1 if behaviour == "repeat" else 2)  # each batch has images of its own
                yield images[: len(part)], part

    if pid_file:
        leave_behind(pid_file)
    with ExitStack() as stack:
        if behaviour == "fork" and not os.fork():
            time.sleep(600)  # like a worker process that nobody ends
        for path in Path(artifact.path).glob("*/*") if behaviour == "map" else ():
            sum(stack.enter_context(_mapped(path))[:: mmap.PAGESIZE])
        yield _cut(Epochs(), 3 * work.rank) if behaviour == "share unevenly, cut" else Epochs()


def _cut(epochs, parts):
    """Split the first batches like the DataModule of Lightning does."""
    from loaderbench.loaders.lightning.datamodule import Epochs

    return Epochs(epochs, len(epochs), parts)


def leave_behind(pid_file):
    """Write the pids of this process and of a child that would outlive it."""
    with open(pid_file, "a") as file:
        for pid in os.getpid(), subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid:
            print(pid, file=file, flush=True)


def _everything(labels, _):
    return labels


def _unevenly(labels, work):
    """Three quarters for rank 0, the rest for rank 1."""
    edge = len(labels) * 3 // 4
    return labels[edge:] if work.rank else labels[:edge]


def _killed_second(labels, work):
    """All labels; the second rank or job is killed after its first batch."""
    return _Deadly(labels) if work.own_seed > SECOND_SEED else labels


class _Deadly(list):
    def __getitem__(self, part):
        if part.start:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(part)


def _nothing(_):
    pass


def _evict_and_read(folder):
    page_cache.evict(folder)
    page_cache.read_through(folder)


def _insist_on_being_alone(_):
    assert not {"RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"} & os.environ.keys()


@contextmanager
def _mapped(path):
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        yield memory


def _per_class(path):
    return [len(os.listdir(os.path.join(path, name))) for name in sorted(os.listdir(path))]


SHARES = {"share unevenly": _unevenly, "share unevenly, cut": _unevenly, "die second": _killed_second}
"""Behaviours that deliver only some of an epoch's labels."""
BEFORE_EPOCH = {
    "evict and leave": page_cache.evict,
    "evict and read": _evict_and_read,
    "insist on being alone": _insist_on_being_alone,
}
