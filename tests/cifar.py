"""Data laid out like CIFAR-10 and CIFAR-100, of few images."""

from __future__ import annotations

import numpy as np

from tests.archives import python2_pickle

ROWS = 4
NAMES10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def batch(seed: int, **labels: list[int]) -> dict[bytes, object]:
    pixels = np.random.default_rng(seed).integers(0, 255, (ROWS, 3072), dtype=np.uint8)
    names = [f"{seed}_{row}.png".encode() for row in range(ROWS)]
    given = {key.encode(): values for key, values in labels.items()}
    return {b"batch_label": b"training batch", b"data": pixels, b"filenames": names, **given}


def labels10(seed: int) -> list[int]:
    return [(seed * ROWS + row) % 10 for row in range(ROWS)]


TEN = {
    **{f"data_batch_{n}": batch(n, labels=labels10(n)) for n in range(1, 6)},
    "test_batch": batch(99, labels=labels10(0)),
    "batches.meta": {b"num_cases_per_batch": ROWS, b"label_names": list(NAMES10), b"num_vis": 3072},
}
HUNDRED = {
    "train": batch(1, fine_labels=[19, 29, 0, 99], coarse_labels=[11, 15, 4, 13]),
    "test": batch(2, fine_labels=[1, 2, 3, 4], coarse_labels=[1, 2, 3, 4]),
    "meta": {b"fine_label_names": [], b"coarse_label_names": []},
}
EDITIONS = {
    "cifar-10-python.tar.gz": ("cifar-10-batches-py", TEN),
    "cifar-100-python.tar.gz": ("cifar-100-python", HUNDRED),
}


def files(name: str, dump) -> list[tuple[str, bytes]]:
    folder, batches = EDITIONS[name]
    return [(f"{folder}/{key}", dump(batches[key])) for key in sorted(batches, reverse=True)]


def unpack(name, folder, dump=python2_pickle):
    for path, content in files(name, dump):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder / EDITIONS[name][0]
