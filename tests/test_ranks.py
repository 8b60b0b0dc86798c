"""Several processes share each epoch; what they did is told together, and none survives the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench import certify, check, records, runner
from bench.config import Campaign
from bench.display import Display
from bench.prepare import Prepared, prepare
from bench.timeline import Timeline
from tests.campaigns import campaign
from tests.test_process import gone

if TYPE_CHECKING:
    from bench.records import Record

CONTESTANTS = ("ffcv-jpeg-mapped", "litdata-jpeg", "imagefolder-256-pil")


@pytest.fixture(scope="module")
def two_ranks(quick: Campaign) -> Campaign:
    """The real contestants, one of each library, in two ranks."""
    content = quick.model_dump()
    content["contestants"] = [c for c in content["contestants"] if c["name"] in CONTESTANTS]
    formats = {c["format"] for c in content["contestants"]}
    content["formats"] = [f for f in content["formats"] if f["name"] in formats]
    content["work"] |= {"ranks": 2, "workers": 1}
    content["timing"] |= {"blocks": 1, "stage_s": 0}
    return Campaign.model_validate(content)


@pytest.fixture(scope="module")
def measured(two_ranks: Campaign, everything: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of their trials."""
    return runner.run(two_ranks, everything, tmp_path_factory.mktemp("results"), Display())


@pytest.mark.parametrize("contestant", CONTESTANTS)
def test_two_ranks_of_a_real_loader_share_each_epoch(contestant: str, measured: Path) -> None:
    row = next(row for row in records.read(measured / "trials.csv") if row.contestant == contestant)
    assert row.status == "ok", row.reason
    assert row.ranks == 2
    assert row.images_per_s
    assert row.slowest_rank_images_per_s
    assert 0 < row.slowest_rank_images_per_s <= row.images_per_s / 2 * 1.001
    assert row.cores_used
    assert row.bank_images is None


def test_rows_of_several_ranks_follow_from_their_raw_times(measured: Path) -> None:
    assert {j.what: j.reasons for j in check.check(measured) if j.state == "INVALID"} == {}


def test_two_ranks_of_the_real_loaders_are_certified_together(
    two_ranks: Campaign, everything: Prepared, tmp_path: Path
) -> None:
    # 257 images, which two ranks cannot share evenly.
    chosen = two_ranks.model_copy(update={"data": two_ranks.data.model_copy(update={"probe": 257})})
    certificates = certify.certify(chosen, everything, tmp_path, Display())
    assert {name: c.faults or c.failure for name, c in certificates.items() if c.state != "as asked"} == {}
    assert certificates["litdata-jpeg"].seen_on.endswith("1 workers in each of 2 ranks")


@pytest.mark.usefixtures("planted")
def test_a_rank_that_is_killed_ends_the_trial_as_a_failed_row(tree: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    options = {"end": "rank 1 is killed", "pid_file": str(pids)}
    chosen = campaign({"dying": {"loader": "doomed", "options": options}}, ranks=2, blocks=1)
    row = _only_row(chosen, tree, tmp_path)
    assert (row.status, row.reason) == ("failed", "rank 1 was ended by SIGKILL (out of memory?)")
    assert all(gone(int(pid)) for pid in pids.read_text().split())


@pytest.mark.usefixtures("planted")
def test_a_loader_that_gives_every_rank_all_did_other_work(tree: Path, tmp_path: Path) -> None:
    row = _only_row(campaign({"alone": {}}, ranks=2, blocks=1), tree, tmp_path)
    assert (row.status, row.reason) == ("invalid", "epoch 1 delivered 192 images instead of 96")


def _only_row(chosen: Campaign, tree: Path, folder: Path) -> Record:
    prepared = prepare(chosen, tree, folder / "cache", Display(), strict=True)
    rows = records.read(runner.run(chosen, prepared, folder / "results", Display()) / "trials.csv")
    [row] = [row for row in rows if row.kind == "load"]
    return row


def test_the_window_of_all_is_open_where_those_of_all_ranks_are() -> None:
    second = 10**9
    # One rank's clock starts 2 s after the other's. Batches come every second; windows are open from 2 to 8 s of each.
    ranks = [
        Timeline(
            asked_ns=[n * second for n in range(10)],
            exits_ns=[(n + 1) * second for n in range(10)],
            images=[images] * 10,
            epochs=[0],
            opened=1,
            closed=7,
        )
        for images in (8, 4)
    ]
    together = Timeline.together(ranks, [0, 2 * second])
    columns = together.columns()
    # From the later opening, at 4 s, to the earlier closing, at 8 s.
    assert columns["window_s"] == 4
    assert columns["images_per_s"] == pytest.approx(8 + 4, rel=0.1)
    assert columns["slowest_rank_images_per_s"] == pytest.approx(4, rel=0.1)
    assert columns["epoch1_s"] is None
    with pytest.raises(ValueError, match="never open at the same time"):
        Timeline.together(ranks, [0, 7 * second])
