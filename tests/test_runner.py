"""A campaign resumes after any stop; it loses no row and measures none twice."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from loaderbench.campaign.disturbances import disturbances
from loaderbench.findings import check
from loaderbench.formats import prepare
from loaderbench.machine import page_cache
from loaderbench.machine.files import BusyError, locked
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.records.certificates import Certificate
from loaderbench.records.record import Record
from loaderbench.run import runner
from tests import campaigns
from tests.campaigns import campaign

if TYPE_CHECKING:
    from collections.abc import Callable

    from loaderbench.campaign.campaign import Campaign

    Run = Callable[[Campaign, Path], Path]

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("planted", "forked")


@pytest.fixture(scope="module")
def run(tree: Path, tmp_path_factory: pytest.TempPathFactory, planted: None) -> Run:
    """Return a function that prepares a campaign in a shared cache and measures it in a folder of results."""
    cache = tmp_path_factory.mktemp("cache")

    def measure(chosen: Campaign, results: Path) -> Path:
        prepared = prepare(chosen, tree, cache, Display(), strict=True)
        return runner.run(chosen, prepared, results, Display(), certify=lambda _: {"good": CERTIFICATE})

    return measure


CERTIFICATE = Certificate(traits={"resampling": "none at all"})
CRASH = {"loader": "doomed", "options": {"end": "crash"}}


def various() -> Campaign:
    """A campaign whose trials end in different ways."""
    return campaign(
        {"good": {}, "crash": CRASH, "absent": {"loader": "absent"}, "unwritten": {"format": "bad"}},
        {"files": {"writer": "imagefolder", "mode": "jpeg"}, "bad": {"writer": "planted-empty", "mode": "raw"}},
        blocks=1,
        seed=4,  # in the order that it gives, the crash comes last
    )


@pytest.fixture(scope="module")
def ended(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the campaign `various`; tests that change it work on a copy."""
    return run(various(), tmp_path_factory.mktemp("results"))


def loads(folder: Path) -> list[Record]:
    return [record for record in trials_csv.read(folder / "trials.csv") if record.kind == "load"]


def test_every_trial_ends_as_a_row(ended: Path) -> None:
    rows = {row.contestant: row for row in loads(ended)}
    assert {name: row.status for name, row in rows.items()} == {
        "good": "ok",
        "crash": "failed",
        "absent": "unavailable",
        "unwritten": "invalid",
    }
    assert rows["good"].images_per_s
    assert rows["good"].gpu_util_pct is not None or rows["good"].gpu_reason
    assert all(row.reason and row.images_per_s is None for name, row in rows.items() if name != "good")
    assert [row.certificate for row in rows.values() if row.certificate] == [rows["good"].certificate]
    assert rows["good"].certificate == CERTIFICATE.digest
    assert rows["absent"].reason.endswith("pip install loaderbench-planted")
    assert rows["crash"].reason.startswith("ValueError: the planted | fault in two lines (planted/doomed.py:")


def test_first_block_is_reported_before_certificates_are_made(tree: Path, tmp_path: Path) -> None:
    chosen = campaign({"good": {}}, blocks=2)
    prepared = prepare(chosen, tree, tmp_path / "cache", Display(), strict=True)
    happened: list[str] = []

    def certify(_: object) -> dict[str, Certificate]:
        happened.append("certificates")
        return {"good": CERTIFICATE}

    def after_block(folder: Path) -> None:
        happened.append(f"{len(loads(folder))} of 2 blocks")

    folder = runner.run(chosen, prepared, tmp_path, Display(), certify=certify, after_block=after_block)
    assert happened == ["1 of 2 blocks", "certificates", "2 of 2 blocks"]
    assert [row.certificate for row in loads(folder)] == ["", CERTIFICATE.digest]
    assert "certificate" not in " ".join(map(str, check.check(folder)))


def test_campaign_continues_after_a_hanging_trial(run: Run, tmp_path: Path) -> None:
    folder = run(campaign({"hang": {"loader": "doomed", "options": {"end": "hang"}}}, limit_s=1), tmp_path)
    assert [(row.trial, row.status, row.images_per_s) for row in loads(folder)] == [
        ("1/hang", "timeout", None),
        ("2/hang", "timeout", None),
    ]
    assert all(row.reason for row in loads(folder))


