"""Training, plain and under Lightning, measures loaders and steps of known speed correctly, on simulated clocks."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning import Callback, Trainer

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign import pixel_values as values
from loaderbench.machine.gpu import Gpu
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.run import runner
from loaderbench.trial import consumers
from loaderbench.trial import meter as meters
from loaderbench.trial.checks import InvalidWorkError
from loaderbench.trial.consumers import lightning, train
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import Window
from loaderbench.trial.trial import TimedLoader
from tests.campaigns import Ready, campaign

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loaderbench.records.record import Consumer, Record

pytestmark = pytest.mark.usefixtures("forked")
ARTIFACT = Artifact("f", "/nowhere", 4096, 0, 1, 1, Encoding("jpeg"), classes=10)
WORK = Work(batch_size=16, workers=1, image_size=8, dtype="uint8", passes=1, seed=0)
ONE_WEIGHT = {"model": "one weight", "cached_s": 0.1, "loss_steps": 8}


EPOCH = 160
"""Samples of the simulated loader, each labelled by its index."""
EPOCHS = replace(ARTIFACT, samples=EPOCH, classes=EPOCH, label_sum=sum(range(EPOCH)), label_counts=(1,) * EPOCH)


class World:
    """A simulated clock, which advances only during training steps and waits for the loader, and that loader."""

    requires, reads, streams = (), (), False
    ns = 0
    steps = 0
    step_ns = 40_000_000
    batch_ns = 80_000_000
    """The time that the loader takes for a batch."""
    ahead = 4
    """Batches that the loader prefetches."""
    length = EPOCH // WORK.batch_size
    """The length that the loader reports."""
    warmer = 1.0
    """How much slower steps are once the loader has been opened, on a device that was cool before."""
    sets_threads = 0
    """Torch's threads that the loader sets where it is constructed and in each batch, as FFCV does; 0: none."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        """Torch's threads in each step."""
        self.opened: list[Work] = []
        self.closed = 0

    def step(self, weight: torch.Tensor) -> torch.Tensor:
        self.ns += self.step_ns
        self.steps += 1
        self.threads.add(torch.get_num_threads())
        return weight.sum()

    @contextmanager
    def stream(self, _: Artifact, work: Work) -> Iterator[World]:
        self.opened.append(work)
        self.step_ns = round(self.step_ns * self.warmer)
        self.set_threads()
        self.before, self.asked, self.made_ns = self.steps, 0, self.ns
        self.taken_ns = deque([self.ns] * self.ahead, self.ahead)
        yield self
        self.closed += 1

    def set_threads(self) -> None:
        if self.sets_threads:
            torch.set_num_threads(self.sets_threads)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images = torch.zeros(WORK.batch_size, 3, 8, 8, dtype=torch.uint8)
        for labels in torch.randperm(EPOCH).split(WORK.batch_size):
            assert self.steps - self.before == self.asked, (
                "the next batch was asked for before the last one was done with"
            )
            self.asked += 1
            self.made_ns = max(self.made_ns, self.taken_ns[0]) + self.batch_ns
            self.ns = max(self.ns, self.made_ns)
            self.taken_ns.append(self.ns)
            self.set_threads()
            yield images, labels


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Run CPU training of a network with one weight on that clock."""

    def loss(own: train.Training, *_: torch.Tensor) -> torch.Tensor:
        return world.step(own.network.weight)

    world = World()
    monkeypatch.setattr(meters, "perf_counter_ns", lambda: world.ns)
    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: world.ns / 1e9))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(train.models, "get_model", lambda *_, **__: torch.nn.Linear(1, 1))
    monkeypatch.setattr(train.Training, "loss", loss)
    return world


