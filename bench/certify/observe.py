"""What does a contestant deliver of the probe? Runs in a fresh process, untimed; writes down and does not judge."""

from __future__ import annotations

import importlib
import shutil
import time
from collections import deque
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from loaderbench.api import Work
from loaderbench.campaign import pixel_values as values
from loaderbench.campaign import registry
from loaderbench.certify import probe
from loaderbench.machine import page_cache as pagecache
from loaderbench.machine.files import take_turn
from loaderbench.trial import device
from loaderbench.trial.spec import ObserveSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

SEEN, EMPTIED = "seen.npz", "emptied.npz"
EPOCHS = 2
KEPT_CROPS = 48
"""So many delivered images are kept whole."""
HELD_BATCHES = 8
"""So many batches are held and looked at again each time a further one comes."""
_ZEROS = bytes(1 << 20)
_STRIDE = 97
"""One of so many values of a held batch is looked at."""
_OF_EACH = ("image_epoch", "image_label", "edges", "flipped", "signatures", "crops")
"""What there is of every image, or of every one that is kept."""
PAUSED_BATCHES, PAUSE_S = 3, 0.1
"""So many batches of an epoch are used for so long, as a training step would."""
EMPTIED_BATCHES = 3
"""So many batches are asked for once the files are empty."""


@dataclass(frozen=True)
class Observation:
    """What was seen. Arrays named by epoch, batch or image have one entry for each that was delivered, in order."""

    image_epoch: NDArray[np.int64]
    image_batch: NDArray[np.int64]
    """Number of the batch within its epoch."""
    image_label: NDArray[np.int64]
    edges: NDArray[np.float64]
    flipped: NDArray[np.bool_]
    signatures: NDArray[np.uint8]
    """These three as in `probe.Views`; empty if batches have no form that images could be found in."""
    kept: NDArray[np.int64]
    """Numbers, in order of delivery, of the images in `crops`."""
    crops: NDArray[np.uint8]
    """k x H x W x 3."""
    forms: NDArray[np.str_]
    """Each form that batches had: shape but for the first number, dtype, memory format, device."""
    label_forms: NDArray[np.str_]
    lowest: float
    highest: float
    """Over all values of all images, as they were before they were normalised."""
    changed_in_use: bool
    """Whether a batch changed before the next one was asked for."""
    intact_batches: int
    """How many further batches came before one that was held had changed; `HELD_BATCHES` if none ever did."""
    again_label: NDArray[np.int64]
    """Labels of the first batch of a second stream with the same seed, opened later."""

    def save(self, path: Path) -> None:
        """Write it as one file."""
        np.savez(path, allow_pickle=False, **{name: np.asarray(value) for name, value in vars(self).items()})

    @classmethod
    def together(cls, ranks: Sequence[Observation]) -> Observation:
        """Return what all ranks saw, one rank after the other; the batches of each have numbers of their own."""
        arrays = {name: [getattr(rank, name) for rank in ranks] for name in vars(ranks[0])}
        batches = [0, *np.cumsum([rank.image_batch.max(initial=-1) + 1 for rank in ranks])]
        images = [0, *np.cumsum([len(rank.image_label) for rank in ranks])]
        return cls(
            **{name: np.concatenate(arrays[name]) for name in _OF_EACH},
            image_batch=np.concatenate(
                [numbers + n for numbers, n in zip(arrays["image_batch"], batches, strict=False)]
            ),
            kept=np.concatenate([numbers + n for numbers, n in zip(arrays["kept"], images, strict=False)]),
            forms=np.unique(np.concatenate(arrays["forms"])),
            label_forms=np.unique(np.concatenate(arrays["label_forms"])),
            lowest=min(arrays["lowest"]),
            highest=max(arrays["highest"]),
            changed_in_use=any(arrays["changed_in_use"]),
            intact_batches=min(arrays["intact_batches"]),
            again_label=ranks[0].again_label,
        )

    @classmethod
    def load(cls, path: Path) -> Observation:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(**{field.name: stored[field.name][()] for field in fields(cls)})


def run(spec: ObserveSpec) -> dict[str, Any]:
    """Observe two epochs, then empty the files and see what the loader still delivers.

    Writes the observations `SEEN` and `EMPTIED` to the rank's folder below `spec.scratch`. The latter is missing if
    empty files bring the loader down.
    """
    cv2.setNumThreads(1)  # its threads would not survive in the workers that a loader forks later
    loader = registry.loader(spec.loader)
    for name in loader.requires:
        importlib.import_module(name)
    work = spec.work
    device.demand(work)
    if work.rank == 0:
        take_turn(spec.turn)
    scratch = spec.scratch / f"rank{work.rank}"
    scratch.mkdir()
    files = scratch / "files"
    shutil.copytree(spec.artifact.path, files)  # symbolic links followed: what is emptied later is ours
    artifact = replace(spec.artifact, path=str(files))
    with loader.stream(artifact, work, **spec.options) as batches:
        seen = _observe([batches] * EPOCHS, work)
        with loader.stream(artifact, work, **spec.options) as second:
            again = next(_labels(second), np.empty(0, np.int64))
        Observation(**seen, again_label=again).save(scratch / SEEN)
        if work.ranks > 1:
            _wait_for_all_ranks()
        for path in pagecache.files(files):
            with path.open("r+b") as file:
                for written in range(0, path.stat().st_size, len(_ZEROS)):
                    file.write(_ZEROS[: path.stat().st_size - written])
        seen = _observe([islice(batches, EMPTIED_BATCHES)], work)
        Observation(**seen, again_label=again[:0]).save(scratch / EMPTIED)
    return {"status": "ok", "reason": ""}


