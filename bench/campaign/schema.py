"""Tables of a campaign file as frozen models, each with the checks that concern it alone."""

from __future__ import annotations

import operator
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from loaderbench.api import Encoding, Mode
from loaderbench.machine.cores import core_count

Name = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
NO_UINT8 = "normalised values do not fit into uint8; use a dtype of float32, float16 or bfloat16"
Dtype = Literal["uint8", "float32", "float16", "bfloat16"]
_OF_CORES = {"-": operator.sub, "+": operator.add, "*": operator.mul, "/": operator.floordiv}


class Table(BaseModel):
    """A table of a campaign file, or all of it. Each number has a lower bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, allow_inf_nan=False)


class Data(Table):
    """The images."""

    samples: int | None = Field(4096, ge=1)
    """Maximum number of images, drawn at random from the tree; null takes all."""
    seed: int = Field(0, ge=0)
    """Seed of the draw and of the synthetic set."""
    split: Literal["train", "val", "test"] | None = None
    """The split to read if files are named by split; `valid` and `validation` count as `val`. null reads train, or else
    the only split that is there, and notes which."""
    probe: int = Field(700, ge=0)
    """Minimum number of probe images on which contestants are certified; 0 skips certificates. The default suffices for
    the distributions, and is no multiple of usual batch sizes, so that the last batch is incomplete. Large batches get
    more images, so that an epoch has at least five and an incomplete one."""


class WorkSettings(Table):
    """The work that every contestant delivers."""

    batch_size: int = Field(128, ge=1)
    workers: Annotated[int, Field(ge=1)] | Literal["cores"] = "cores"
    """Decoding threads or processes of each rank and job; `cores`: one for each core that may be
    used, over all of them; a CPU quota of 1.5 cores counts as 2."""
    ranks: int = Field(1, ge=1)
    """Processes that share each epoch, as in training on several GPUs."""
    jobs: int = Field(1, ge=1)
    """Independent processes that each load full epochs of the same data, as several trainings do."""
    image_size: int = Field(224, ge=1)
    dtype: Dtype = "uint8"
    """Values of all types but `uint8` are scaled to 0 to 1."""
    normalised: bool = False
    """Whether the loader subtracts ImageNet's mean and divides by its standard deviation, or training does."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where images are delivered: in the CPU's memory or on the GPU. Each rank and job has a GPU of its own, as far as
    there are enough."""
    shuffle: bool = True
    """Whether each epoch has a random order of its own, or the stored one."""
    epoch_images: int = Field(16_384, ge=1)
    """A smaller data set is visited several times in each epoch, so that an epoch has about this many images."""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _values_fit(self) -> WorkSettings:
        if self.normalised and self.dtype == "uint8":
            raise ValueError(NO_UINT8)
        return self

    @model_validator(mode="after")
    def _one_kind_of_processes(self) -> WorkSettings:
        if self.ranks > 1 and self.jobs > 1:
            raise ValueError("ranks share each epoch and jobs load full ones: set ranks or jobs to 1")
        return self

    @property
    def processes(self) -> int:
        """The number of processes of a trial: its ranks or its jobs."""
        return self.ranks * self.jobs

    def count_workers(self) -> int:
        """Return the number of workers on this machine."""
        workers = count_workers(self.workers)
        return max(1, workers // self.processes) if self.workers == "cores" else workers


class WindowTable(Table):
    """How long a trial warms up and is measured."""

    warmup_s: float = Field(ge=0)
    """From the first batch to the start of the window."""
    window_s: float = Field(gt=0)

    def window(self) -> dict[str, Any]:
        """Return what the table sets of a trial's window."""
        return self.model_dump(include={"warmup_s", "window_s", "window_batches", "pause_s"})


class Timing(WindowTable):
    """How long and how often contestants are measured."""

    blocks: int = Field(ge=1)
    window_batches: int = Field(ge=1)
    """Minimum number of batches in the window, so that prefetched batches weigh little in it."""
    pause_s: float = Field(1.0, ge=0)
    """Pause after the window. Batches that are ready when it ends were prefetched."""
    limit_s: float = Field(gt=0)
    """Time limit of a trial, after which it is killed with all its processes. A trial that must load more than
    fits into it at 100 images/s has a longer one. A limited network adds its own time."""
    stage_s: float = Field(1.0, ge=0)
    """How long each step of the work is measured by itself in every block, for the machine limits; 0 skips them."""
    reruns: int = Field(0, ge=0, le=2)
    """Maximum number of further attempts at a block with a trial that was disturbed from outside."""
    seed: int = Field(0, ge=0)
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
    """Work of one contestant that differs from the campaign's."""

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
    """Its own work, with which it is not ranked."""
    apart: str = ""
    """Why it is not ranked although it delivers the same, for example because a GPU decodes. No machine limit of the
    CPU's steps applies to it."""
    control: Literal["twin", "ceiling", "known"] | None = None
    """A check of the harness instead of a contestant: the reference under another name (A/A control), the null loader,
    or a loader of known speed and cost."""


