"""Observe what a contestant delivers of the probe, untimed, in a fresh process; does not judge."""

from __future__ import annotations

import importlib
import shutil
import signal
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderbench.api import Work
from loaderbench.campaign import pixel_values, registry
from loaderbench.certify import probe
from loaderbench.certify.observation import EMPTIED, EPOCHS, HELD_BATCHES, SEEN, Observation, limit_s
from loaderbench.machine import page_cache
from loaderbench.machine.files import take_turn
from loaderbench.trial import device
from loaderbench.trial.checks import InvalidWorkError, pair
from loaderbench.trial.opening import opened
from loaderbench.trial.spec import ObserveSpec

if TYPE_CHECKING:
    from torch import Tensor

KEPT_CROPS = 48
"""Number of delivered images that are kept as pixels."""
PAUSED_BATCHES, PAUSE_S = 3, 0.1
"""This many batches of an epoch are used for this long, as by a training step."""
_ZEROS = bytes(1 << 20)
_STRIDE = 97
"""Every 97th value of a held batch is compared."""


def run(spec: ObserveSpec) -> dict[str, Any]:
    """Observe two epochs, then overwrite the files with zeros and observe whether the loader delivers a further one.

    Writes the observations `SEEN` and `EMPTIED` to the rank's folder below `spec.scratch`. The latter is missing if
    empty files crash the loader. Batches that cannot be observed are reported as status `invalid`.
    """
    try:
        _run(spec)
    except InvalidWorkError as error:
        return {"status": "invalid", "reason": str(error)}
    return {"status": "ok", "reason": ""}


def _run(spec: ObserveSpec) -> None:
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
    shutil.copytree(spec.artifact.path, files)  # follows symbolic links: the files that are overwritten are copies
    artifact = replace(spec.artifact, path=str(files))
    # The limit begins after the turn of others, so that one that hangs does not use up the time of the next. Other
    # ranks may wait for the first one's turn.
    within = _within(limit_s(artifact.samples)) if work.rank == 0 else nullcontext()
    with within, opened(loader, artifact, work, spec.options) as batches:
        seen = _observe([batches] * EPOCHS, work)
        with opened(loader, artifact, work, spec.options) as second:
            again = next(_labels(second), np.empty(0, np.int64))
        Observation(**seen, again_label=again).save(scratch / SEEN)
        if work.ranks > 1:
            _wait_for_all_ranks()
        for path in page_cache.files(files):
            with path.open("r+b") as file:
                for written in range(0, path.stat().st_size, len(_ZEROS)):
                    file.write(_ZEROS[: path.stat().st_size - written])
        # A whole epoch, because a loader may have prefetched its first batches.
        seen = _observe([batches], work)
        Observation(**seen, again_label=again[:0]).save(scratch / EMPTIED)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError if the block takes longer."""

    def end(*_: object) -> None:
        raise TimeoutError(f"the probe takes longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _wait_for_all_ranks() -> None:
    """Wait until every rank has observed its epochs: empty files may crash a rank, and the others with it."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _labels(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[NDArray[np.int64]]:
    for batch in batches:
        _, labels = pair(batch)
        yield labels.reshape(-1).numpy(force=True).astype(np.int64)


def _observe(epochs: Iterable[Iterable[tuple[Tensor, Tensor]]], work: Work) -> dict[str, Any]:
    """Return an `Observation`'s values, except `again_label`."""
    notes, held, copies = _Notes(work), _Held(), device.copies(work)
    for epoch, batches in enumerate(epochs):
        for batch, both in enumerate(batches):
            delivered, labels = pair(both)
            images = copies.bring(delivered) if copies else delivered
            held.hold(images)
            if batch < PAUSED_BATCHES:
                time.sleep(PAUSE_S)
            notes.note(epoch, batch, images, labels)
            held.check_newest()
    return {**notes.columns(), "changed_in_use": held.changed_in_use, "intact_batches": held.intact_batches}


