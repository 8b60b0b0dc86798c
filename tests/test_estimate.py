"""Time and disk space for many images are estimated from samples before they are prepared."""

from __future__ import annotations

import pytest

from loaderbench.formats import estimate as estimate_formats
from loaderbench.formats import estimation, preparation, prepare
from loaderbench.formats.estimation import Estimate, Measured, PartEstimate, extrapolate
from loaderbench.machine.disk import DiskSpaceError
from loaderbench.machine.progress import Display
from tests.campaigns import campaign

pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def small(monkeypatch):
    """Samples and a threshold that fit the tests' 96 images."""
    monkeypatch.setattr(estimation, "SAMPLES", (8, 32))
    monkeypatch.setattr(preparation, "ESTIMATED_FROM", 96)


def sample(images: int) -> Measured:
    """A sample whose parts have a known fixed cost and a known cost per image."""
    return Measured(images, {"a": PartEstimate("a format", 3 + 0.5 * images, 1000 + 7 * images)})


@pytest.mark.parametrize("more", [1024, 500])
def test_estimate_separates_fixed_cost_from_cost_per_image(more):
    parts = extrapolate(sample(256), sample(more), 1_000_000)
    assert parts == (PartEstimate("a format", 3 + 0.5 * 1_000_000, 1000 + 7 * 1_000_000),)


def test_samples_of_equal_size_are_taken_unchanged():
    assert extrapolate(sample(200), sample(200), 200) == tuple(sample(200).parts.values())


def test_a_part_missing_in_the_smaller_sample_is_taken_from_the_larger():
    assert extrapolate(Measured(256, {}), sample(1024), 4096) == tuple(sample(1024).parts.values())


def test_formats_of_equal_title_both_count():
    parts = {name: PartEstimate("a format", 1, 1) for name in ("a", "b")}
    assert len(extrapolate(Measured(1, parts), Measured(2, parts), 3)) == 2


def test_estimate_names_time_size_and_cost():
    part = PartEstimate("a format", 7200, 3 << 30)
    first, second, third = Estimate(1_281_167, (part,), 5 << 30, 600).lines(usd_per_hour=1.5)
    assert first.startswith("preparing 1,281,167 images takes about 2.0 h on ")
    assert first.endswith("($3.00) and 3.2 GB, where 5.4 GB are free:")
    assert second == "  a format: 2.0 h, 3.2 GB"
    assert third == "measuring the loaders on them then takes about 10 min"


@pytest.mark.usefixtures("small")
def test_many_images_are_estimated_before_they_are_prepared(tree, tmp_path, capsys):
    chosen = campaign({"a": {"loader": "imagefolder"}})
    prepared = prepare(chosen, tree, tmp_path, Display(), strict=True)
    said = capsys.readouterr().out
    assert said.index("preparing 96 images takes about") < said.index("decoding once for all formats (96)")
    assert len(prepared.artifacts) == 1
    prepare(chosen, tree, tmp_path, Display(), strict=True)
    assert "measuring" not in capsys.readouterr().out
    (store,) = (tmp_path / "canonical").iterdir()
    (store / "manifest.json").unlink()
    store.rename(store.with_name(store.name + ".begun"))  # as after a kill
    prepare(chosen, tree, tmp_path, Display(), strict=True)
    assert "measuring" not in capsys.readouterr().out


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "samples",
    [
        pytest.param((8, 32), id="of two sizes"),
        pytest.param((8, 1024), id="the second larger than the folder", marks=pytest.mark.slow),
    ],
)
def test_estimated_size_matches_the_size_on_disk(tree, tmp_path, monkeypatch, samples):
    monkeypatch.setattr(estimation, "SAMPLES", samples)
    chosen = campaign({"a": {"loader": "imagefolder"}})
    expected = estimate_formats(chosen, tree, tmp_path / "cache", Display())
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    prepared = prepare(chosen, tree, tmp_path / "cache", Display(), strict=True)
    canonical = sum(path.stat().st_size for path in prepared.canonicals["files"].iterdir())
    assert [part.size_bytes for part in expected.parts] == pytest.approx(
        [canonical, 0, prepared.artifacts["files"].size_bytes], rel=0.1
    )


@pytest.mark.usefixtures("small")
def test_prepare_refuses_to_start_if_all_images_do_not_fit(tree, tmp_path, monkeypatch):
    chosen = campaign({"a": {"loader": "imagefolder"}})
    monkeypatch.setattr(Estimate, "size_bytes", 1 << 60)
    with pytest.raises(DiskSpaceError, match="96 images in all formats need about"):
        prepare(chosen, tree, tmp_path, Display(), strict=True)
    assert not (tmp_path / "canonical").exists()


@pytest.mark.usefixtures("small", "planted")
def test_estimate_names_a_format_that_cannot_be_written(tree, tmp_path):
    formats = {
        "files": {"writer": "imagefolder", "mode": "jpeg"},
        "empty": {"writer": "planted-empty", "mode": "raw"},
    }
    lines = estimate_formats(campaign({"a": {}}, formats), tree, tmp_path, Display()).lines()
    assert [line.partition(";")[0] for line in lines[4:-1]] == ["  left out: empty: 0 images are stored instead of 32"]


@pytest.mark.usefixtures("small")
def test_estimate_leaves_out_what_the_cache_holds(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(estimation, "SAMPLES", (8,))
    formats = {name: {"writer": "imagefolder", "mode": mode} for name, mode in (("files", "jpeg"), ("own", "original"))}
    chosen = campaign({"a": {"loader": "imagefolder"}}, formats)
    one = chosen.model_copy(update={"formats": chosen.formats[:1]})
    prepare(one, tree, tmp_path, Display(), strict=True)
    expected = estimate_formats(chosen, tree, tmp_path, Display())
    assert [part.title for part in expected.parts] == [estimation._CHECKS, "own"]
    assert "  in the cache: decoded images, files" in expected.lines()
    first, second, _ = estimate_formats(one, tree, tmp_path, Display()).lines()
    assert (first, second) == ("96 images are prepared:", "  in the cache: decoded images, files")
