"""Every contestant of the default campaign delivers the work, measured in a process of its own as in a campaign."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from bench import config, process, runner
from bench.display import Display
from bench.prepare import Prepared, prepare

QUICK = config.load(
    "quick",
    {
        "data": {"samples": None},
        "work": {"batch_size": 16, "workers": 2, "image_size": 32, "epoch_images": 192},
        "timing": {"warmup_s": 0.1, "window_s": 0.3},
    },
)


@pytest.fixture(scope="module")
def prepared(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """All formats of the default campaign."""
    return prepare(QUICK, tree, tmp_path_factory.mktemp("cache"), Display(), strict=True)


@pytest.mark.parametrize("contestant", QUICK.contestants, ids=lambda contestant: contestant.name)
def test_contestant(contestant: config.Contestant, prepared: Prepared, tmp_path: Path) -> None:
    artifact = prepared.artifacts[contestant.format]
    spec = {
        "loader": contestant.loader,
        "artifact": asdict(artifact),
        "work": asdict(runner.work(QUICK, artifact, block=1)),
        "options": contestant.options,
        "warmup_s": QUICK.timing.warmup_s,
        "window_s": QUICK.timing.window_s,
    }
    log = tmp_path / "log"
    result = process.run("trial", spec, log, 90)
    assert result["status"] == "ok", log.read_text()
    assert result["images_per_s"] > 0
    assert result["cpu_s"] > 0
    assert result["peak_memory_mib"] >= result["peak_anon_memory_mib"] > 0
    phases = ("import_s", "construct_s", "first_batch_s", "window_s", "epoch_end_s", "teardown_s")
    assert all(result[phase] > 0 for phase in phases)