def _wait_for_all_ranks() -> None:
    """What comes next may bring a rank down, and with it the others."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _labels(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[NDArray[np.int64]]:
    for _, labels in batches:
        yield labels.reshape(-1).numpy(force=True).astype(np.int64)


def _observe(epochs: Iterable[Iterable[tuple[Tensor, Tensor]]], work: Work) -> dict[str, Any]:
    """Return an `Observation`'s values but for `again_label`."""
    notes, held, copies = _Notes(work), _Held(), device.copies(work)
    for epoch, batches in enumerate(epochs):
        for batch, (delivered, labels) in enumerate(batches):
            images = copies.bring(delivered) if copies else delivered
            held.come(images)
            if batch < PAUSED_BATCHES:
                time.sleep(PAUSE_S)
            notes.note(epoch, batch, images, labels)
            held.go()
    return {**notes.columns(), "changed_in_use": held.changed_in_use, "intact_batches": held.intact_batches}


class _Held:
    """Batches that a consumer still uses while further ones come."""

    def __init__(self) -> None:
        self.intact_batches = HELD_BATCHES
        self.changed_in_use = False
        self._held: deque[tuple[Tensor, Tensor]] = deque(maxlen=HELD_BATCHES)

    def come(self, images: Tensor) -> None:
        """Look at all that is held, the newest first, then hold this one too."""
        for further, (sampled, copy) in enumerate(reversed(self._held), start=1):
            if not sampled.equal(copy):
                self.intact_batches = min(self.intact_batches, further - 1)
        sampled = images.as_strided((images.numel() // _STRIDE,), (_STRIDE,), images.storage_offset())
        self._held.append((sampled, sampled.clone()))

    def go(self) -> None:
        """Look at the newest one before the next is asked for."""
        sampled, copy = self._held[-1]
        self.changed_in_use |= not sampled.equal(copy)


class _Notes:
    """Takes down batch after batch."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._rows: dict[str, list[Any]] = {name: [] for name in ("epoch", "batch", "label")}
        self._views: list[probe.Views] = []
        self._forms: dict[str, None] = {}
        self._label_forms: dict[str, None] = {}
        self._crops: list[NDArray[np.uint8]] = []
        self._kept: list[int] = []
        self._lowest, self._highest = np.inf, -np.inf
        self._delivered = 0

    def note(self, epoch: int, batch: int, images: Tensor, labels: Tensor) -> None:
        """Take down one batch."""
        self._forms.setdefault(_form(images))
        where = "" if labels.device.type == "cpu" else f", on {labels.device.type}"
        self._label_forms.setdefault(f"{labels.dim()}-dimensional, {_dtype(labels)}{where}")
        names = labels.reshape(-1).numpy(force=True).astype(np.int64)
        self._rows["epoch"].append(np.full(len(names), epoch))
        self._rows["batch"].append(np.full(len(names), batch))
        self._rows["label"].append(names)
        if images.dim() == 4 and images.shape[1] == 3:  # noqa: PLR2004 - n x 3 x H x W
            images = values.unnormalised(images, self._work)
        self._lowest = min(self._lowest, float(images.min()))
        self._highest = max(self._highest, float(images.max()))
        if (crops := _as_pixels(images, 1 + values.rounding(self._work))) is not None and len(crops) == len(names):
            self._views.append(probe.read(crops))
            if len(self._kept) < KEPT_CROPS:
                chosen = range(0, len(crops), 5)[: KEPT_CROPS - len(self._kept)]
                self._kept += [self._delivered + place for place in chosen]
                levels = (np.clip(np.rint(crops[place]), 0, values.LEVELS) for place in chosen)
                self._crops += [crop.astype(np.uint8).transpose(1, 2, 0) for crop in levels]
        self._delivered += len(names)

    def columns(self) -> dict[str, Any]:
        """Return the arrays of an `Observation` but for what is not seen in the batches themselves."""
        views = {
            field.name: np.concatenate([getattr(view, field.name) for view in self._views] or [np.empty(0)])
            for field in fields(probe.Views)
        }
        rows = {f"image_{name}": np.concatenate(parts or [np.empty(0, int)]) for name, parts in self._rows.items()}
        return {
            **rows,
            **views,
            "kept": np.array(self._kept, int),
            "crops": np.stack(self._crops) if self._crops else np.empty((0, 1, 1, 3), np.uint8),
            "forms": np.array(list(self._forms)),
            "label_forms": np.array(list(self._label_forms)),
            "lowest": self._lowest,
            "highest": self._highest,
        }


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _form(images: Tensor) -> str:
    import torch

    if images.is_contiguous():
        memory = "contiguous"
    elif images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last):  # noqa: PLR2004
        memory = "channels_last"
    else:
        memory = f"strides {images.stride()}"
    return f"{tuple(images.shape[1:])}, {_dtype(images)}; {memory}; {images.device.type}"


def _as_pixels(images: Tensor, one: float) -> NDArray[Any] | None:
    """Return images as n x 3 x H x W from 0 to 255, whatever the order of their axes and their scale; None if they are
    no images. `one`: floats up to this are taken for scaled to 1.
    """
    if images.dim() != 4 or 3 not in (images.shape[1], images.shape[3]):  # noqa: PLR2004
        return None
    array = (images.float() if images.is_floating_point() else images).numpy(force=True)
    if images.shape[1] != 3:  # noqa: PLR2004
        array = array.transpose(0, 3, 1, 2)
    if images.is_floating_point() and array.max() <= one:
        array = array * values.LEVELS
    return array
