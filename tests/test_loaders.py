"""Every loader delivers the requested work in a trial; the pace loader has its known speed and cost."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign.campaign import Campaign
from loaderbench.formats import Prepared
from loaderbench.loaders import pace
from loaderbench.loaders.shared import burner
from loaderbench.machine.gpu import Gpu
from loaderbench.run.one_trial import trial_spec
from loaderbench.trial import measure
from loaderbench.trial import meter as meters
from loaderbench.trial.consumers import drain
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import Window

NAMES = (
    "ffcv-raw-mapped",
    pytest.param("ffcv-jpeg-slots", marks=pytest.mark.slow),
    "litdata-raw",
    "litdata-jpeg",
    "imagefolder-original-pil",
    "imagefolder-256-torchvision",
    "threads",
)
"""Each loader with each of its formats and each of its options."""


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("name", NAMES)
def test_every_contestant_delivers_the_requested_work(
    name: str, quick: Campaign, everything: Prepared, tmp_path: Path
) -> None:
    [contestant] = [contestant for contestant in quick.contestants if contestant.name == name]
    artifact = everything.artifacts[contestant.format]
    spec = trial_spec(quick, contestant, artifact, tmp_path / "times.npz")
    log = tmp_path / "log"
    result = measure(spec, log, 600)
    assert result["status"] == "ok", log.read_text()
    assert result["images_per_s"] > 0
    assert result["batch_memory"] == (
        "private" if contestant.loader in {"ffcv", "threads"} else "shared"
    )  # by worker processes
    assert result["cpu_s"] > 0
    assert result["memory_mib"] >= result["anon_memory_mib"] > 0
    phases = ("import_s", "construct_s", "first_batch_s", "window_s", "epoch_gap_s", "teardown_s")
    assert all(result[phase] > 0 for phase in phases)


@pytest.mark.parametrize("ranks", [1, 2])
def test_pace_has_the_labels_of_the_data(ranks: int, tmp_path: Path) -> None:
    artifact = Artifact("any", str(tmp_path), 97, 0, 0, 0, Encoding("raw"), classes=3, label_counts=(90, 0, 7))
    labels: list[int] = []
    for rank in range(ranks):
        with pace.stream(artifact, Work(batch_size=25, workers=1, image_size=2, rank=rank, ranks=ranks)) as batches:
            epoch = [batch.tolist() for _, batch in batches]
            assert len(epoch) == len(batches)
            labels += [label for batch in epoch for label in batch]
    assert sorted(labels) == [0] * 90 + [2] * 7


@pytest.mark.parametrize(("options", "device"), [({}, "meta"), ({"cpu_memory": "pageable"}, "cpu")])
def test_pace_delivers_where_it_is_told_to(options: dict[str, str], device: str, tmp_path: Path) -> None:
    artifact = Artifact("any", str(tmp_path), 97, 0, 0, 0, Encoding("raw"))
    work = Work(batch_size=25, workers=1, image_size=2, device="meta")
    with pace.stream(artifact, work, **options) as batches:
        assert {(images.device.type, labels.device.type) for images, labels in batches} == {(device, "cpu")}


class Clock:
    """A simulated clock. Sleeping advances it, and reading the CPU time takes a microsecond of both times."""

    ns = cpu_ns = 0

    def perf_counter(self) -> float:
        return self.ns / 1e9

    def process_time(self) -> float:
        self.ns += 1000
        self.cpu_ns += 1000
        return self.cpu_ns / 1e9

    def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@pytest.mark.parametrize(("images_per_s", "burst"), [(4000.0, 1), (1000.0, 4)])
def test_pace_has_its_known_speed_and_cpu_time(
    images_per_s: float, burst: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    for module in (pace, burner):
        monkeypatch.setattr(
            module, "time", SimpleNamespace(**{n: getattr(clock, n) for n in dir(clock) if n[0] != "_"})
        )
    monkeypatch.setattr(meters, "perf_counter_ns", lambda: clock.ns)
    artifact, work = (
        Artifact("any", str(tmp_path), 96, 0, 0, 0, Encoding("raw")),
        Work(batch_size=16, workers=1, image_size=2, passes=2),
    )
    options = {"images_per_s": images_per_s, "burst_batches": burst, "own_cores": 0.25}
    with pace.stream(artifact, work, **options) as batches:
        meter = Meter(batches, artifact, work, Window(0.5, 2, 8, None, whole_epoch_s=0), Gpu())
        drain.take_all(work, meter)
    columns = meter.columns()
    assert columns["images_per_s"] == pytest.approx(images_per_s, rel=0.01)
    assert clock.cpu_ns / 1e9 == pytest.approx(0.25 * meter.delivered / images_per_s, rel=0.01)


@pytest.mark.parametrize("burst", [1, 4])
def test_pace_does_not_catch_up_batches_that_are_late(
    burst: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 batches/s, one is requested 0.5 s late; each of the others a little late, which must not add up."""
    clock, taken_s = Clock(), []
    for module in (pace, burner):
        monkeypatch.setattr(
            module, "time", SimpleNamespace(**{n: getattr(clock, n) for n in dir(clock) if n[0] != "_"})
        )
    artifact = Artifact("any", str(tmp_path), 1600, 0, 0, 0, Encoding("raw"))
    work = Work(batch_size=16, workers=1, image_size=2)
    with pace.stream(artifact, work, images_per_s=1600.0, burst_batches=burst) as batches:
        for number, _ in enumerate(batches):
            taken_s.append(clock.perf_counter())
            clock.sleep(0.5 if number == 47 else 0.002 if burst == 1 else 0.0)
    assert taken_s[47] - taken_s[0] == pytest.approx(0.47 if burst == 1 else 0.44, abs=1e-3)
    assert taken_s[99] - taken_s[48] == pytest.approx(0.51 if burst == 1 else 0.48, abs=1e-3)


def test_child_and_grandchildren_of_pace_burn_cpu(tmp_path: Path) -> None:
    """They burn no more than requested, and get there eventually on a slow machine."""
    cores, wanted_s = 0.4, 0.3
    artifact = Artifact("any", str(tmp_path), 96, 0, 0, 0, Encoding("raw"))
    work = Work(batch_size=16, workers=1, image_size=2)
    before, begun_s = psutil.Process().children(), time.monotonic()
    with pace.stream(artifact, work, child_cores=cores, grandchild_cores=cores):
        [child] = set(psutil.Process().children()) - {*before}
        own_s = below_s = 0.0
        while min(own_s, below_s) < wanted_s:
            assert time.monotonic() < begun_s + 300
            time.sleep(0.05)
            used = child.cpu_times()
            own_s, below_s = used.user + used.system, used.children_user + used.children_system
        most_s = cores * (time.monotonic() - begun_s + burner.TICK_S)
        assert own_s < 2 * most_s  # to start costs something too
        assert below_s < 2 * most_s
