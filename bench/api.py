"""The types that an adapter sees, shared by the harness, writers and loaders; standard library only."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from torch import Tensor
    from torch.nn import Module

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet channel means and standard deviations (RGB, values 0 to 1)."""
CHANNELS = 3
"""Red, green and blue."""
_DESCRIPTION = "artifact.json"
Mode = Literal["original", "raw", "jpeg", "jpeg-reencoded", "proportion", "smart"]


@dataclass(frozen=True)
class Encoding:
    """How a format stores each image."""

    mode: Mode
    """`original`: the source files unchanged; `raw`: pixels; `jpeg`: JPEG bytes; `jpeg-reencoded`: the library gets the
    JPEG bytes as an opened image and encodes it again; `proportion` and `smart`: FFCV's mixtures of pixels and JPEG
    bytes."""
    max_side: int | None = 256
    """Longest side in pixels. Larger images are shrunk to it, smaller ones are kept. None keeps every size."""
    quality: int = 90
    """JPEG quality, 1 to 100."""
    compress_probability: float = 0.5
    """`proportion` only: the share of images stored as JPEG, 0 to 1."""
    smart_threshold_bytes: int | None = None
    """`smart` only: images whose pixels take more bytes than this are stored as JPEG. None stores all as pixels."""
    chunk_mib: int | None = None
    """File size, for a writer that stores several samples in each of several files. None: the writer chooses."""


class Source(Protocol):
    """The images that a writer stores: canonical pixels and JPEG bytes, the same for every format. Picklable."""

    classes: tuple[str, ...]
    """Class names; a label is an index into them."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def shape(self, index: int) -> tuple[int, int]:
        """Return height and width of the canonical pixels of one sample, without reading them."""
        ...

    def pixels(self, index: int) -> np.ndarray:
        """Return the canonical pixels of one sample: uint8, H x W x 3, RGB."""
        ...

    def jpeg(self, index: int) -> bytes:
        """Return the canonical JPEG bytes of one sample."""
        ...

    def label(self, index: int) -> int:
        """Return the class index of one sample."""
        ...

    def original(self, index: int) -> Path:
        """Return the user's own file of one sample. It must only be read."""
        ...


