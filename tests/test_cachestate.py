"""The cache state follows from residency and bytes read, not from the request."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loaderbench.machine.page_cache import Cache, cache_state, resident_pct, warm_or_evict

SIZE, PAYLOAD, MIB = 1_000_000_000, 800_000_000, 1 << 20


@pytest.mark.parametrize(
    ("cache", "resident", "read_bytes", "virtual", "state"),
    [
        ("warm", 99.0, SIZE // 100, True, "warm"),
        ("warm", 98.9, 0, True, "unproven"),
        ("warm", 100.0, SIZE // 100 + 1, True, "unproven"),
        ("cold", 1.0, PAYLOAD * 95 // 100, False, "cold"),
        ("cold", 1.0, PAYLOAD * 95 // 100, True, "guest-cold"),
        ("cold", 1.1, SIZE, False, "unproven"),
        ("cold", 0.0, PAYLOAD * 95 // 100 - 1, False, "unproven"),
        ("warm", None, 0, False, "unproven"),
        ("cold", 0.0, None, False, "unproven"),
    ],
)
def test_cache_state_follows_from_residency_and_bytes_read(
    cache: Cache,
    resident: float | None,
    read_bytes: int | None,
    virtual: bool,  # noqa: FBT001
    state: str,
) -> None:
    sizes = {"size_bytes": SIZE, "payload_bytes": PAYLOAD}
    assert cache_state(cache, resident, read_bytes, **sizes, virtual_machine=virtual) == state


def test_warming_and_evicting_change_the_residency(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(1 << 20))
    if warm_or_evict(tmp_path, "cold"):
        pytest.skip("these files are kept in memory and cannot be evicted")
    assert resident_pct(tmp_path) == 0
    assert warm_or_evict(tmp_path, "warm") == 100


@pytest.mark.parametrize(("read_bytes", "state"), [(MIB, "warm"), (MIB + 1, "unproven")])
def test_a_small_format_may_read_1_mib_and_count_as_warm(read_bytes: int, state: str) -> None:
    small = {"size_bytes": 1000, "payload_bytes": 1000}
    assert cache_state("warm", 100.0, read_bytes, **small, virtual_machine=False) == state
