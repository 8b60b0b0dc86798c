"""The cache state follows from residency and bytes read, not from the request."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from loaderbench.machine import page_cache
from loaderbench.machine.page_cache import cold_state, resident_pct, warm_or_evict, warm_state
from loaderbench.machine.progress import Display
from loaderbench.run import runner
from tests.campaigns import Ready, campaign

SIZE, PAYLOAD, MIB = 1_000_000_000, 800_000_000, 1 << 20


@pytest.mark.parametrize(
    ("before_pct", "after_pct", "read_bytes", "state"),
    [
        (99.0, 99.0, SIZE // 100, "warm"),
        (98.9, 100.0, 0, "unproven"),
        (100.0, 98.9, 0, "unproven"),
        (100.0, 100.0, SIZE // 100 + 1, "unproven"),
        (None, 100.0, 0, "unproven"),
        (100.0, None, 0, "unproven"),
        (100.0, 100.0, None, "unproven"),
    ],
)
def test_warm_follows_from_residency_before_and_after_and_reads_in_the_window(
    before_pct: float | None, after_pct: float | None, read_bytes: int | None, state: str
) -> None:
    assert warm_state(before_pct, after_pct, read_bytes, SIZE) == state


@pytest.mark.parametrize(
    ("before_pct", "read_bytes", "elsewhere", "state"),
    [
        (1.0, PAYLOAD * 95 // 100, "", "cold"),
        (1.0, PAYLOAD * 95 // 100, "guest", "guest-cold"),
        (1.0, PAYLOAD * 95 // 100, "client", "client-cold"),
        (1.1, SIZE, "", "unproven"),
        (0.0, PAYLOAD * 95 // 100 - 1, "", "unproven"),
        (None, SIZE, "", "unproven"),
        (0.0, None, "", "unproven"),
    ],
)
def test_cold_follows_from_residency_before_and_bytes_read(
    before_pct: float | None, read_bytes: int | None, elsewhere: str, state: str
) -> None:
    assert cold_state(before_pct, read_bytes, PAYLOAD, elsewhere) == state


@pytest.mark.parametrize(
    ("mounts", "served"),
    [
        ([("/", "overlay")], False),
        ([("/", "nfs4"), ("{}", "ext4")], False),
        ([("/", "ext4"), ("{}", "nfs4")], True),
        ([("/", "ext4"), ("{}/cache", "fuse.sshfs")], True),
        ([("/", "ext4"), ("{}/cac", "cifs")], False),
        ([("/", "ext4"), ("{}", "autofs"), ("{}", "nfs")], True),
        ([], False),
    ],
)
def test_a_network_file_system_is_known_by_its_mount(
    mounts: list[tuple[str, str]],
    served: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [SimpleNamespace(mountpoint=point.format(tmp_path), fstype=kind) for point, kind in mounts]
    monkeypatch.setattr(page_cache.psutil, "disk_partitions", lambda **_: found)
    assert page_cache.on_file_server(tmp_path / "cache" / "artifact") is served


def test_warming_and_evicting_change_the_residency(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(1 << 20))
    if warm_or_evict(tmp_path, "cold"):
        pytest.skip("these files are kept in memory and cannot be evicted")
    assert resident_pct(tmp_path) == 0
    assert warm_or_evict(tmp_path, "warm") == 100


@pytest.mark.parametrize(("size_bytes", "kept"), [(10**9, True), (10**9 + 1, False)])
def test_a_format_needs_room_beside_a_trial_to_stay_in_memory(size_bytes: int, kept: bool) -> None:  # noqa: FBT001
    assert (page_cache.why_not_kept(size_bytes, 2 * 10**9) == "") is kept


@pytest.mark.usefixtures("planted")
def test_a_format_that_memory_cannot_keep_is_announced(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = campaign({"a": {}})
    monkeypatch.setattr(runner, "memory_limit_bytes", lambda: 64 << 20)
    runner._announce(chosen, ready(chosen), tmp_path, {}, Display())
    assert "will not be verified as warm: the format of" in capsys.readouterr().out


def test_dropped_pages_end_a_warm_state(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(MIB))
    before_pct = warm_or_evict(tmp_path, "warm")
    assert warm_state(before_pct, resident_pct(tmp_path), 0, MIB) == "warm"
    page_cache.evict(tmp_path)
    if resident_pct(tmp_path):
        pytest.skip("these files are kept in memory and cannot be evicted")
    assert warm_state(before_pct, resident_pct(tmp_path), 0, MIB) == "unproven"


@pytest.mark.parametrize(("read_bytes", "state"), [(MIB, "warm"), (MIB + 1, "unproven")])
def test_a_small_format_may_read_1_mib_and_count_as_warm(read_bytes: int, state: str) -> None:
    assert warm_state(100.0, 100.0, read_bytes, size_bytes=1000) == state
