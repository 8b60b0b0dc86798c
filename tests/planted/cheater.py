"""A third-party loader that does the requested work, except for one cheat."""

from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from loaderbench.api import Crop, random_crop

requires = ("torch",)
reads = ("imagefolder", "planted-lossy")
streams = False


PREFETCHES, PREFETCHED = "prefetches over the end of the epoch", 4
"""No cheat. The prefetched batches are drawn again, so that it takes no bookkeeping."""


@contextmanager
def stream(artifact, work, *, cheat=""):
    import torch

    paths = sorted(Path(artifact.path).glob("*/*"))
    shared = np.random.default_rng(work.seed)
    random = np.random.default_rng(work.seed if cheat == "draws alike in all ranks" else work.own_seed)
    share = slice(None) if cheat == "gives every rank all" else slice(work.rank, None, work.ranks)
    read = cache(_read) if cheat == "decodes once" else _read
    cut, deliver = CUTS.get(cheat, _requested), DELIVERIES.get(cheat, lambda images, _: images)

    def one(index):
        pixels = read(paths[index])
        if cheat == "halves images":
            pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        crop = cut(pixels.shape[:2], random)
        part = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        interpolation = cv2.INTER_NEAREST if cheat == "takes the nearest pixels" else cv2.INTER_AREA
        made = cv2.resize(part, (work.image_size, work.image_size), interpolation=interpolation)
        return made[:, ::-1] if crop.flipped else made

    class Epochs:
        begun = 0
        ready = ()

        def __iter__(self):
            self.begun += 1
            while cheat == "never ends":
                yield from self.batches()
            if cheat == "delivers nothing" or (cheat == "has one epoch" and self.begun > 1):
                return
            if cheat == PREFETCHES and self.begun > 1:
                yield from self.ready
                yield from islice(self.batches(), PREFETCHED, None)
            else:
                yield from self.batches()
            if cheat == PREFETCHES:
                self.ready = list(islice(self.batches(), PREFETCHED))

        def batches(self):
            order = ORDERS.get(cheat, _shuffled)(np.arange(len(paths)), shared, work.batch_size)[share]
            for start in range(0, len(order), work.batch_size):
                chosen = order[start : start + work.batch_size]
                images = np.stack([one(index) for index in chosen]).transpose(0, 3, 1, 2)
                labels = (chosen + (cheat == "shifts labels")) % len(paths) + LABELS.get(cheat, 0)
                yield torch.from_numpy(deliver(np.ascontiguousarray(images), random)), torch.from_numpy(labels)

    yield Epochs()


def _read(path):
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise ValueError(f"{path} is no image")
    return pixels[:, :, ::-1]


def _shuffled(samples, random, _):
    return random.permutation(samples)


def _repeated(samples, random, batch_size):
    return np.resize(random.permutation(samples)[:batch_size], len(samples))


def _first_batch(samples, random, batch_size):
    return random.permutation(samples)[:batch_size]


def _dropped(samples, random, _):
    return random.permutation(samples)[: -len(samples) // 100]


def _exchanged(samples, random, _):
    """Five samples twice, and five others not at all."""
    order = random.permutation(samples)
    order[:5] = order[-5:]
    return order


def _stored(samples, _random, _):
    return samples


def _windows(samples, random, _):
    return np.concatenate([random.permutation(part) for part in np.array_split(samples, 6)])


def _once(samples, _random, _):
    return np.random.default_rng(7).permutation(samples)


def _padded(samples, random, batch_size):
    order = random.permutation(samples)
    return np.concatenate([order, order[: -len(order) % batch_size]])


def _middle(size, random):
    height, width = size
    return Crop(height // 4, width // 4, height // 2, width // 2, bool(random.integers(2)))


def _requested(size, random):
    return random_crop(size, random.random)


def _unflipped(size, random):
    return _requested(size, random)._replace(flipped=False)


IN_USE = []
"""What happens while the newest batch is in use. The test calls it, so that no thread has to do it in time."""


def _overwritten(images, random):
    IN_USE[:] = [lambda: images.fill(random.integers(255))]
    return images


ORDERS = {
    "repeats a batch": _repeated,
    "delivers one batch": _first_batch,
    "drops samples": _dropped,
    "exchanges samples": _exchanged,
    "ignores shuffle": _stored,
    "shuffles in windows": _windows,
    "shuffles once": _once,
    "pads the last batch": _padded,
}
LABELS = {"has huge labels": 10**15, "has negative labels": -(10**6)}
CUTS = {"cuts the middle": _middle, "never flips": _unflipped}
DELIVERIES = {
    "delivers floats": lambda images, _: images.astype(np.float32),
    "delivers channels last": lambda images, _: np.ascontiguousarray(images.transpose(0, 2, 3, 1)),
    "overwrites batches": _overwritten,
}
