"""Loaders with one known disease each. A function makes the sick loader; with `cured` the same one without the disease.

The images lie in the folder that the variable CLINIC names: `small` (256 x 192 px), `large` (2,000 x 1,500 px), and
`mounted`, which are the small ones on slow storage.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from multiprocessing import Lock
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

_CROP = [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()]
_TENSORS = v2.Compose(_CROP)
_BATCH = 64


def decoded(path: str) -> torch.Tensor:
    """Decode with torchvision."""
    return decode_image(path, ImageReadMode.RGB)


class Repeated(Dataset[Any]):
    """A data set several times over, so that an epoch takes long."""

    def __init__(self, dataset: Dataset[Any], times: int = 100) -> None:
        self.dataset, self.times = dataset, times

    def __len__(self) -> int:
        return self.times * len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]  # type: ignore[arg-type]


def folder(size: str = "small", transform: Any = _TENSORS, loader: Any = decoded, times: int = 100) -> Dataset[Any]:
    """Return the images of one size, decoded by torchvision unless another loader is given."""
    of_class = ImageFolder(Path(os.environ["CLINIC"], size), transform, loader=loader) if loader else ImageFolder(
        Path(os.environ["CLINIC"], size), transform
    )  # fmt: skip
    return Repeated(of_class, times)


def healthy(**changes: Any) -> DataLoader[Any]:
    """No disease: 256 px copies, decoded by torchvision, two persistent workers, bytes."""
    settings = {"batch_size": _BATCH, "shuffle": True, "num_workers": 2, "persistent_workers": True, **changes}
    return DataLoader(settings.pop("dataset", None) or folder(), **settings)


def large_images(*, cured: bool = False) -> DataLoader[Any]:
    """Large files; training sees 224 px of each."""
    return healthy(dataset=folder("small" if cured else "large"))


def slow_decoder(*, cured: bool = False) -> DataLoader[Any]:
    """Pillow decodes and crops."""
    if cured:
        return healthy()
    return healthy(dataset=folder(transform=v2.Compose([*_CROP, v2.PILToTensor()]), loader=None))


def heavy_transform(*, cured: bool = False) -> DataLoader[Any]:
    """A blur with a large kernel."""
    blur = [] if cured else [v2.GaussianBlur(31)]
    return healthy(dataset=folder(transform=v2.Compose([*_CROP, *blur])))


class Stored(Dataset[Any]):
    """Decoded images in memory."""

    def __init__(self, transform: Any) -> None:
        self.images, self.transform = torch.zeros(64, 3, 224, 224), transform

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.images[index % len(self.images)]), index % 10


def large_batches(*, cured: bool = False) -> DataLoader[Any]:
    """Batches of 256 images of 32-bit floats, with next to no other work."""
    transform = v2.ToDtype(torch.uint8 if cured else torch.float32)
    return healthy(dataset=Stored(transform), batch_size=256)


def one_worker(*, cured: bool = False) -> DataLoader[Any]:
    """One worker on two or more cores."""
    return healthy(num_workers=2 if cured else 1)


def many_workers(*, cured: bool = False) -> DataLoader[Any]:
    """Twenty workers for each core; every short epoch starts new ones."""
    cores = os.cpu_count() or 1
    return healthy(dataset=folder(times=20), num_workers=cores if cured else 20 * cores, persistent_workers=False)


def _threads(_: int) -> None:
    torch.set_num_threads(8)


def library_threads(*, cured: bool = False) -> DataLoader[Any]:
    """Eight threads of torch in each worker."""
    turned = v2.Compose([*_CROP, v2.RandomRotation(30)])
    return healthy(dataset=folder(transform=turned), worker_init_fn=None if cured else _threads)


def short_epochs(*, cured: bool = False) -> DataLoader[Any]:
    """New workers for every epoch of a few batches."""
    return healthy(dataset=folder(times=1), persistent_workers=cured)


def _by_python(samples: list[Any]) -> Any:
    images = torch.tensor([image.flatten().tolist() for image, _ in samples], dtype=torch.uint8)
    return images, torch.tensor([label for _, label in samples])


def slow_collate(*, cured: bool = False) -> DataLoader[Any]:
    """Pixels go through lists of Python numbers."""
    return healthy(collate_fn=None if cured else _by_python)


class InMain:
    """Augments batches in the main process."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        yield from map(_augmented, self.loader)


_AUGMENT = v2.Compose([v2.RandomRotation(30), v2.JPEG((50, 90))])


def _augmented(batch: Any) -> Any:
    images, labels = batch
    return torch.stack([_AUGMENT(image) for image in images]), labels


def _collated(samples: list[Any]) -> Any:
    return _augmented(default_collate(samples))


def main_process(*, cured: bool = False) -> Any:
    """The main process turns and recompresses the images."""
    torch.set_num_threads(1)
    return healthy(collate_fn=_collated) if cured else InMain(healthy())


_LOCK = Lock()


def _one_at_a_time(path: str) -> torch.Tensor:
    with _LOCK:
        return _large(path)


def _large(path: str) -> torch.Tensor:
    return v2.functional.resize(decoded(path), [256])


def shared_lock(*, cured: bool = False) -> DataLoader[Any]:
    """All workers read through one lock, for example of an archive's handle."""
    return healthy(dataset=folder("large", loader=_large if cured else _one_at_a_time))


class Leaking(Repeated):
    """Keeps a copy of every sample."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        super().__init__(dataset)
        self.kept: list[Any] = []

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        self.kept.append(image.clone())
        return image, label


def leak(*, cured: bool = False) -> DataLoader[Any]:
    """The data set keeps every sample."""
    return healthy(dataset=None if cured else Leaking(folder().dataset))


def slow_storage(*, cured: bool = False) -> DataLoader[Any]:
    """Files lie on a mounted bucket, behind a network of 10 ms for a round trip."""
    return healthy(dataset=folder("small" if cured else "mounted"))


def make_files(root: Path, seed: int = 0) -> None:
    """Write 64 images of 2,000 x 1,500 px in two classes, and four small copies of each."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for index in range(64):
        smooth, detail = (
            Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).resize((2000, 1500))
            for height, width in ((24, 32), (192, 256))
        )
        image = Image.blend(smooth, detail, 0.3)
        copy = image.copy()
        copy.thumbnail((256, 256))
        for name, shown, times in (("large", image, 1), ("small", copy, 4)):
            place = root / name / f"c{index % 2}"
            place.mkdir(parents=True, exist_ok=True)
            for number in range(times):
                shown.save(place / f"{index:02}_{number}.jpg", quality=90)


for _name in (
    "large_images", "slow_decoder", "heavy_transform", "large_batches", "one_worker", "many_workers", "library_threads",
    "short_epochs", "slow_collate", "main_process", "shared_lock", "leak", "slow_storage",
):  # fmt: skip
    globals()[f"{_name}_cured"] = functools.partial(globals()[_name], cured=True)
