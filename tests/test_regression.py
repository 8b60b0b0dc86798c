"""The regression gate fails for a slower or vanished loader, and for nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from loaderbench.cli import app
from loaderbench.findings import regression

ROUNDS = 15


def saved(path: Path, slowdown: float = 1.0, machine: float = 1.0, seed: int = 0, reference: str = "r") -> Path:
    """A file as `make perf` saves it: a loader at 2,000 images/s against a reference at 1,000, 3 % noise."""
    random = np.random.default_rng(seed)
    shared = machine * random.lognormal(0, 0.2, ROUNDS)  # what hits the two laps of a round alike
    laps_s = 1000 / (2000 * shared * random.lognormal(0, 0.03, ROUNDS)) * slowdown
    info = {
        "contestant": "a",
        "reference": reference,
        "images_per_lap": 1000,
        "reference_images_per_s": list(1000 * shared * random.lognormal(0, 0.03, ROUNDS)),
    }
    path.write_text(json.dumps({"benchmarks": [{"stats": {"data": list(laps_s)}, "extra_info": info}]}))
    return path


@pytest.mark.parametrize("seed", range(20))
def test_an_unchanged_loader_passes_on_a_machine_of_half_the_speed(tmp_path: Path, seed: int) -> None:
    before, now = saved(tmp_path / "b"), saved(tmp_path / "n", machine=0.5, seed=seed + 1)
    [change] = regression.compare(before, now, 0.1)
    assert not change.slower
    assert change.now == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_a_loader_that_takes_a_fifth_longer_is_slower(tmp_path: Path, seed: int) -> None:
    before, now = saved(tmp_path / "b"), saved(tmp_path / "n", slowdown=1.2, seed=seed + 1)
    [change] = regression.compare(before, now, 0.1)
    assert change.slower


def test_compare_command_fails_for_a_slower_loader(tmp_path: Path) -> None:
    before, now = saved(tmp_path / "b"), saved(tmp_path / "n", slowdown=1.2)
    done = CliRunner().invoke(app, ["compare", str(before), str(now)])
    assert done.exit_code == 1
    assert done.output.startswith("a: SLOWER, ")
    assert CliRunner().invoke(app, ["compare", str(before), str(before)]).exit_code == 0


def test_a_vanished_contestant_fails_and_a_new_one_passes(tmp_path: Path) -> None:
    whole, empty = saved(tmp_path / "b"), tmp_path / "n"
    empty.write_text('{"benchmarks": []}')
    for earlier, later, failed, said in ((whole, empty, True, "MISSING from"), (empty, whole, False, "only in")):
        [change] = regression.compare(earlier, later, 0.1)
        assert change.failed is failed
        assert f"{said} the later run" in str(change)
        assert CliRunner().invoke(app, ["compare", str(earlier), str(later)]).exit_code == failed


def test_one_round_is_refused(tmp_path: Path) -> None:
    whole, single = saved(tmp_path / "b"), json.loads(saved(tmp_path / "n").read_text())
    [benchmark] = single["benchmarks"]
    for kept in (benchmark["stats"]["data"], benchmark["extra_info"]["reference_images_per_s"]):
        del kept[1:]
    (tmp_path / "n").write_text(json.dumps(single))
    for earlier, later in ((whole, tmp_path / "n"), (tmp_path / "n", whole)):
        with pytest.raises(ValueError, match="fewer than 2 rounds of a; run make perf again"):
            regression.compare(earlier, later, 0.1)


def test_runs_with_different_references_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different references: other, r"):
        regression.compare(saved(tmp_path / "b"), saved(tmp_path / "n", reference="other"), 0.1)


def test_a_missing_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "missing.json"), str(saved(tmp_path / "n"))])
    assert done.exit_code == 1
    assert "missing.json cannot be read (No such file or directory); name a file that `make perf` saved" in done.output


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"benchmarks": [{"stats": {"data": [1]}}]}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(ValueError, match="was not saved by `make perf`"):
        regression.compare(tmp_path / "x", saved(tmp_path / "n"), 0.1)