def test_environment_is_recorded(ended: Path) -> None:
    described = json.loads((ended / "env.json").read_text())
    assert described["campaign"]["name"] == "small"
    assert described["data"]["samples"] == 96
    assert len(described["data"]["digest"]) == 64
    assert described["versions"]["torch"]
    assert described["host"]["cores_allowed"] == len(os.sched_getaffinity(0))
    assert described["gpu"] or described["gpu_reason"]


def test_resumed_campaign_measures_missing_trials_and_keeps_the_others(run: Run, ended: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ended, tmp_path / ended.name))
    rows = (folder / "trials.csv").read_text().splitlines(keepends=True)
    assert len(rows) == 1 + 2 + 4
    assert ",1/crash," in rows[-1]
    # The power went while the last was written.
    (folder / "trials.csv").write_text("".join(rows[:-1]) + rows[-1][:50])
    assert run(various(), tmp_path) == folder
    resumed = (folder / "trials.csv").read_text().splitlines(keepends=True)
    assert resumed[:-1] == rows[:-1]
    assert [row.split(",")[1] for row in resumed] == [row.split(",")[1] for row in rows]


@pytest.mark.slow
def test_limits_are_measured_once_per_block_and_bound_its_trials(run: Run, tmp_path: Path) -> None:
    chosen = campaign({"a": {"options": {"behaviour": "share"}}, "b": CRASH}, stage_s=0.05)
    folder = run(chosen, tmp_path)
    rows = trials_csv.read(folder / "trials.csv")
    limits = {row.trial: row.images_per_s for row in rows if row.kind == "limit" and row.status == "ok"}
    steps = ("decode", "decode+crop", "region decode+crop", "output", "transfer")
    assert limits.keys() == {f"{block}/limit/{step}" for block in (1, 2) for step in steps}
    assert all(row.reason for row in rows if row.kind == "limit" and row.status != "ok")
    bounded = [row for row in loads(folder) if row.contestant == "a"]
    assert [row.block for row in bounded] == [1, 2]
    for row in bounded:
        applying = [step for step in steps if f"{step}: faster" not in row.bound_reason]
        least = min((limits[f"{row.block}/limit/{step}"], step) for step in applying)
        assert (row.bound_ips, row.bound_by) == least
        assert row.pct_of_bound == pytest.approx(100 * row.images_per_s / least[0], rel=1e-4)
    lines = (folder / "trials.csv").read_text().splitlines(keepends=True)
    cut = next(number for number, line in enumerate(lines) if "2/limit/output" in line) + 1
    (folder / "trials.csv").write_text("".join(lines[:cut]))
    run(chosen, tmp_path)
    resumed = (folder / "trials.csv").read_text().splitlines(keepends=True)
    assert resumed[:cut] == lines[:cut]
    assert sorted(line.split(",")[1] for line in resumed) == sorted(line.split(",")[1] for line in lines)


def test_a_cold_contestant_is_measured_warm_and_cold(run: Run, tmp_path: Path) -> None:
    chosen = campaign({"a": {"options": {"behaviour": "map"}}}, cold=("a",), blocks=1, stage_s=0.05)
    folder = run(chosen, tmp_path)
    rows = {row.cache: row for row in loads(folder)}
    assert rows.keys() == {"warm", "cold"}
    assert rows["cold"].trial == "1/a/cold"
    assert (rows["warm"].cache_state, rows["warm"].resident_after_pct) == ("warm", 100)
    page_cache.evict(tmp_path)
    on_disk = page_cache.resident_pct(tmp_path) == 0  # a file system in memory has nothing to read from
    assert rows["cold"].cache_state in ({"cold", "guest-cold", "client-cold"} if on_disk else {"unproven"})
    assert rows["cold"].window_images == 96 - 16
    assert {row.trial for row in trials_csv.read(folder / "trials.csv")} >= {"1/limit/disk/files"}
    assert len(list((folder / "times").iterdir())) == 2


def test_trials_beside_another_process_are_flagged_and_their_block_repeated(run: Run, tmp_path: Path) -> None:
    chosen = campaign({"a": {"options": {"seconds": 0.02}}}, blocks=1, window_s=0.5, reruns=1)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            folder = run(chosen, tmp_path)
        finally:
            busy.kill()
    rows = {row.trial: row for row in loads(folder)}
    assert rows.keys() == {"1/a", "1.2/a"}
    for row in rows.values():
        assert any("other processes used" in sign for sign in disturbances(row))


