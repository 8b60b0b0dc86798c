"""A control passes if a known quantity is measured; a failed control opens the report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from loaderbench.findings import controls
from loaderbench.findings.analysis import analyse
from loaderbench.findings.comparison import Ratio
from loaderbench.report import report
from tests import fabricate

if TYPE_CHECKING:
    from pathlib import Path

    from loaderbench.findings.controls import ControlResult
    from loaderbench.records.record import Record

KNOWN = {"images_per_s": 1000.0, "own_cores": 0.3, "child_cores": 0.3, "grandchild_cores": 0.3}
ACTOR = fabricate.CAST[0]
FASTEST = dict.fromkeys((1, 2, 3), 5000.0)


def results(kind: str, rows: list[Record], ratio: Ratio | None = None, **known: float) -> list[ControlResult]:
    contestant = {"name": ACTOR.name, "title": "C", "control": kind, "options": KNOWN | known}
    return [*controls.judge({"contestants": [contestant]}, rows, {ACTOR.name: ratio}, FASTEST)]


def judged(kind: str, rows: list[Record], ratio: Ratio | None = None) -> list[bool | None]:
    return [result.passed for result in results(kind, rows, ratio)]


def row(block: int = 1, **changes: Any) -> Record:
    return fabricate.load(ACTOR, block, **changes)


@pytest.mark.parametrize(("speed", "cores", "held"), [(1019, 0.92, [True, True]), (1021, 0.93, [False, False])])
def test_known_speed_and_cost_must_be_measured_within_tolerance(speed: float, cores: float, held: list[bool]) -> None:
    assert judged("known", [row(images_per_s=speed, cores_used=cores)]) == held


@pytest.mark.parametrize(("read_mib", "held"), [(66.0, True), (60.0, False), (0.0, None)])
def test_known_bytes_read_must_be_measured(read_mib: float, held: bool | None) -> None:  # noqa: FBT001
    rows = [row(images_per_s=1000, cores_used=0.9, read_bytes=int(read_mib * 2**20))]
    assert results("known", rows, read_mib=64)[-1].passed is held


@pytest.mark.parametrize("unread", [0, None])
def test_a_control_unread_in_one_block_is_called_unread(unread: int | None) -> None:
    rows = [row(block, images_per_s=1000, read_bytes=64 << 20 if block < 3 else unread) for block in (1, 2, 3)]
    *_, read = results("known", rows, read_mib=64)
    assert (read.passed, read.measured) == (None, "64 (+0.0 %); unread in block 3")


def test_a_control_that_failed_in_one_block_has_not_passed() -> None:
    rows = [row(1, images_per_s=1000.0, cores_used=0.9), fabricate.failed(ACTOR, 2)]
    for kind in ("known", "twin", "ceiling"):
        found = results(kind, rows, Ratio(mean=1.0, low=0.99, high=1.01, blocks=2))
        assert all("unread in block 2" in result.measured for result in found)
        assert True not in [result.passed for result in found]


@pytest.mark.parametrize(("peak_mib", "held"), [(510.0, True), (540.0, False)])
def test_known_memory_is_compared_with_the_null_loader(peak_mib: float, held: bool) -> None:  # noqa: FBT001
    known = {"name": "known", "title": "K", "control": "known", "options": KNOWN | {"shared_mib": 256}}
    idle = {"name": "idle", "title": "I", "control": "ceiling", "options": {}}
    rows = [
        row(contestant="known", images_per_s=1000, cores_used=0.9, anon_memory_mib=peak_mib),
        row(contestant="idle", images_per_s=10**6, anon_memory_mib=250.0),
    ]
    memory, _ = controls.judge({"contestants": [known, idle]}, rows, {}, FASTEST)[-2:]
    assert memory.passed is held


@pytest.mark.parametrize("work", [{"ranks": 2}, {"jobs": 2}])
def test_known_amounts_count_per_rank_and_job(work: dict[str, int]) -> None:
    contestant = {"name": ACTOR.name, "title": "C", "control": "known", "options": KNOWN}
    verdicts = controls.judge(
        {"contestants": [contestant], "work": work}, [row(images_per_s=2000, cores_used=1.8)], {}, FASTEST
    )
    assert [result.passed for result in verdicts] == [True, True]


def test_a_control_is_judged_by_its_worst_block() -> None:
    """The median of the three blocks is exactly right."""
    rows = [row(block, images_per_s=speed, cores_used=0.9) for block, speed in enumerate((1000, 1000, 600), 1)]
    speed, cores = results("known", rows)
    assert (speed.passed, speed.measured) == (False, "600 (-40.0 %)")
    assert cores.passed


def test_the_null_loader_is_judged_by_its_worst_block() -> None:
    rows = [row(block, images_per_s=speed) for block, speed in enumerate((10**6, 10**6, 10**5), 1)]
    [result] = results("ceiling", rows)
    assert (result.passed, result.measured) == (False, "5.00 %, at 781 empty batches/s")


def test_known_memory_is_compared_within_each_block() -> None:
    """The medians, 700 and 300 MiB, differ by the 400 MiB expected, and no block does."""
    known = {"name": "known", "title": "K", "control": "known", "options": KNOWN | {"shared_mib": 400}}
    idle = {"name": "idle", "title": "I", "control": "ceiling", "options": {}}
    peaks = [(600.0, 300.0), (700.0, 400.0), (800.0, 200.0)]
    rows = [row(block, contestant="known", anon_memory_mib=own) for block, (own, _) in enumerate(peaks, 1)]
    rows += [row(block, contestant="idle", anon_memory_mib=bare) for block, (_, bare) in enumerate(peaks, 1)]
    memory, _ = controls.judge({"contestants": [known, idle]}, rows, {}, FASTEST)[-2:]
    assert (memory.passed, memory.measured) == (False, "600 (+50.0 %)")


@pytest.mark.parametrize(
    ("low", "high", "held"),
    [(0.98, 1.01, [True]), (1.01, 1.03, [True]), (1.021, 1.03, [False]), (0.96, 0.979, [False]), (None, None, [None])],
)
def test_a_a_control_fails_only_if_it_certainly_differs(low: float | None, high: float | None, held: list[Any]) -> None:
    assert judged("twin", [row()], Ratio(mean=1.0, low=low, high=high, blocks=3)) == held


def test_each_twin_is_compared_with_the_reference_by_its_own_ratio() -> None:
    cast = [replace(ACTOR, name=name, title=name) for name in ("reference", "twin", "other")]
    campaign = fabricate.environment(cast, 3, "reference")["campaign"]
    for contestant in campaign["contestants"][1:]:
        contestant["control"] = "twin"
    speeds = {"reference": 1000.0, "twin": 1000.0, "other": 500.0}
    rows = [fabricate.load(actor, block, images_per_s=speeds[actor.name]) for actor in cast for block in (1, 2, 3)]
    assert [(result.title, result.passed) for result in analyse(rows, campaign).controls] == [
        ("twin", True),
        ("other", False),
    ]


@pytest.mark.parametrize(("ceiling", "held"), [(250_000, [True]), (249_999, [False])])
def test_harness_overhead_must_be_small_against_the_fastest_contestant(ceiling: float, held: list[bool]) -> None:
    assert judged("ceiling", [row(images_per_s=ceiling)]) == held


@pytest.mark.parametrize("kind", ["known", "twin", "ceiling"])
def test_a_control_that_did_not_run_has_no_verdict(kind: str) -> None:
    assert set(judged(kind, [])) == {None}


def with_control(folder: Path, images_per_s: float) -> str:
    """The report of a campaign with the control that must deliver 1,000 images/s."""
    known = replace(ACTOR, name="known", title="Known", images_per_s=images_per_s, cores=0.9)
    cast = [*fabricate.CAST, known]
    environment = fabricate.environment(cast, 3, fabricate.CAST[-1].name)
    environment["campaign"]["contestants"][-1] |= {"control": "known", "options": KNOWN}
    made = fabricate.campaign(folder / "made", cast=cast, campaign=environment["campaign"])
    return report.write(made, folder / "out").read_text()


@pytest.mark.usefixtures("one_picture")
def test_a_failed_control_opens_the_report(tmp_path: Path) -> None:
    text = with_control(tmp_path, images_per_s=1500)
    assert text.index("Controls failed") < text.index("headline.png")


@pytest.mark.usefixtures("one_picture")
def test_a_control_is_not_listed_as_a_contestant(tmp_path: Path) -> None:
    text = with_control(tmp_path, images_per_s=1000)
    assert "Controls failed" not in text
    results = text.split("\n## How fast is each contestant, and how sure is that?\n")[1].split("\n## ")[0]
    assert "Known" not in results


def fetched(transport: str, **changes: Any) -> Record:
    known = {"size_bytes": 50 << 20, "network_bytes": 52 << 20, "network_epoch1_bytes": 52 << 20}
    times = {
        "network_epoch2_bytes": 0,
        "network_rate_mib_per_s": 50.0,
        "download_s": 2.0,
        "epoch1_s": 1.0,
        "epoch2_s": 1.0,
    }
    return replace(row(transport=transport), **(known | times | changes))


@pytest.mark.parametrize(("network_mib", "held"), [(0, False), (49, False), (50, True), (55, True), (56, False)])
def test_a_download_must_take_the_bytes_of_its_format(network_mib: int, held: bool) -> None:  # noqa: FBT001
    counted, _ = controls.network_controls([fetched("download"), fetched("download", network_bytes=network_mib << 20)])
    assert counted.passed is held


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        ({}, "26 MiB/s at most"),
        ({"download_s": 1.0}, "52 MiB/s at most"),
        ({"network_epoch2_bytes": 51 << 20}, "51 MiB/s at most"),
        ({"download_s": None}, "52 MiB/s at most"),
    ],
)
def test_network_control_fails_above_the_rate_limit(changes: dict[str, Any], measured: str) -> None:
    *_, rate = controls.network_controls([fetched("stream", **changes)])
    assert rate.measured == measured
    assert rate.passed is (float(measured.split(maxsplit=1)[0]) <= 51)


def test_network_without_a_limit_has_no_rate_control() -> None:
    assert [v.title for v in controls.network_controls([fetched("download", network_rate_mib_per_s=None)])] == [
        "Bytes over the network"
    ]
    assert not [*controls.network_controls([])]


@pytest.mark.parametrize("transport", ["stream", "download"])
def test_a_trial_that_bypasses_the_proxy_fails_its_control(transport: str) -> None:
    counted, rate = controls.network_controls([fetched(transport, network_bytes=0, network_epoch1_bytes=0)])
    assert counted.passed is False
    assert f"0 bytes in 1/{ACTOR.name}" in counted.measured
    assert (rate.passed, rate.measured) == (None, f"unread in 1/{ACTOR.name}")


def test_uncounted_network_bytes_are_called_unread() -> None:
    rows = [fetched("download"), fetched("download", trial="2/x", network_bytes=None, network_epoch1_bytes=None)]
    counted, rate = controls.network_controls(rows)
    assert counted.passed is rate.passed is None
    assert counted.measured == "1.040 to 1.040 times; unread in 2/x"
    counted, _ = controls.network_controls([fetched("download", trial="1/x", size_bytes=None)])
    assert (counted.passed, counted.measured) == (None, "unread in 1/x")


def stall(images_per_s: float, *rows: Record, **work: int) -> ControlResult:
    """The control of training's data stall with a loader of known speed."""
    campaign = fabricate.environment([ACTOR], 3, ACTOR.name, feeding=[ACTOR.name])["campaign"]
    campaign["contestants"][0] |= {"control": "known", "options": {"images_per_s": images_per_s}}
    [result] = controls.stall_controls(campaign | {"work": work}, rows)
    return result


