"""What does an adapter see? The types shared by the harness, writers and loaders; standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from torch import Tensor
    from torch.nn import Module

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, of 0 to 1, as they are commonly normalised with."""
CHANNELS = 3
"""Red, green and blue."""
_DESCRIPTION = "artifact.json"
Mode = Literal["original", "raw", "jpeg", "jpeg-reencoded", "proportion", "smart"]


@dataclass(frozen=True)
class Encoding:
    """How a format stores each image."""

    mode: Mode
    """`original`: the source files as they are; `raw`: pixels; `jpeg`: JPEG bytes; `jpeg-reencoded`: what the library
    makes of the JPEG bytes if it is given them as an opened image; `proportion` and `smart`: FFCV's mixtures of pixels
    and JPEG bytes."""
    max_side: int | None = 256
    """Longest side in pixels; larger images are shrunk to it, smaller ones are kept. None keeps every size."""
    quality: int = 90
    """JPEG quality, 1 to 100."""
    compress_probability: float = 0.5
    """`proportion` only: the share of images stored as JPEG, 0 to 1."""
    smart_threshold_bytes: int | None = None
    """`smart` only: images whose pixels take more bytes than this are stored as JPEG. None stores all as pixels."""
    chunk_mib: int | None = None
    """Size of the files, where a writer puts several samples into each of several files. None: as it sees fit."""


