"""What may a campaign file say? Its tables as frozen models, each with the checks that concern it alone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from loaderbench.api import Encoding, Mode
from loaderbench.campaign.search_space import count_workers

Name = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
NO_UINT8 = "normalised values do not fit into uint8; give a dtype of float32, float16 or bfloat16"
Dtype = Literal["uint8", "float32", "float16", "bfloat16"]


class Table(BaseModel):
    """One of a campaign file, or all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Table):
    """Which images."""

    samples: int | None = Field(4096, ge=1)
    """At most this many, drawn at random from the tree; null takes all."""
    seed: int = 0
    """Seed of the draw and of the synthetic set."""
    split: Literal["train", "val", "test"] | None = None
    """Which part is read where files are named by split; `val` is also written `valid` or `validation` there. null
    takes training, or else the only split that is there, and notes which."""
    probe: int = Field(700, ge=0)
    """Probe images on which contestants are certified; 0 leaves certificates out. The default is enough for the
    distributions, and no multiple of usual batch sizes, so that the last batch is a partial one."""


class WorkSettings(Table):
    """What every contestant delivers."""

    batch_size: int = Field(128, ge=1)
    workers: int | Literal["cores"] = "cores"
    """Decoding threads or processes of each rank and job; `cores`: one in all for each core this process may use."""
    ranks: int = Field(1, ge=1)
    """Processes that share each epoch, as in training on several GPUs; torchrun starts them."""
    jobs: int = Field(1, ge=1)
    """Processes that know nothing of each other and load whole epochs of the same data, as several trainings do."""
    image_size: int = Field(224, ge=1)
    dtype: Dtype = "uint8"
    """All but `uint8`: values scaled to 0 to 1."""
    normalised: bool = False
    """Whether loaders then take off ImageNet's mean and divide by its deviation. If not, that is left to training."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where images are delivered: in the CPU's memory, or on the GPU; of several ranks, on that of each. Each job has
    one of its own, as far as there are some."""
    shuffle: bool = True
    """Whether each epoch comes in a random order of its own, or in the stored one."""
    epoch_images: int = Field(16_384, ge=1)
    """Visit each sample more than once per epoch until an epoch has about this many images."""
    seed: int = 0

    @model_validator(mode="after")
    def _values_fit(self) -> WorkSettings:
        if self.normalised and self.dtype == "uint8":
            raise ValueError(NO_UINT8)
        return self

    @model_validator(mode="after")
    def _one_way_to_be_several(self) -> WorkSettings:
        if self.ranks > 1 and self.jobs > 1:
            message = "ranks share each epoch, and jobs have epochs of their own: one of the two must be 1"
            raise ValueError(message)
        return self

    @property
    def processes(self) -> int:
        """How many there are of a trial: its ranks, or its jobs."""
        return self.ranks * self.jobs

    def count_workers(self) -> int:
        """Return the number of workers on this machine."""
        workers = count_workers(self.workers)
        return max(1, workers // self.processes) if self.workers == "cores" else workers


class Timing(Table):
    """How long, how often."""

    blocks: int = Field(ge=1)
    warmup_s: float = Field(ge=0)
    """From the first batch to the start of the window."""
    window_s: float = Field(gt=0)
    window_batches: int = Field(ge=1)
    """The window is at least this many batches long, so that what a loader prepared ahead weighs little in it."""
    pause_s: float = Field(1.0, ge=0)
    """After the window nothing is asked for so long; what is ready then is what the loader prepares ahead."""
    limit_s: float = Field(gt=0)
    """A trial that takes longer is killed with all its processes."""
    stage_s: float = Field(1.0, ge=0)
    """How long each step of the work is measured by itself in every block, for the limits; 0 leaves them out."""
    reruns: int = Field(0, ge=0, le=2)
    """How often at most a block with a disturbed trial is run again."""
    seed: int = 0
    """Seed of the order within blocks."""


class Format(Table):
    """One way to store the images."""

    name: str = Name
    title: str
    writer: str
    mode: Mode
    max_side: int | None = Field(256, ge=1)
    quality: int = Field(90, ge=1, le=100)
    compress_probability: float = Field(0.5, ge=0, le=1)
    smart_threshold_bytes: int | None = Field(None, ge=0)
    chunk_mib: int | None = Field(None, ge=1)

    @property
    def encoding(self) -> Encoding:
        """The format's encoding."""
        return Encoding(**self.model_dump(exclude={"name", "title", "writer"}))


class OwnWork(Table):
    """What a contestant delivers in place of what the campaign's others do."""

    dtype: Dtype | None = None
    normalised: bool | None = None


class Contestant(Table):
    """One loader with its options on one format."""

    name: str = Name
    title: str
    loader: str
    format: str
    options: dict[str, Any] = {}
    work: OwnWork = OwnWork()
    """Work of its own, with which it is not ranked."""
    apart: str = ""
    """Why its work is of another kind although it delivers what all do, in words, for example that a GPU decodes. It is
    not ranked either, and no step of the work that the CPU does bounds it."""
    control: Literal["twin", "ceiling", "known"] | None = None
    """Not a contestant but a check of the harness: the reference under another name, no loader at all, or a loader of
    known speed and cost."""


class Feeding(Table):
    """Which contestants feed a consumer that is not the hungry one, and for how long."""

    contestants: tuple[str, ...] = Field(min_length=1)
    """Once in every block, warm."""
    warmup_s: float = Field(ge=0)
    window_s: float = Field(gt=0)
    window_batches: int = Field(ge=1)


class TrainingOptions(Table):
    """What is trained."""

    model: str = "resnet18"
    """One of torchvision's, by its name there."""
    cached_s: float = Field(3.0, gt=0)
    """How long to train on one batch that is there, for comparison."""
    loss_steps: int = Field(24, ge=8)
    """After so many steps losses are compared."""


class Training(Feeding):
    """The same for a network in training."""

    options: TrainingOptions = TrainingOptions()


class Consumers(Table):
    """Consumers beside the hungry one, which every contestant feeds."""

    paced: Feeding | None = None
    """An accelerator, emulated, whose demand is swept."""
    train: Training | None = None
    """A network in training, in plain PyTorch."""
    lightning: Training | None = None
    """The same under Lightning's Trainer."""


class Stream(Table):
    """Contestants whose data is in a bucket, over a network that may be limited. Each name runs once in every block."""

    streaming: tuple[str, ...] = ()
    """Read from the bucket as they go, and keep all that they fetch."""
    bounded: tuple[str, ...] = ()
    """The same, and keep no more than `cache_mib`."""
    downloading: tuple[str, ...] = ()
    """Start when all is downloaded."""
    epochs: int = Field(3, ge=2)
    cache_mib: float | None = Field(None, gt=0)
    rate_mib_per_s: float | None = Field(None, gt=0)
    """Of all connections together. None: not limited."""
    latency_ms: float = Field(0, ge=0)
    """Added to each round trip."""
