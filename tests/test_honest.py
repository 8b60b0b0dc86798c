"""Many seeds in one process are certified as each would be alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loaderbench.certify.certification import to_certify
from loaderbench.machine.progress import Display
from tests.campaigns import campaign
from tests.perf import seeds

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.usefixtures("forked", "planted")
def test_one_process_certifies_a_contestant_with_several_seeds_and_keeps_the_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheat = {"cheat": "cuts the middle"}
    small = campaign({"honest": {"loader": "cheater"}, "middle": {"loader": "cheater", "options": cheat}})
    small = small.model_copy(update={"data": small.data.model_copy(update={"probe": 120})})
    _, jobs = to_certify(small, {c.name: (c, {}) for c in small.competing}, tmp_path, Display())
    groups = {
        name: seeds.Group("way", name, tuple(seeds.with_seed(job, seed) for seed in (1, 2)), tmp_path)
        for name, job in jobs.items()
    }
    certificates = {name: seeds.certified(group) for name, group in groups.items()}
    assert [c.state for c in certificates["honest"]] == ["as requested"] * 2
    assert certificates["honest"][0].figures != certificates["honest"][1].figures, "order and crops vary with the seed"
    for certificate in certificates["middle"]:
        assert "every image is cut at the same place, its middle, instead of at random" in certificate.faults
    monkeypatch.setattr(seeds.processes, "run", None)
    assert {name: seeds.certified(group) for name, group in groups.items()} == certificates
