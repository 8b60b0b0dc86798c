"""A Lightning DataModule for any of the loaders.

The Trainer gets no DataLoader and so injects no sampler: each loader shares the epochs between ranks by itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module

from loaderbench.api import Artifact, Loader, Work
from loaderbench.campaign import registry
from loaderbench.machine.text import names


def bases() -> tuple[type, ...]:
    """Return LightningDataModule of each installed package: the Trainer of either takes only its own.

    Raises ImportError if neither `lightning` nor `pytorch_lightning` can be imported.
    """
    found: list[type] = []
    failures: list[ImportError] = []
    for package in ("lightning", "pytorch_lightning"):
        try:
            found.append(importlib.import_module(package).LightningDataModule)
        except ImportError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    return tuple(dict.fromkeys(found))


if TYPE_CHECKING:
    from lightning import LightningDataModule as _Base
else:
    _Base = type("_Base", bases(), {})


class DataModule(_Base):
    """Trains, validates, tests and predicts with any loader, under `lightning` as under `pytorch_lightning`.

    Batches are (images, labels) as `work` requests, by default on the CPU; the Trainer moves them to each rank's
    device. Rank and number of ranks are the Trainer's. Validation, test and prediction show the centre of each image,
    in the stored order, and each image exactly once over all ranks. In training up to ranks - 1 samples of an epoch may
    come once more. It can be pickled, for ranks that are spawned, unless a stream is open.
    """

    def __init__(  # noqa: PLR0913 - one format for each use
        self,
        loader: str | Loader,
        work: Work,
        *,
        train: Artifact | str | Path | None = None,
        val: Artifact | str | Path | None = None,
        test: Artifact | str | Path | None = None,
        predict: Artifact | str | Path | None = None,
        val_transforms: Sequence[Module] = (),
        **options: Any,
    ) -> None:
        """`loader`: a name that `loaderbench adapters` lists, or the loader itself. `train`, `val`, `test`, `predict`:
        formats, or the folders that `loaderbench prepare` prints. `work`: for training; the others differ in order,
        crops, flips, `resizes` and `transforms`, which are `val_transforms`. `options`: of the loader.

        Raises ValueError for an unknown loader or for formats that number their classes differently,
        ModuleNotFoundError for a missing library, FileNotFoundError for a missing format.
        """
        super().__init__()
        self._loader = _named(loader) if isinstance(loader, str) else loader
        self._options = options
        self._formats = {
            name: Artifact.load(given) if given and not isinstance(given, Artifact) else given
            for name, given in {"train": train, "val": val, "test": test, "predict": predict}.items()
        }
        for name, what in (("val", "validation"), ("test", "test")):
            if (first := self._formats["train"]) and (other := self._formats[name]):
                _compare_classes(first.class_names, other.class_names, what)
        self._work = replace(work, lasting=True)  # Lightning may request the next batch while it copies one
        self._val_work = replace(
            self._work, augment="validation", shuffle=False, passes=1, resizes=(), transforms=val_transforms
        )
        self._streams: dict[str, ExitStack] = {}

    def __getstate__(self) -> dict[str, Any]:
        if self._streams:
            raise RuntimeError(f"a DataModule cannot be pickled while it streams: {', '.join(self._streams)}")
        loader = self._loader.__name__ if isinstance(self._loader, ModuleType) else self._loader
        return {**self.__dict__, "_loader": loader}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._loader, str):
            self._loader = importlib.import_module(self._loader)

    def train_dataloader(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Open the stream of training.

        Raises TypeError for a loader without `__len__`, ValueError without a format or if ranks cannot take the same
        number of steps.
        """
        return self._open("train", self._work)

    def val_dataloader(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Open the stream of validation; training goes without if there is no format. Raises as for training."""
        if not self._formats["val"] and not (self.trainer and self.trainer.state.fn == "validate"):
            return []
        return self._open("val", self._val_work)

    def test_dataloader(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Open the stream of the test. Raises as for training."""
        return self._open("test", self._val_work)

    def predict_dataloader(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Open the stream of prediction. Raises as for training."""
        return self._open("predict", self._val_work)

    def teardown(self, stage: str) -> None:  # noqa: ARG002 - Lightning's hook
        """Close all streams: their threads and worker processes end."""
        while self._streams:
            self._streams.popitem()[1].close()

    def on_exception(self, exception: BaseException) -> None:  # noqa: ARG002 - Lightning's hook
        """Close all streams."""
        self.teardown("")

    def _open(self, name: str, work: Work) -> Iterable[tuple[Tensor, Tensor]]:
        if name in self._streams:
            self._streams.pop(name).close()
        if not (artifact := self._formats[name]):
            raise ValueError(f"no format for {name}: give DataModule {name}=, a folder that loaderbench prepare prints")
        if self.trainer:
            work = replace(work, rank=self.trainer.global_rank, ranks=self.trainer.world_size)
        with ExitStack() as opened:
            batches = opened.enter_context(self._loader.stream(artifact, work, **self._options))
            if not isinstance(batches, Sized):
                raise TypeError(
                    "Lightning cannot train with this loader: its stream() gives an object without __len__, the number "
                    "of batches in each of this rank's epochs"
                )
            epochs = Epochs(batches, len(batches), self._lacking(len(batches)))
            opened.callback(epochs.close)
            self._streams[name] = opened.pop_all()
        return epochs

    def _lacking(self, batches: int) -> int:
        """Return how many batches fewer this rank has than the rank that has most."""
        if not self.trainer or self.trainer.world_size == 1:
            return 0
        strategy = self.trainer.strategy
        extremes = strategy.reduce(torch.tensor([batches, -batches], device=strategy.root_device), reduce_op="max")
        return lacking(batches, most=int(extremes[0]), least=-int(extremes[1]), batch_size=self._work.batch_size)


def _named(name: str) -> Loader:
    """Return the loader with a name. Raises ValueError and ModuleNotFoundError as `DataModule` does."""
    adapters = registry.adapters("loader")
    if name not in adapters:
        raise ValueError(f"unknown loader {name}; there are {', '.join(sorted(adapters))}")
    if reason := adapters[name].why_unavailable():
        raise ModuleNotFoundError(f"the loader {name} is unavailable: {reason}")
    return registry.loader(name)


def _compare_classes(train: Sequence[str], other: Sequence[str], what: str) -> None:
    """Raise ValueError if a label means one class in training and another in the other format."""
    if not train or not other:
        return
    differing = [
        f"label {label} is {of_train!r} in training and {of_other!r} in {what}"
        for label, (of_train, of_other) in enumerate(zip_longest(train, other, fillvalue="no class"))
        if of_train != of_other and label < len(other)
    ]
    if differing:
        raise ValueError(
            f"the formats number their classes differently: {names(differing)}. A label is a class's place among all "
            "class folders: give both folders the same ones, where an empty one counts, and prepare the formats again"
        )


def lacking(batches: int, *, most: int, least: int, batch_size: int) -> int:
    """Return how many more batches a rank with `batches` batches needs, to have as many as the rank with most.

    Raises ValueError if the rank with least has too few images to split; in all ranks, so that none waits for another.
    """
    images = (least - 1) * batch_size + 1  # at least: the last batch may be of one image
    if least < most and images < most:
        raise ValueError(
            f"a rank has {least} batches of up to {batch_size} images and another has {most}: too few images to "
            "train together; use fewer ranks, larger batches or more images"
        )
    return most - batches


class Epochs:
    """A stream for Lightning: its length is known, and the same in all ranks.

    Ranks that train together must take the same number of steps, or training hangs. A rank with fewer batches splits
    its first one, and further ones if that has too few images, so that no sample is lost or repeated.
    """

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]], length: int, lacking: int) -> None:
        """`length`: number of batches in the loader's epochs. `lacking`: number of batches to be added by splitting."""
        self.lacking = lacking
        self._batches = batches
        self._length = length + lacking
        self._epoch = self._split([])

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Begin an epoch."""
        self._epoch.close()
        self._epoch = self._split(self._batches)
        return self._epoch

    def _split(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Generator[tuple[Tensor, Tensor]]:
        left = self.lacking
        for batch in batches:
            if not left:
                yield batch
                continue
            images, labels = batch
            parts = min(left + 1, len(labels))
            left -= parts - 1
            yield from zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
        if left:
            raise RuntimeError(f"an epoch of {self._length} batches had too few images: {left} batches are missing")

    def close(self) -> None:
        """End the current epoch and release the loader."""
        self._epoch.close()
        self._batches = []