@pytest.mark.parametrize(
    ("change", "said"), [({}, "is complete"), ({"window_s": 0.3}, "under other conditions (campaign)")]
)
def test_a_complete_or_different_campaign_is_archived(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    folder = run(campaign({"a": CRASH}, blocks=1), tmp_path)
    before = (folder / "trials.csv").read_text()
    name = "small-" + re.sub("[-:+]", "", json.loads((folder / "env.json").read_text())["started_at"])
    (tmp_path / name / "of results that were copied").mkdir(parents=True)
    (folder / "scratch").mkdir()  # which a kill leaves of a bucket on loopback, its server's key in it
    assert run(campaign({"a": CRASH}, blocks=1, **change), tmp_path) == folder
    aside = tmp_path / f"{name}-2"
    assert (aside / "trials.csv").read_text() == before
    assert not (aside / "scratch").exists()
    assert len(loads(folder)) == 1
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"gpu": "NVIDIA H100"}, {"gpu_driver": "1.0"}, {}])
def test_rows_of_another_gpu_or_driver_are_never_mixed_into_a_campaign(
    run: Run, ended: Path, tmp_path: Path, change: dict[str, str]
) -> None:
    folder = Path(shutil.copytree(ended, tmp_path / ended.name))
    described = json.loads((folder / "env.json").read_text())
    (folder / "env.json").write_text(json.dumps(described | change))
    rows = (folder / "trials.csv").read_text().splitlines(keepends=True)
    (folder / "trials.csv").write_text("".join(rows[:-1]))
    run(various(), tmp_path)
    archived = [path for path in tmp_path.iterdir() if path.name.startswith("small-")]
    assert len(archived) == bool(change)


def test_a_second_run_of_the_same_campaign_is_refused(run: Run, tmp_path: Path) -> None:
    lock = tmp_path / ".locks" / "small"
    with locked(lock, ""), pytest.raises(BusyError, match="another loaderbench is measuring"):
        run(campaign({"a": {}}), tmp_path)


@pytest.mark.slow
def test_campaign_resumes_after_a_kill_at_any_moment(tree: Path, tmp_path: Path) -> None:
    text = campaigns.TOML.replace("blocks = 1", "blocks = 3")
    toml = campaigns.file(
        tmp_path, text.replace('loader = "imagefolder"', 'loader = "planted"\noptions = { behaviour = "fork" }')
    )
    places = {name: str(tmp_path / name) for name in ("cache", "results", "reports")}
    options = [word for name, path in places.items() for word in (f"--{name}", path)]
    heeding = ["env", "--default-signal=INT"]  # a background shell starts its children deaf to it
    command = [*heeding, sys.executable, "-m", "loaderbench.cli", "bench", str(toml), "--data", str(tree), *options]
    rows = tmp_path / "results" / "small" / "trials.csv"
    moment = random.Random()
    seen: list[str] = []
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        harness = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        deadline = time.monotonic() + 300
        while len(whole(rows)) <= len(seen) and harness.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moment.uniform(0, 2))
        children = psutil.Process(harness.pid).children(recursive=True) if harness.poll() is None else []
        harness.send_signal(how)
        harness.wait(300)
        _, alive = psutil.wait_procs(children, timeout=300)
        assert not alive
        assert whole(rows)[: len(seen)] == seen
        seen = whole(rows)
    subprocess.run(command, cwd=ROOT, check=True)
    folders = [path for path in (tmp_path / "results").iterdir() if path.name.startswith("small")]
    final = sorted(row.split(",")[1] for row in whole(rows)[1:])
    if len(folders) == 1:  # otherwise the kills came after the last trial, and a new campaign was begun
        assert whole(rows)[: len(seen)] == seen
    assert final == ["1/a", "2/a", "3/a", "write/files"]
    assert (tmp_path / "reports" / "small" / "report.md").exists()


def whole(path: Path) -> list[str]:
    """The complete lines of a file, or none."""
    return path.read_text().splitlines(keepends=True) if path.exists() else []