class Source(Protocol):
    """The images a writer stores: canonical pixels and JPEG bytes, the same for every format. Picklable."""

    classes: tuple[str, ...]
    """Class names; a label is an index into them."""

    def __len__(self) -> int:
        """Return the number of samples."""
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
    """One format of the data set on disk, whole and verified."""

    format: str
    """The format's name in the campaign."""
    path: str
    """The folder that the writer filled; for a loader that `streams` perhaps the s3:// URL of what is in it."""
    samples: int
    label_sum: int
    """Sum of all labels, which every epoch must deliver."""
    size_bytes: int
    """Bytes on disk: the artifact's files, symbolic links followed."""
    payload_bytes: int
    """The part of them that holds images, and that reading every sample must read."""
    encoding: Encoding
    classes: int = 1
    """How many there are; labels are less."""
    cache: str = ""
    """With a URL: the empty folder in which a loader keeps what it fetches. The harness removes it."""
    cache_bytes: int | None = None
    """With a URL: the most that the loader may keep there at a time. None: all of it."""

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Artifact:
        """Return what `dataclasses.asdict` was made of."""
        return cls(**{**stored, "encoding": Encoding(**stored["encoding"])})

    @classmethod
    def load(cls, folder: str | Path) -> Artifact:
        """Return the format in a folder that `loaderbench prepare` names. Raises FileNotFoundError."""
        description = Path(folder, _DESCRIPTION)
        if not description.is_file():
            raise FileNotFoundError(f"{folder} holds no prepared format: take a folder that loaderbench prepare names")
        return cls.from_dict({**json.loads(description.read_text()), "path": str(Path(folder).resolve() / "files")})

    def describe(self) -> None:
        """Write beside the writer's folder, which is named `files`, what `load` reads."""
        description, text = Path(self.path).with_name(_DESCRIPTION), json.dumps(asdict(self), indent=1)
        if not description.exists() or description.read_text() != text:
            partial = description.with_suffix(".partial")
            partial.write_text(text)
            partial.replace(description)  # at once: it may be read meanwhile


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every loader must deliver, whatever its own defaults: batches of random resized crops (area 0.08 to 1,
    aspect 3/4 to 4/3), flipped left to right with probability 0.5, with their labels.

    Images are `dtype` tensors of shape (n, 3, image_size, image_size), n <= batch_size; labels are integer tensors of
    shape (n,). Every epoch delivers every sample exactly `passes` times; the last partial batches are kept.

    With more ranks than one, this holds for all of them together: each is a process of its own that gets its share, as
    in distributed training, in a process group of torch's that is there before `stream` is called. Where the ranks do
    not divide an epoch, up to `ranks` - 1 samples may come once more, as torch's `DistributedSampler` has it; in
    validation none does, and ranks may get unequal numbers of batches.
    """

    batch_size: int
    workers: int
    """Threads or processes that decode, in each rank."""
    image_size: int
    """Height and width of the delivered crop in pixels."""
    dtype: str = "uint8"
    """Name of the delivered torch dtype: `uint8`, or `float32`, `float16` or `bfloat16` with values scaled to 0 to
    1."""
    passes: int = 1
    """How often an epoch visits each sample, so that a small data set still gives a long epoch."""
    seed: int = 0
    shuffle: bool = True
    """Whether each epoch comes in a random order of its own; otherwise all come in the stored order, of which each
    worker may have its own part.
    """
    rank: int = 0
    ranks: int = 1
    normalised: bool = False
    """Whether scaled values have `MEAN` taken off and are divided by `DEVIATION`; never of uint8."""
    augment: Literal["train", "validation"] = "train"
    """`validation`: neither random crops nor flips, but of each image the square in its middle, resized."""
    centre: float = 224 / 256
    """In validation, the side of that square as a share of the image's shorter side: by default what Resize(256) and
    CenterCrop(224) show. 1.0 shows as much as a square can."""
    resizes: tuple[tuple[int, int], ...] = ()
    """Progressive resolution: (epoch, image size) pairs. From that epoch of the stream on, counted from 0, images have
    that size in place of `image_size`."""
    transforms: Sequence[Module] = ()
    """Further steps, such as torchvision's, on what would be delivered without them: each gets one image or a whole
    batch, as the library has it."""
    lasting: bool = False
    """Whether a batch stays as it is after the next one was asked for: a copy to a device may still be under way."""
    device: str = "cpu"
    """Where torch shall have the images: `cpu`, or `cuda`, the process's current device; labels always in the CPU's
    memory. For `cuda` a loader may leave them in the CPU's memory too: the harness copies them, and meanwhile asks for
    the next batch. One that uses the memory of a batch again must deliver on the device."""

    @property
    def own_seed(self) -> int:
        """Seed of what must differ between ranks, such as crops. The order needs `seed`, which they share.

        Differs in its lower 32 bits, the only ones that torch's generator for CPUs looks at.
        """
        return self.seed + 1_000_003 * self.rank

    def size_in(self, epoch: int) -> int:
        """Return the image size of an epoch of the stream, counted from 0."""
        begun = [pair for pair in self.resizes if pair[0] <= epoch]
        return max(begun)[1] if begun else self.image_size


class Writer(Protocol):
    """Stores a source in one library's format: a module in `writers/`, or any module behind the entry point group
    `loaderbench.writers`. The harness times it, verifies what it stored and moves that into place.
    """

    requires: tuple[str, ...]
    """Import names of the libraries it needs; the first one's version is recorded."""
    modes: tuple[Mode, ...]
    """Encoding modes it can write."""
    resumes: bool
    """Whether `write` goes on where it was stopped or killed, as it can where a format is many files."""

    def write(self, source: Source, out: Path, encoding: Encoding, workers: int) -> None:
        """Fill the folder `out`. Raise on any failure; the harness removes what is left, unless the writer `resumes`.

        `out` is empty, unless the writer `resumes`: then it may hold what `write` of the same source and encoding had
        left there when it was stopped or killed at any point. What comes of it must hold the same images.
        """
        ...

    def payloads(self, out: Path) -> Iterator[bytes]:
        """Yield what is stored of each image, in the source's order, read back from `out`: the bytes of the pixels
        (H x W x 3) or of the encoded file.
        """
        ...


class Loader(Protocol):
    """Delivers batches from one library's format: a module in `loaders/`, or any module behind the entry point group
    `loaderbench.loaders`. It never measures.
    """

    requires: tuple[str, ...]
    """Import names of the libraries it needs; the first one's version is recorded."""
    reads: tuple[str, ...]
    """Names of the writers whose formats it reads; empty if it reads none, and any will do."""
    streams: bool
    """Whether it reads formats from S3 itself, given a URL for a path. Credentials and endpoint come by AWS's usual
    chain, and through the proxy that `HTTPS_PROXY` names."""

    def stream(
        self, artifact: Artifact, work: Work, **options: Any
    ) -> AbstractContextManager[Iterable[tuple[Tensor, Tensor]]]:
        """Construct the library's loader for `work`. Each `iter()` over what is entered is one epoch of (images,
        labels), in an order of its own; its `len` is the number of their batches, which the DataModule needs and the
        harness does not. `options` are the contestant's settings: keyword arguments with defaults.

        Raise NotImplementedError, with the reason, for work that the library cannot do.
        """
        ...