class Feeding(WindowTable):
    """The contestants that run with a consumer other than the drain, once in every block, warm."""

    contestants: tuple[str, ...] = Field(min_length=1)
    window_batches: int = Field(ge=1)


class TrainingOptions(Table):
    """The training."""

    model: str = "resnet18"
    """A model of torchvision, by its name there."""
    cached_s: float = Field(3.0, gt=0)
    """How long to train on one cached batch, for comparison."""
    loss_steps: int = Field(24, ge=8)
    """The number of steps after which losses are compared."""


class Training(Feeding):
    """The contestants that feed a network in training."""

    options: TrainingOptions = TrainingOptions()


class Consumers(Table):
    """Consumers beside the default one (drain), with which every contestant runs."""

    paced: Feeding | None = None
    """An emulated accelerator whose demand is swept."""
    train: Training | None = None
    """Training in plain PyTorch."""
    lightning: Training | None = None
    """The same training under Lightning's Trainer."""


class Stream(Table):
    """Contestants whose data is in a bucket, over a network that may be limited. Each runs once in every block."""

    streaming: tuple[str, ...] = ()
    """Read from the bucket during the trial, and keep all that they fetch."""
    bounded: tuple[str, ...] = ()
    """The same, and keep at most `cache_mib`."""
    downloading: tuple[str, ...] = ()
    """Start after downloading everything."""
    epochs: int = Field(3, ge=2)
    cache_mib: float | None = Field(None, gt=0)
    rate_mib_per_s: float | None = Field(None, gt=0)
    """Rate limit for all connections together; null: none."""
    latency_ms: float = Field(0, ge=0)
    """Time added to each round trip."""


class Limited(Table):
    """Memory that the formats do not fit into. The first epoch fills the page cache; the window follows it."""

    memory_mib: int | None = Field(None, ge=16)
    """Memory of all processes of a trial together, page cache included. The limit needs root or a delegated control
    group. null: what the machine has."""
    epochs: int = Field(1, ge=1)
    """Epochs in the window."""


class PublishedFigures(Table):
    """Published figures of one contestant."""

    images_per_s: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Of each epoch; empty if only the size was published."""
    size_gib: float | None = Field(None, gt=0)
    """Size of the data set, in units of 2^30 bytes."""


class PublishedTable(Table):
    """A published comparison that the campaign replicates."""

    source: str
    """Where it was published, and on which machine it was measured."""
    images: int = Field(ge=1)
    """Size of its data set."""
    contestants: dict[str, PublishedFigures]
    """Figures by the name of the contestant. The reference has to be among them."""


class ChangeTable(Table):
    """Two contestants that differ in one thing."""

    from_: str = Field(alias="from")
    to: str
    what: str
    """The difference, in a few words."""


class Best(Table):
    """Settings of one contestant that the search for its best ones may change."""

    title: str
    """The tuned contestant's title, without the settings that may change."""
    settings: dict[str, tuple[Any, ...]] = Field(min_length=1)
    """Values to try of the loader's options and of `workers`, in this order, after the contestant's own. `workers` may
    be relative to the cores that may be used: `cores`, `cores-1`, `cores+1`, `cores*2`, `cores/2`."""

    def beginning_with(self, own: dict[str, Any]) -> Best:
        """Return the table with numbers of workers, and with the contestant's own value of each setting put first."""
        settings = {
            name: _distinct([own[name], *(map(count_workers, values) if name == "workers" else values)])
            for name, values in self.settings.items()
        }
        return self.model_copy(update={"settings": settings})


class Tuning(WindowTable):
    """How long to search for the best settings of each contestant, and what they may use."""

    trials: int = Field(24, ge=4)
    """Maximum number of trials for each contestant; to try one value takes up to 4."""
    memory_mib: int | None = Field(None, ge=1)
    """Limit on anonymous and shared memory, above which settings are rejected; null: none."""
    warmup_s: float = Field(1.5, ge=0)
    window_s: float = Field(3.0, gt=0)


def count_workers(workers: int | str) -> int:
    """Return a number of workers for one that may be relative to the cores that may be used. Raises ValueError."""
    if isinstance(workers, int) and workers >= 1:
        return workers
    if not (relative := re.fullmatch(r"cores(?:([-+*/])([1-9]\d*))?", str(workers))):
        raise ValueError(
            f"workers must be 1 or more, or like cores, cores-1, cores+1, cores*2 or cores/2, and not {workers}"
        )
    cores, (sign, by) = core_count(), relative.groups()
    return max(1, _OF_CORES[sign](cores, int(by))) if sign else cores


def _distinct(values: list[Any]) -> tuple[Any, ...]:
    """Return the values without repetitions; a list among them cannot be hashed."""
    return tuple(value for place, value in enumerate(values) if value not in values[:place])