def trained(block: int = 1, **changes: Any) -> Record:
    return fabricate.fed(ACTOR, block, "train", **{"warm_cached_images_per_s": 2000.0, "starved_pct": 50.0} | changes)


@pytest.mark.parametrize(
    ("images_per_s", "starved_pct", "held"),
    [
        (1000.0, 54.9, True),
        (1000.0, 55.1, False),
        (1000.0, 44.9, False),
        (500.0, 75.0, True),
        (3000.0, 4.9, True),  # faster than the training: it does not wait
        (3000.0, 5.1, False),
    ],
)
def test_data_stall_must_be_what_a_known_speed_predicts(images_per_s: float, starved_pct: float, held: bool) -> None:  # noqa: FBT001
    assert stall(images_per_s, trained(starved_pct=starved_pct)).passed is held


def test_data_stall_is_judged_by_its_worst_block() -> None:
    result = stall(1000.0, trained(1), trained(2, starved_pct=60.0, warm_cached_images_per_s=1600.0), trained(3))
    assert (result.passed, result.measured) == (False, "60.0 % of the time instead of 37.5 %")


@pytest.mark.parametrize("changes", [{"starved_pct": None}, {"warm_cached_images_per_s": None}, {"status": "failed"}])
def test_a_data_stall_that_is_missing_in_one_block_is_called_unread(changes: dict[str, Any]) -> None:
    result = stall(1000.0, trained(1), trained(2, **changes))
    assert (result.passed, result.measured) == (None, "50.0 % of the time instead of 50.0 %; unread in block 2")
    assert (stall(1000.0).passed, stall(1000.0).measured) == (None, "")


def test_other_trials_of_a_loader_of_known_speed_do_not_count_for_its_data_stall() -> None:
    others = [row(images_per_s=1000.0, starved_pct=1.0), trained(track="scaling", workers=1, starved_pct=1.0)]
    assert stall(1000.0, trained(), *others).passed


def test_a_known_speed_counts_per_rank_in_training() -> None:
    assert stall(500.0, trained(), ranks=2).passed


def test_a_control_that_trains_is_no_contestant_of_training() -> None:
    cast = [replace(ACTOR, name=name, title=name) for name in ("reference", "known")]
    campaign = fabricate.environment(cast, 2, "reference", feeding=["reference", "known"])["campaign"]
    campaign["contestants"][1] |= {"control": "known", "options": {"images_per_s": 1000.0}}
    rows = [fabricate.fed(actor, block, "train", loss_last=len(actor.name)) for actor in cast for block in (1, 2)]
    found = analyse(rows, campaign)
    assert [(each.summary.name, each.outlier_losses) for each in found.by_consumer if each.consumer == "train"] == [
        ("reference", ())
    ]
    assert "data stall" in found.controls[-1].expected