@dataclass(frozen=True)
class Artifact:
    """One format of the data set on disk, complete and verified."""

    format: str
    """The format's name in the campaign."""
    path: str
    """The folder that the writer filled. A loader that `streams` may get an s3:// URL with the same content."""
    samples: int
    label_sum: int
    """Sum of all labels."""
    size_bytes: int
    """Bytes on disk of all files, symbolic links followed."""
    payload_bytes: int
    """The part of them that holds images, and that must be read to read every sample."""
    encoding: Encoding
    classes: int = 1
    """Number of classes; labels are less than this."""
    class_names: tuple[str, ...] = ()
    """Their names; a label is an index into them. Empty if they are unknown."""
    label_counts: tuple[int, ...] = ()
    """Number of samples of each class, which every epoch must deliver. Empty if unknown; then their sum must be
    `label_sum`."""
    cache: str = ""
    """With a URL: an empty folder for what the loader fetches. The harness removes it."""
    cache_bytes: int | None = None
    """With a URL: maximum size of that folder at any time. None: no limit."""

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Artifact:
        """Return the artifact that `dataclasses.asdict` converted."""
        sequences = {name: tuple(stored.get(name, ())) for name in ("class_names", "label_counts")}
        return cls(**{**stored, **sequences, "encoding": Encoding(**stored["encoding"])})

    @classmethod
    def load(cls, folder: str | Path) -> Artifact:
        """Return the format in a folder that `loaderbench prepare` has printed. Raises FileNotFoundError."""
        folder = Path(folder).expanduser()
        description = folder / _DESCRIPTION
        if not description.is_file():
            raise FileNotFoundError(f"{folder}: no prepared format. Use a folder that loaderbench prepare prints.")
        return cls.from_dict({**json.loads(description.read_text()), "path": str(folder.resolve() / "files")})

    def describe(self) -> None:
        """Write the file that `load` reads, beside the writer's folder, which is named `files`."""
        description, text = Path(self.path).with_name(_DESCRIPTION), json.dumps(asdict(self), indent=1)
        if not description.exists() or description.read_text() != text:
            partial = description.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            with partial.open("x") as file:  # no link is followed
                file.write(text)
            partial.replace(description)  # in one step, because it may be read meanwhile


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every loader must deliver, whatever its own defaults: batches of random resized crops (area 0.08 to 1,
    aspect 3/4 to 4/3), flipped left to right with probability 0.5, with their labels.

    Images are `dtype` tensors of shape (n, 3, image_size, image_size), n <= batch_size; labels are integer tensors of
    shape (n,). Every epoch delivers every sample exactly `passes` times; the last partial batches are kept.

    With several ranks, this holds for all of them together. Each rank is a process that gets its share, as in
    distributed training; torch's process group exists before `stream` is called. If the samples of an epoch cannot be
    shared evenly, up to `ranks` - 1 samples may come once more, as with torch's `DistributedSampler`. In validation no
    sample comes twice, and ranks may get unequal numbers of batches.
    """

    batch_size: int
    workers: int
    """Number of threads or processes that decode, in each rank."""
    image_size: int
    """Height and width of the delivered crop in pixels."""
    dtype: str = "uint8"
    """Name of the delivered torch dtype: `uint8`, or `float32`, `float16` or `bfloat16` with values scaled to 0 to
    1."""
    passes: int = 1
    """Number of times that an epoch visits each sample. More than 1 gives a small data set a long epoch."""
    seed: int = 0
    shuffle: bool = True
    """Whether each epoch has its own random order. Otherwise each has the stored order; each worker may read its own
    part of it."""
    rank: int = 0
    ranks: int = 1
    normalised: bool = False
    """Whether `MEAN` is subtracted from scaled values and the result divided by `DEVIATION`; never with uint8."""
    augment: Literal["train", "validation"] = "train"
    """`validation`: no random crops and flips, but the centre square of each image, resized."""
    centre: float = 224 / 256
    """In validation, the side of that square over the image's shorter side. The default is what Resize(256) and
    CenterCrop(224) show. 1.0 shows the largest square."""
    resizes: tuple[tuple[int, int], ...] = ()
    """Progressive resolution: (epoch, image size) pairs. From that epoch of the stream on, counted from 0, images have
    that size instead of `image_size`."""
    transforms: Sequence[Module] = ()
    """Further transforms, such as torchvision's, applied to the images that would be delivered without them. Each gets
    one image or a whole batch, as suits the library."""
    lasting: bool = False
    """Whether a batch must stay valid after the next one is requested, as for a copy to a device in the background."""
    device: str = "cpu"
    """Device of the images: `cpu`, or `cuda`, the process's current device. Labels are always in the CPU's memory.
    For `cuda` a loader may leave images in the CPU's memory: the harness copies them, and meanwhile requests the next
    batch. A loader that reuses batch buffers must deliver on the device."""

    @property
    def own_seed(self) -> int:
        """Seed for what must differ between ranks, such as crops. For the order, use `seed`, which ranks share.

        Ranks differ in the lower 32 bits, because torch's CPU generator ignores the others.
        """
        return self.seed + 1_000_003 * self.rank

    def size_in(self, epoch: int) -> int:
        """Return the image size of an epoch of the stream, counted from 0."""
        begun = [pair for pair in self.resizes if pair[0] <= epoch]
        return max(begun)[1] if begun else self.image_size


class Crop(NamedTuple):
    """The part of an image that is delivered, in pixels, and whether it is flipped left to right."""

    top: int
    left: int
    height: int
    width: int
    flipped: bool


def random_crop(size: Sequence[int], random: Callable[[], float]) -> Crop:
    """Draw the crop that `Work` requests, as torchvision's RandomResizedCrop does.

    `size`: height and width of the image. `random`: returns the next random number from 0 to 1, without 1. If 10 draws
    do not fit into a narrow image, the crop is the largest part of its centre with a permitted aspect.
    """
    height, width = size
    flipped = random() < 0.5  # noqa: PLR2004 - half of all images
    for _ in range(10):
        area = height * width * (0.08 + 0.92 * random())
        aspect = (3 / 4) * (16 / 9) ** random()  # from 3/4 to 4/3, log-uniform
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return Crop(int((height - h + 1) * random()), int((width - w + 1) * random()), h, w, flipped)
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return Crop((height - h) // 2, (width - w) // 2, h, w, flipped)


class Writer(Protocol):
    """Stores a source in one library's format: a module in `writers/`, or any module behind the entry point group
    `loaderbench.writers`. The harness times it, verifies the stored format and moves it into place.
    """

    requires: tuple[str, ...]
    """Import names of the required libraries; the version of the first one is recorded."""
    modes: tuple[Mode, ...]
    """Encoding modes that it can write."""
    resumes: bool
    """Whether `write` resumes after an interrupt or a kill, as it can if a format has many files."""

    def write(self, source: Source, out: Path, encoding: Encoding, workers: int) -> None:
        """Write the format to the folder `out`. Raise on any failure; the harness then removes the folder.

        `out` is empty, unless the writer `resumes`. Then it may hold the partial result of a `write` of the same source
        and encoding that was interrupted at any point, and the final result must hold the same images.
        """
        ...

    def payloads(self, out: Path) -> Iterator[bytes]:
        """Read the format in `out` back and yield what it stores of each image, in the source's order.

        That is the bytes of the pixels (H x W x 3) or of the encoded file.
        """
        ...


class Loader(Protocol):
    """Delivers batches from one library's format: a module in `loaders/`, or any module behind the entry point group
    `loaderbench.loaders`. It never measures.

    If worker processes pass batches on through /dev/shm, the module may have a function `shared_memory_bytes(work,
    **options)`, which returns how much of it they fill at most. The harness then compares that with what there is.

    If the library can shuffle only parts of the samples together, the module may have a function
    `partial_order(artifact, work, **options)`. It returns None if these options shuffle all samples together, or else
    an iterator over the order of each epoch, as indices of samples. The certificate then says how far from random that
    is.
    """

    requires: tuple[str, ...]
    """Import names of the required libraries; the version of the first one is recorded."""
    reads: tuple[str, ...]
    """Names of the writers whose formats it reads. Empty if it reads nothing and accepts any format, as calibration
    loaders do; then its images may all be the same."""
    streams: bool
    """Whether it reads formats from S3 by itself, given a URL as the path. It must take credentials and endpoint from
    AWS's usual chain, and use the proxy that `HTTPS_PROXY` names."""

    def stream(
        self, artifact: Artifact, work: Work, **options: Any
    ) -> AbstractContextManager[Iterable[tuple[Tensor, Tensor]]]:
        """Open the library's loader for `work`, as a context manager.

        Each `iter()` over the entered object is one epoch of (images, labels). Its `len`, the number of batches, is
        needed by the DataModule but not by the harness. `options` are the contestant's settings: keyword arguments
        with defaults. A value that does not fit an option's annotation, such as `Annotated[int, Ge(1)]`, is refused
        before anything runs.

        Raise NotImplementedError, with the reason, for work that the library does not support, at the latest when the
        context manager is entered.
        """
        ...
