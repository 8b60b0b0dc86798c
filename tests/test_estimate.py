"""What preparing many images will take is known before it starts, from samples of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loaderbench.api import Artifact, Encoding
from loaderbench.formats import estimate, prepare
from loaderbench.formats.prepare import Prepared, PrepareError
from loaderbench.machine.progress import Display
from loaderbench.records.record import Record
from tests.campaigns import campaign

pytestmark = pytest.mark.usefixtures("forked")

START_BYTES, EACH_BYTES = 1000, 7


@pytest.fixture
def small(monkeypatch):
    """Samples and a threshold that fit the tests' 96 images."""
    monkeypatch.setattr(estimate, "SAMPLES", (8, 32))
    monkeypatch.setattr(prepare, "ESTIMATED_FROM", 96)


def made(samples: int, folder: Path) -> Prepared:
    """A preparation whose sizes and times are known exactly."""
    store = folder / "canonical"
    store.mkdir()
    (store / "pixels.bin").write_bytes(bytes(START_BYTES + EACH_BYTES * samples))
    files = folder / "files" / "class"
    files.mkdir(parents=True)
    (files / "all").write_bytes(bytes(START_BYTES + 2 * EACH_BYTES * samples))
    (files / "linked").symlink_to("x" * 10)  # takes its own 10 bytes, not its target's
    artifact = Artifact("a", str(folder / "files"), samples, 0, 1, 1, Encoding("original"))
    names = {"trial": "write/a", "title": "a format", "started_at": "", "adapter": "a", "format": "a"}
    record = Record(kind="write", status="ok", write_s=3 + 0.5 * samples, **names)
    return Prepared({"a": artifact}, {"a": store}, (record,), {}, ())


def test_what_each_part_costs_by_itself_and_per_image_is_told_apart(tmp_path):
    _, part = estimate.estimate(made, 1_000_000, tmp_path).parts
    assert part == estimate.Part("a format", 3 + 0.5 * 1_000_000, START_BYTES + 2 * EACH_BYTES * 1_000_000 + 10)


def test_the_sum_counts_the_canonical_images_too(tmp_path):
    foreseen = estimate.estimate(made, 1_000_000, tmp_path)
    assert foreseen.size_bytes == 2 * START_BYTES + 3 * EACH_BYTES * 1_000_000 + 10
    assert list(tmp_path.iterdir()) == []


def test_it_is_said_with_time_size_and_cost():
    part = estimate.Part("a format", 7200, 3 << 30)
    first, second = estimate.Estimate(1_281_167, (part,), 5 << 30).lines(usd_per_hour=1.5)
    assert first.startswith("preparing 1,281,167 images takes about 2.0 h on ")
    assert first.endswith("($3.00) and 3 GiB, where 5 GiB is free:")
    assert second == "  a format: 2.0 h, 3 GiB"


@pytest.mark.usefixtures("small")
def test_many_images_are_prepared_after_it_is_said_what_that_takes(tree, tmp_path, capsys):
    chosen = campaign({"a": {"loader": "imagefolder"}})
    prepared = prepare.prepare(chosen, tree, tmp_path, Display(), strict=True)
    said = capsys.readouterr().out
    assert said.index("preparing 96 images takes about") < said.index("decoding once for all formats (96)")
    assert len(prepared.artifacts) == 1
    prepare.prepare(chosen, tree, tmp_path, Display(), strict=True)
    assert "measuring" not in capsys.readouterr().out
    (store,) = (tmp_path / "canonical").iterdir()
    (store / "manifest.json").unlink()
    store.rename(store.with_name(store.name + ".begun"))  # as after a kill
    prepare.prepare(chosen, tree, tmp_path, Display(), strict=True)
    assert "measuring" not in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_the_size_that_is_foreseen_is_that_of_what_is_made(tree, tmp_path):
    chosen = campaign({"a": {"loader": "imagefolder"}})
    foreseen = prepare.foresee(chosen, tree, tmp_path / "cache", Display())
    prepared = prepare.prepare(chosen, tree, tmp_path / "cache", Display(), strict=True)
    canonical = sum(path.stat().st_size for path in prepared.canonicals["files"].iterdir())
    assert [part.size_bytes for part in foreseen.parts] == pytest.approx(
        [canonical, prepared.artifacts["files"].size_bytes], rel=0.1
    )


@pytest.mark.usefixtures("small")
def test_too_little_disk_for_all_of_it_is_said_before_it_starts(tree, tmp_path, monkeypatch):
    chosen = campaign({"a": {"loader": "imagefolder"}})
    monkeypatch.setattr(estimate.Estimate, "size_bytes", 1 << 60)
    with pytest.raises(PrepareError, match="96 images in all formats need about"):
        prepare.prepare(chosen, tree, tmp_path, Display(), strict=True)
    assert not (tmp_path / "canonical").exists()
    assert shutil.disk_usage(tmp_path).free < 1 << 60
