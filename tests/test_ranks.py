"""Ranks share each epoch and jobs load their own; both are reported together, and end together."""

from __future__ import annotations

import os
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.variant import Variant
from loaderbench.certify import certify
from loaderbench.findings import check
from loaderbench.formats import Prepared
from loaderbench.machine import gpu
from loaderbench.machine.gpu import Gpu
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.records.timeline import Timeline, fairness
from loaderbench.run import runner
from loaderbench.run.one_trial import trial_spec
from loaderbench.trial import measure, several
from loaderbench.trial.file_barrier import FileBarrier
from loaderbench.trial.meter import LEAD, Meter
from loaderbench.trial.spec import Peers, Several, TrialSpec, Window
from tests.campaigns import Ready, campaign
from tests.test_process import gone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaderbench.records.record import Consumer, Record

slow = pytest.mark.slow
CONTESTANTS = ("imagefolder-256-pil", "ffcv-jpeg-mapped", "litdata-jpeg")


def in_two_ranks(quick: Campaign, *names: str) -> Campaign:
    """Real contestants of the default campaign in two ranks."""
    content = quick.model_dump() | {"reference": names[0]}
    content["contestants"] = [c for c in content["contestants"] if c["name"] in names]
    formats = {c["format"] for c in content["contestants"]}
    content["formats"] = [f for f in content["formats"] if f["name"] in formats]
    content["work"] |= {"ranks": 2, "workers": 1}
    content["timing"] |= {"blocks": 1, "stage_s": 0}
    return Campaign.model_validate(content)