@pytest.mark.parametrize("consumer", ["train", "lightning"])
@pytest.mark.parametrize(("step_ms", "batch_ms", "starved_pct"), [(40, 80, 50), (60, 30, 0), (10, 40, 75)])
def test_data_stall_follows_from_step_and_batch_time(
    consumer: str, step_ms: int, batch_ms: int, starved_pct: float, world: World
) -> None:
    """Also, each batch is done before the next is requested, because FFCV for example overwrites it."""
    world.step_ns, world.batch_ns = step_ms * 10**6, batch_ms * 10**6
    consume = consumers.prepare(consumer, EPOCHS, WORK, ONE_WEIGHT)
    window = Window(1, 2, 20, None, whole_epoch_s=0)
    columns = consume(world, Meter((), EPOCHS, WORK, window, Gpu()))
    assert columns["starved_pct"] == pytest.approx(starved_pct, rel=0.03)
    assert columns["step_p50_ms"] == pytest.approx(step_ms)
    assert columns["cached_images_per_s"] == pytest.approx(1000 * WORK.batch_size / step_ms)
    assert columns["stall_vs_cached_pct"] == pytest.approx(starved_pct, rel=0.03, abs=0.01)


@pytest.mark.parametrize("consumer", ["train", "lightning"])
def test_a_cached_batch_is_measured_again_on_a_device_as_warm_as_in_training(consumer: str, world: World) -> None:
    world.batch_ns, world.warmer = 10_000_000, 1.25
    ended: list[int] = []
    barrier: Any = SimpleNamespace(wait=lambda: ended.append(world.closed))  # of ranks or jobs
    meter = Meter((), EPOCHS, WORK, Window(1, 2, 20, None, whole_epoch_s=0), Gpu(), ended=barrier)
    columns = consumers.prepare(consumer, EPOCHS, WORK, ONE_WEIGHT)(world, meter)
    assert ended == [1]
    assert columns["cached_images_per_s"] == pytest.approx(1000 * WORK.batch_size / 40)
    assert columns["warm_cached_images_per_s"] == pytest.approx(1000 * WORK.batch_size / 50)
    assert columns["stall_vs_cached_pct"] == pytest.approx(20)
    assert columns["stall_vs_warm_cached_pct"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("consumer", ["train", "lightning"])
def test_each_training_step_has_the_same_threads_whatever_the_loader_sets(
    consumer: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "core_count", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    world.sets_threads = 1
    try:
        consume = consumers.prepare(consumer, EPOCHS, WORK, ONE_WEIGHT)
        columns = consume(world, Meter((), EPOCHS, WORK, Window(0, 0, 20, None, whole_epoch_s=0), Gpu()))
    finally:
        torch.set_num_threads(before)
    assert world.threads == {2}
    assert columns["training_threads"] == 2


class Seen(Callback):
    """Records the epochs that the Trainer sees."""

    def __init__(self) -> None:
        self.labels: list[list[int]] = []
        self.ends = 0

    def on_train_epoch_start(self, *_: object) -> None:
        self.labels.append([])

    def on_train_batch_end(self, _: object, __: object, ___: object, batch: list[torch.Tensor], ____: int) -> None:
        self.labels[-1] += batch[1].tolist()

    def on_train_epoch_end(self, *_: object) -> None:
        self.ends += 1


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The record of the timed Trainer."""
    seen = Seen()

    def trainer(*, callbacks: list[Callback], **options: Any) -> Trainer:
        return Trainer(callbacks=[*callbacks, seen], **options)

    monkeypatch.setattr(lightning, "Trainer", trainer)
    return seen


@pytest.mark.parametrize(("window_batches", "epochs"), [(4, [5]), (9, [10]), (10, [10, 1]), (24, [10, 10, 5])])
def test_lightning_opens_the_loader_once_and_ends_epochs(
    window_batches: int, epochs: list[int], world: World, seen: Seen
) -> None:
    """Training stops as soon as the window has closed: within an epoch, or with its last batch."""
    window = Window(0, 0, window_batches, None, whole_epoch_s=0)
    timed, meter = TimedLoader(world, {}), Meter((), EPOCHS, WORK, window, Gpu())
    consumers.prepare("lightning", EPOCHS, replace(WORK, rank=1), ONE_WEIGHT)(timed, meter)
    assert world.opened == [replace(WORK, lasting=True, rank=0)]  # the rank is the Trainer's, of one process the first
    assert world.closed == 1
    assert timed.columns.keys() == {"construct_s", "teardown_s", "read_bytes"}
    assert [len(labels) // WORK.batch_size for labels in seen.labels] == epochs
    assert all(sorted(labels) == [*range(EPOCH)] for labels in seen.labels[:-1])
    assert seen.ends == len(epochs)
    assert len(meter.timeline.exits_ns) == sum(epochs)
    assert meter.timeline.epochs == [10 * epoch for epoch in range(len(epochs))]


def test_batches_that_lightning_would_skip_are_invalid(world: World) -> None:
    world.length -= 1
    meter = Meter((), EPOCHS, WORK, Window(0, 0, 20, None), Gpu())
    with pytest.raises(InvalidWorkError, match="more batches than its __len__, 9"):
        consumers.prepare("lightning", EPOCHS, WORK, ONE_WEIGHT)(world, meter)


def consumed(ready: Ready, folder: Path, *names: Consumer) -> dict[str, Record]:
    """Measure a real loader under each of these consumers and the drain, and return the rows."""
    feeding = {"contestants": ["files"], "warmup_s": 0, "window_s": 0.1, "window_batches": 24}
    training = {"options": {"model": "shufflenet_v2_x0_5", "cached_s": 0.2}}
    consumers = {name: feeding | ({} if name == "paced" else training) for name in names}
    chosen = campaign({"files": {"loader": "imagefolder"}}, consumers=consumers, blocks=1)
    results = runner.run(chosen, ready(chosen), folder / "results", Display())
    rows = {row.consumer: row for row in trials_csv.read(results / "trials.csv") if row.kind == "load"}
    assert {row.status for row in rows.values()} == {"ok"}, [row.reason for row in rows.values()]
    return rows


def test_training_learns_and_reports_its_stall_against_a_cached_batch(ready: Ready, tmp_path: Path) -> None:
    rows = consumed(ready, tmp_path, "train")
    trained = rows["train"]
    assert trained.trial == "1/files/train"
    assert trained.loss_last
    assert trained.loss_first
    assert trained.loss_last < trained.loss_first
    assert trained.cached_images_per_s
    assert trained.images_per_s
    assert trained.warm_cached_images_per_s
    for stall_pct, cached in (
        (trained.stall_vs_cached_pct, trained.cached_images_per_s),
        (trained.stall_vs_warm_cached_pct, trained.warm_cached_images_per_s),
    ):
        assert stall_pct == pytest.approx(100 * (1 - trained.images_per_s / cached), rel=1e-3)
    assert trained.starved_pct is not None
    assert trained.gpu_starved_pct is None
    assert rows["hungry"].starved_pct is None


@pytest.mark.slow
def test_lightning_trains_like_the_plain_loop(ready: Ready, tmp_path: Path) -> None:
    rows = consumed(ready, tmp_path, "train", "lightning", "paced")
    trained = rows["train"]
    assert trained.loss_first
    assert rows["lightning"].loss_first == pytest.approx(trained.loss_first, rel=1e-4)
    assert rows["lightning"].loss_last == pytest.approx(trained.loss_last, rel=1e-3)
    assert rows["lightning"].starved_pct is not None
    assert rows["paced"].demand_curve


def test_equal_seeds_give_the_same_first_loss() -> None:
    batch = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 2, 3])
    losses = []
    for _ in range(2):
        training = train.Training("resnet18", 10, WORK)
        torch.manual_seed(0)
        losses.append(float(training.step(*batch)))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("dtype", "normalised"), [("float32", True), ("float16", True), ("float16", False)])
def test_first_loss_does_not_depend_on_dtype_or_who_normalises(dtype: str, normalised: bool) -> None:  # noqa: FBT001
    levels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3])
    work = replace(WORK, dtype=dtype, normalised=normalised)
    losses = []
    for asked in (WORK, work):
        training = train.Training("resnet18", 10, asked)
        delivered = training.normalised(levels) if asked.normalised else levels / 255
        images = levels if asked is WORK else delivered.to(getattr(torch, dtype))
        torch.manual_seed(0)
        losses.append(float(training.step(images, labels)))
    assert losses[1] == pytest.approx(losses[0], rel=10 * values.rounding(work))
