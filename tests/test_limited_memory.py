"""If the page cache cannot hold a format, whole epochs are measured, and the report says what they read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign import forecast
from loaderbench.campaign.campaign import Campaign, load
from loaderbench.campaign.variant import MAIN, Variant
from loaderbench.findings.analysis import analyse
from loaderbench.findings.disk_reads import conclusion, disk_reads
from loaderbench.machine import cgroup, page_cache
from loaderbench.machine.errors import FixableError
from loaderbench.run.one_trial import trial_spec
from loaderbench.trial import measure
from loaderbench.trial.spec import TrialSpec, Window
from tests import fabricate
from tests.fabricate import CAST
from tests.reports import written

MIB = 1 << 20
SHIPPED = "larger-than-memory"
FEEDING = {"contestants": ["litdata-raw"], "warmup_s": 1, "window_s": 1, "window_batches": 1}


def test_a_trial_fills_the_cache_in_one_epoch_before_its_window(tmp_path: Path) -> None:
    campaign = load(SHIPPED)
    artifact = Artifact("ffcv-raw", str(tmp_path), 97, 0, 0, 0, Encoding("raw"))
    window = trial_spec(campaign, campaign.contestants[0], artifact, tmp_path / "times").window
    assert (window.epochs_before, window.epochs, window.pause_s) == (1, 2, None)
    assert forecast.whole_epochs(campaign, MAIN) == window.epochs
    assert campaign.work_on(97, 1).passes == 1


@pytest.mark.parametrize(
    "changes", [{"work": {"ranks": 2}}, {"consumers": {"paced": FEEDING}}, {"cold": ["litdata-raw"]}]
)
def test_a_memory_limit_is_refused_with_what_it_does_not_suit(changes: dict[str, Any]) -> None:
    content = load(SHIPPED).model_dump(by_alias=True)
    for table, value in changes.items():
        content[table] = {**content[table], **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError, match="limited allows no cold, consumers"):
        Campaign.model_validate(content)


@pytest.mark.parametrize(("before_pct", "state"), [(0.0, "limited"), (50.0, "unproven"), (None, "unproven")])
def test_a_cache_is_limited_only_if_it_began_empty(before_pct: float | None, state: str) -> None:
    assert page_cache.limited_state(before_pct) == state


def test_what_is_needed_to_limit_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_folders", lambda _: iter([tmp_path]))
    with pytest.raises(FixableError, match="as root, or in a group of its own: systemd-run"), cgroup.limited(64):
        pass


def test_the_conclusion_says_who_is_fastest_and_who_reads_least() -> None:
    fast, slow = CAST[0], CAST[2]
    campaign = fabricate.environment([fast, slow], 1, slow.name)["campaign"] | {"limited": {"memory_mib": 1024}}
    reads = {fast.name: 90_000.0, slow.name: 12_000.0}
    rows = [
        fabricate.load(a, 1, cache="limited", read_bytes_per_image=reads[a.name], from_memory_pct=40.0)
        for a in (fast, slow)
    ]
    assert {Variant.of(row) for row in rows} == {MAIN}
    found = disk_reads(analyse(rows, campaign))
    assert [(one.summary.name, one.read_kb) for one in found] == [(fast.name, 90.0), (slow.name, 12.0)]
    told = conclusion(found, 1024)
    assert told.startswith(f"With 1,024 MiB of memory, {fast.title} has the highest median, ")
    assert told.endswith(f"reads 90.0 kB from the disk for each image; {slow.title} reads least, 12.0 kB.")
    assert conclusion(found[:1], None).endswith("; no other ranked contestant reads less.")
    other_work = tuple(replace(one, summary=replace(one.summary, apart="in the stored order")) for one in found)
    assert conclusion(other_work, 1024) == ""
    assert conclusion((*other_work[:1], *found[1:]), 1024).startswith(f"With 1,024 MiB of memory, {slow.title} has")


def test_the_report_shows_what_came_from_the_disk_beside_what_the_disk_can_do(tmp_path: Path) -> None:
    rows = [
        *map(fabricate.write, ("ffcv-raw", "litdata-raw")),
        fabricate.limit("disk/ffcv-raw", 1, images_per_s=2000.0),
        *(fabricate.load(a, 1, cache="limited", read_bytes_per_image=9e4, from_memory_pct=40.0) for a in CAST[:2]),
    ]
    text = written(tmp_path, rows, cast=CAST[:2], blocks=1)
    assert "## How much comes from memory, and how much from the disk?" in text
    assert "(from-disk.png)" in text


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("kept_mib", [0, 24, 96])
def test_a_loader_of_known_hit_rate_comes_out_as_it_is(kept_mib: int, tmp_path: Path) -> None:
    """A file of 96 MiB, of which a planted loader leaves a known part in the page cache of its control group."""
    images = 96
    (tmp_path / "file").write_bytes(os.urandom(MIB) * images)
    page_cache.evict(tmp_path)
    artifact = Artifact("any", str(tmp_path), images, 0, images * MIB, images * MIB, Encoding("raw"))
    window = Window(0, 0, 0, None, epochs=3, epochs_before=1)
    work = Work(batch_size=4, workers=1, image_size=2)
    try:
        with cgroup.limited(1024) as group:
            options = {"kept_mib": kept_mib}
            spec = TrialSpec("reading", artifact, work, window, tmp_path / "times", options, memory_group=group)
            result = measure(spec, tmp_path / "log", 600)
    except FixableError as error:
        pytest.skip(str(error))
    assert result["status"] == "ok", result["reason"]
    had_to_read = 2 * (images - kept_mib) * MIB
    assert result["window_read_bytes"] == pytest.approx(had_to_read, rel=0.1, abs=MIB)


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_a_trial_gets_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    artifact = Artifact("any", str(tmp_path), 8, 0, 0, 0, Encoding("raw"))
    work = Work(batch_size=4, workers=1, image_size=2048)
    try:
        with cgroup.limited(32) as group:
            window = Window(0, 0, 0, None, epochs=1)
            spec = TrialSpec("reading", artifact, work, window, tmp_path / "times", memory_group=group)
            result = measure(spec, tmp_path / "log", 600)
    except FixableError as error:
        pytest.skip(str(error))
    assert "SIGKILL" in result["reason"]