@pytest.fixture(scope="module", params=[CONTESTANTS[0], *(pytest.param(name, marks=slow) for name in CONTESTANTS[1:])])
def measured(
    request: pytest.FixtureRequest, quick: Campaign, everything: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a campaign with one contestant in two ranks."""
    chosen = in_two_ranks(quick, request.param)
    return runner.run(chosen, everything, tmp_path_factory.mktemp("results"), Display())


@pytest.mark.parametrize(
    ("gpus", "environment", "shown"),
    [
        (2, {}, ["0", "1", "0"]),
        (8, {"CUDA_VISIBLE_DEVICES": "5,GPU-1b2c"}, ["5", "GPU-1b2c", "5"]),
        (8, {"CUDA_VISIBLE_DEVICES": ""}, ["", "", ""]),
        (0, {}, [None, None, None]),
    ],
)
def test_jobs_get_their_own_gpus_as_far_as_possible(
    gpus: int, environment: dict[str, str], shown: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "count", lambda: gpus)
    assert [several.own_gpu(job, environment).get("CUDA_VISIBLE_DEVICES") for job in range(3)] == shown


def test_two_ranks_of_a_real_loader_share_each_epoch(measured: Path) -> None:
    [row] = [row for row in trials_csv.read(measured / "trials.csv") if row.kind == "load"]
    assert row.status == "ok", row.reason
    assert row.ranks == 2
    assert row.images_per_s
    assert row.slowest_rank_images_per_s
    assert 0 < row.slowest_rank_images_per_s <= row.images_per_s / 2 * 1.001
    assert row.cores_used
    assert row.prefetched_images is None


def test_rows_of_several_ranks_agree_with_their_raw_times(measured: Path) -> None:
    assert {j.what: j.reasons for j in check.check(measured) if j.state == "invalid"} == {}


@slow
def test_real_loaders_are_certified_over_two_ranks(quick: Campaign, everything: Prepared, tmp_path: Path) -> None:
    # 257 images, which two ranks cannot share evenly.
    chosen = in_two_ranks(quick, *CONTESTANTS)
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"probe": 257})})
    certificates = certify(chosen, everything, tmp_path, Display())
    assert {name: c.faults or c.failure for name, c in certificates.items() if c.state != "as requested"} == {}
    assert certificates["litdata-jpeg"].seen_on.endswith("1 workers in each of 2 ranks")


@pytest.mark.usefixtures("planted")
def test_a_killed_rank_ends_the_trial_as_a_failed_row(ready: Ready, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    options = {"end": "rank 1 is killed", "pid_file": str(pids)}
    chosen = campaign({"dying": {"loader": "doomed", "options": options}}, ranks=2, blocks=1)
    row = _only_row(chosen, ready, tmp_path)
    assert (row.status, row.reason) == ("failed", "rank 1 was ended by SIGKILL (out of memory?)")
    assert all(gone(int(pid)) for pid in pids.read_text().split())


@pytest.mark.usefixtures("planted")
def test_a_loader_that_gives_every_rank_all_samples_is_invalid(ready: Ready, tmp_path: Path) -> None:
    row = _only_row(campaign({"alone": {}}, ranks=2, blocks=1), ready, tmp_path)
    assert (row.status, row.reason) == ("invalid", "epoch 1 delivered 192 images instead of 96")


def _only_row(chosen: Campaign, ready: Ready, folder: Path) -> Record:
    rows = trials_csv.read(runner.run(chosen, ready(chosen), folder / "results", Display()) / "trials.csv")
    [row] = [row for row in rows if row.kind == "load"]
    return row


def _train(consumer: Consumer, ready: Ready, folder: Path, **options: str) -> dict[str, Any]:
    """Train with the planted loader in two ranks and return the joint columns."""
    feeding = {
        "contestants": ["planted"],
        "warmup_s": 0,
        "window_s": 0.1,
        "window_batches": 24,
        "options": {"model": "shufflenet_v2_x0_5", "cached_s": 0.1},
    }
    chosen = campaign({"planted": {"options": options}}, ranks=2, consumers={consumer: feeding})
    [artifact] = ready(chosen).artifacts.values()
    spec = trial_spec(chosen, chosen.contestants[0], artifact, folder / "times.npz", variant=Variant(consumer=consumer))
    return measure(spec, folder / "log", 600)


@slow
@pytest.mark.usefixtures("planted")
def test_ranks_train_one_network_in_plain_pytorch_and_under_lightning(ready: Ready, tmp_path: Path) -> None:
    """Rank 0 has five batches per epoch and rank 1 two; under Lightning, the DataModule splits these into five."""
    plain = _train("train", ready, tmp_path, behaviour="share unevenly, cut")
    lightning = _train("lightning", ready, tmp_path, behaviour="share unevenly")
    assert [plain["status"], lightning["status"]] == ["ok", "ok"], [plain["reason"], lightning["reason"]]
    assert 0 < plain["slowest_rank_images_per_s"] < plain["images_per_s"] / 2
    assert plain["stall_vs_cached_pct"] == pytest.approx(
        100 * (1 - plain["images_per_s"] / plain["cached_images_per_s"])
    )
    # From the same start, on the same batches: if gradients did not come together in both, losses would soon part.
    assert plain["loss_first"] == pytest.approx(lightning["loss_first"], rel=1e-4)
    assert plain["loss_last"] == pytest.approx(lightning["loss_last"], rel=1e-3)


@pytest.mark.usefixtures("planted")
def test_a_rank_killed_in_training_is_named_and_not_its_peers(ready: Ready, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ended = _train("train", ready, tmp_path, behaviour="die second", pid_file=str(pids))
    assert (ended["status"], ended["reason"]) == ("failed", "rank 1 was ended by SIGKILL (out of memory?)")
    assert all(gone(int(pid)) for pid in pids.read_text().split())


@pytest.mark.usefixtures("planted")
def test_jobs_run_independently_and_are_reported_together(ready: Ready, tmp_path: Path) -> None:
    options = {"behaviour": "insist on being alone", "seconds": 0.001}
    row = _only_row(campaign({"alone": {"options": options}}, jobs=2, blocks=1), ready, tmp_path)
    assert (row.status, row.ranks, row.jobs) == ("ok", 1, 2), row.reason
    assert row.images_per_s
    assert row.slowest_rank_images_per_s
    assert 0 < row.slowest_rank_images_per_s <= row.images_per_s / 2 * 1.001
    assert row.fairness
    assert check.check(tmp_path / "results" / "small")[-1].state != "invalid"


def test_each_job_has_the_whole_work_and_its_own_seed() -> None:
    work = Work(batch_size=8, workers=1, image_size=32, seed=5)
    artifact = Artifact("f", "/nowhere", 10**6, 0, 1, 1, Encoding("jpeg"))
    spec = TrialSpec("any", artifact, work, Window(0, 0, 1, None), Path("times.npz"), jobs=2)
    works = [Several("task", spec, Path("folder")).of(job).work for job in range(2)]
    assert [(work.rank, work.ranks) for work in works] == [(0, 1), (0, 1)]
    assert works[0].seed == 5
    assert works[1].seed % 2**32 != 5


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    ("behaviour", "ending"),
    [
        ("die second", ("failed", "job 1 was ended by SIGKILL (out of memory?)")),
        pytest.param("share unevenly", ("invalid", "epoch 1 delivered 72 images instead of 96"), marks=slow),
    ],
)
def test_a_failing_job_ends_the_others(behaviour: str, ending: tuple[str, str], ready: Ready, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    options = {"behaviour": behaviour, "pid_file": str(pids), "seconds": 0.05}
    row = _only_row(campaign({"bad": {"options": options}}, jobs=2, blocks=1), ready, tmp_path)
    assert (row.status, row.reason.removeprefix("job 0: ").removeprefix("job 1: ")) == ending
    assert all(gone(int(pid)) for pid in pids.read_text().split())


@pytest.mark.parametrize(("speeds", "index"), [([5, 5, 5], 1), ([4, 0, 0, 0], 0.25), ([3, 1], 0.8)])
def test_fairness_is_jains_index(speeds: list[float], index: float) -> None:
    assert fairness(np.array(speeds)) == pytest.approx(index)


class Ended:
    """A child that has ended; `reported_s`: when it left its report, which is that it failed."""

    def __init__(self, reported_s: float) -> None:
        self._descriptor, theirs = os.pipe()
        os.close(theirs)  # so that it is readable
        self._reported_s = reported_s

    def fileno(self) -> int:
        return self._descriptor

    def reported_s(self) -> float:
        return self._reported_s

    def report(self) -> dict[str, Any] | None:
        return {"status": "failed", "reason": f"at {self._reported_s:g}"} if self._reported_s else None

    def death(self, who: str) -> dict[str, Any]:
        return {"status": "failed", "reason": f"{who} died"}


@pytest.mark.parametrize(
    ("reported_s", "blamed"), [([2, 1], "rank 1: at 1"), ([2, 0, 1], "rank 1 died"), ([1, 2], "rank 0: at 1")]
)
def test_the_first_rank_to_fail_is_named(reported_s: list[float], blamed: str, tmp_path: Path) -> None:
    artifact = Artifact("f", "/nowhere", 10**6, 0, 1, 1, Encoding("jpeg"))
    work = Work(batch_size=8, workers=1, image_size=32, ranks=len(reported_s))
    spec = TrialSpec("any", artifact, work, Window(0, 0, 1, None), tmp_path / "times.npz")
    [report] = several._reports(Several("task", spec, tmp_path), [*map(Ended, reported_s)]).values()  # type: ignore[list-item]
    assert report == {"status": "failed", "reason": blamed}


def _two_meters(folder: Path, *, in_step: bool) -> list[Meter]:
    """Meters of two ranks. Rank 0 has the shorter window and one endless epoch, rank 1 many short epochs."""
    artifact = Artifact("f", "/nowhere", 10**6, 0, 1, 1, Encoding("jpeg"))
    batch = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    meters = []
    for rank, window_batches in enumerate([3, 7]):
        work = Work(batch_size=2, workers=1, image_size=8, dtype="uint8", passes=1, seed=0, rank=rank, ranks=2)
        window = Window(0, 0, window_batches, None, whole_epoch=False)
        milestones = [FileBarrier(name, Peers(folder, rank, 2)) for name in ("begun", "opened", "closed")]
        batches = [batch] * 2 if rank else repeat(batch)
        meters.append(Meter(batches, artifact, work, window, Gpu(), *milestones, in_step=in_step))
    return meters


def _taken(meter: Meter) -> Iterator[object]:
    while not meter.done:
        yield from meter


def test_a_window_stays_open_until_all_windows_are_open(tmp_path: Path) -> None:
    """Rank 1 stalls after its first batch, before its window opens."""
    meters = _two_meters(tmp_path, in_step=False)
    first, second = map(_taken, meters)
    assert len([*islice(second, 2)]) == 2
    assert len([*islice(first, 50)]) == 50
    assert meters[0].timeline.opened is not None
    assert meters[0].timeline.closed is None
    for _ in zip(second, first, strict=False):
        pass
    edges = [[m.timeline.exits_ns[m.timeline.opened or 0], m.timeline.exits_ns[m.timeline.closed or 0]] for m in meters]
    opened, closed = zip(*edges, strict=True)
    assert max(opened) < min(closed)


@pytest.mark.parametrize("ahead", range(LEAD))
def test_synchronous_ranks_stop_after_the_same_batch(ahead: int, tmp_path: Path) -> None:
    """Rank 0's window closes first. Rank 0 leads by `ahead` batches, and by one more when it requests first."""
    meters = _two_meters(tmp_path, in_step=True)
    first, second = map(_taken, meters)
    for _ in islice(first, ahead):
        pass
    for _ in zip(first, second, strict=False):
        pass
    for _ in second:
        pass
    assert len(meters[0].timeline.exits_ns) == len(meters[1].timeline.exits_ns)


def test_the_joint_window_is_the_overlap_of_all_windows() -> None:
    second = 10**9
    # One rank's clock starts 2 s after the other's. Batches come every second; windows are open from 2 to 8 s of each.
    both = [
        Timeline(
            asked_ns=[n * second for n in range(10)],
            exits_ns=[(n + 1) * second for n in range(10)],
            images=[images] * 10,
            epochs=[0],
            opened=1,
            closed=7,
            workers=3,
        )
        for images in (8, 4)
    ]
    together = Timeline.together(both, [0, 2 * second])
    assert together.workers == 6
    columns = together.columns()
    # From the later opening, at 4 s, to the earlier closing, at 8 s.
    assert columns["window_s"] == 4
    assert columns["images_per_s"] == pytest.approx(8 + 4, rel=0.1)
    assert columns["slowest_rank_images_per_s"] == pytest.approx(4, rel=0.1)
    assert columns["fairness"] == pytest.approx(0.9, rel=0.05)
    assert columns["epoch1_s"] is None
    with pytest.raises(ValueError, match="never all open"):
        Timeline.together(both, [0, 7 * second])
