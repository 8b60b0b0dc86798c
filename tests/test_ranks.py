"""Ranks share each epoch and jobs load their own; they are reported together and end together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.variant import Variant
from loaderbench.certify import certify
from loaderbench.findings import check
from loaderbench.formats import Prepared
from loaderbench.machine import gpu
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.run import runner
from loaderbench.run.one_trial import trial_spec
from loaderbench.trial import measure, several
from loaderbench.trial.spec import Several, TrialSpec, Window
from tests.campaigns import Ready, campaign
from tests.nursery import gone

if TYPE_CHECKING:
    from loaderbench.records.record import Consumer, Record

slow = pytest.mark.slow
CONTESTANTS = ("imagefolder-256-pil", "ffcv-jpeg-mapped", "litdata-jpeg", "threads")


def in_two_ranks(quick: Campaign, *names: str) -> Campaign:
    """Real contestants of the default campaign in two ranks."""
    content = quick.model_dump() | {"reference": names[0]}
    content["contestants"] = [c for c in content["contestants"] if c["name"] in names]
    formats = {c["format"] for c in content["contestants"]}
    content["formats"] = [f for f in content["formats"] if f["name"] in formats]
    content["work"] |= {"ranks": 2, "workers": 1}
    content["timing"] |= {"blocks": 1, "stage_s": 0}
    return Campaign.model_validate(content)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=slow) for name in CONTESTANTS])
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


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_a_killed_rank_ends_the_trial_as_a_failed_row(ready: Ready, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    options = {"end": "rank 1 is killed", "pid_file": str(pids)}
    chosen = campaign({"dying": {"loader": "doomed", "options": options}}, ranks=2, blocks=1)
    row = _only_row(chosen, ready, tmp_path)
    assert (row.status, row.reason) == ("failed", "rank 1 was ended by SIGKILL (out of memory?)")
    assert all(gone(int(pid)) for pid in pids.read_text().split())


@pytest.mark.slow
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
    for kind in ("cached", "warm_cached"):
        slower = 1 - plain["images_per_s"] / plain[f"{kind}_images_per_s"]
        assert plain[f"stall_vs_{kind}_pct"] == pytest.approx(100 * slower)
    # From the same start, on the same batches: if gradients did not come together in both, losses would soon part.
    assert plain["loss_first"] == pytest.approx(lightning["loss_first"], rel=1e-4)
    assert plain["loss_last"] == pytest.approx(lightning["loss_last"], rel=1e-3)


@pytest.mark.slow
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