class _Held:
    """Batches that a consumer still uses while further ones come."""

    def __init__(self) -> None:
        self.intact_batches = HELD_BATCHES
        self.changed_in_use = False
        self._held: deque[tuple[Tensor, Tensor]] = deque(maxlen=HELD_BATCHES)

    def hold(self, images: Tensor) -> None:
        """Compare all held batches, the newest first, then hold this one too."""
        for further, (sampled, copy) in enumerate(reversed(self._held), start=1):
            if not sampled.equal(copy):
                self.intact_batches = min(self.intact_batches, further - 1)
        sampled = images.as_strided((images.numel() // _STRIDE,), (_STRIDE,), images.storage_offset())
        self._held.append((sampled, sampled.clone()))

    def check_newest(self) -> None:
        """Compare the newest batch before the next is requested."""
        sampled, copy = self._held[-1]
        self.changed_in_use |= not sampled.equal(copy)


class _Notes:
    """Collects what is seen of batch after batch."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._arrays: defaultdict[str, list[NDArray[Any]]] = defaultdict(list)
        """Parts of the arrays of an `Observation`, by name."""
        self._forms: dict[str, None] = {}
        self._label_forms: dict[str, None] = {}
        self._lowest, self._highest = np.inf, -np.inf
        self._delivered = 0

    def note(self, epoch: int, batch: int, images: Tensor, labels: Tensor) -> None:
        """Collect what is seen of one batch."""
        self._forms.setdefault(_form(images))
        where = "" if labels.device.type == "cpu" else f", on {labels.device.type}"
        self._label_forms.setdefault(f"{labels.dim()}-dimensional, {_dtype(labels)}{where}")
        names = labels.reshape(-1).numpy(force=True).astype(np.int64)
        self._add(image_epoch=np.full(len(names), epoch), image_batch=np.full(len(names), batch), image_label=names)
        if images.dim() == 4 and images.shape[1] == 3:  # noqa: PLR2004 - n x 3 x H x W
            images = pixel_values.unnormalised(images, self._work)
        self._lowest = min(self._lowest, float(images.min()))
        self._highest = max(self._highest, float(images.max()))
        crops = _as_pixels(images, 1 + pixel_values.rounding(self._work))
        if crops is not None and len(crops) == len(names):
            self._add(**vars(probe.read(crops)))
            self._keep(crops)
        self._delivered += len(names)

    def _keep(self, crops: NDArray[Any]) -> None:
        """Keep every fifth crop as pixels, until there are enough."""
        chosen = np.arange(0, len(crops), 5)[: KEPT_CROPS - sum(map(len, self._arrays["kept"]))]
        if len(chosen):
            levels = np.clip(np.rint(crops[chosen]), 0, pixel_values.LEVELS).astype(np.uint8)
            self._add(kept=self._delivered + chosen, crops=levels.transpose(0, 2, 3, 1))

    def _add(self, **parts: NDArray[Any]) -> None:
        for name, part in parts.items():
            self._arrays[name].append(part)

    def columns(self) -> dict[str, Any]:
        """Return the values of an `Observation` that are seen in the batches themselves."""
        none = np.empty(0, int)
        names = ("image_epoch", "image_batch", "image_label", "edges", "flipped", "signatures", "kept")
        return {
            **{name: np.concatenate(self._arrays[name] or [none]) for name in names},
            "crops": np.concatenate(self._arrays["crops"] or [np.empty((0, 1, 1, 3), np.uint8)]),
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
    """Return images as n x 3 x H x W from 0 to 255, whatever the order of their axes and their scale.

    None if they are no images. `one`: floats up to this value count as scaled to 0 to 1.
    """
    if images.dim() != 4 or 3 not in (images.shape[1], images.shape[3]):  # noqa: PLR2004
        return None
    array = (images.float() if images.is_floating_point() else images).numpy(force=True)
    if images.shape[1] != 3:  # noqa: PLR2004
        array = array.transpose(0, 3, 1, 2)
    if images.is_floating_point() and array.max() <= one:
        array = array * pixel_values.LEVELS
    return array
