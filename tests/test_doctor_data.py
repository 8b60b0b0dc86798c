"""The doctor names what holds training on the user's images back, from made-up rows of the campaign `doctor`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loaderbench import cli
from loaderbench.campaign import campaign as config
from loaderbench.doctor import answer, data_answer, data_sample, on_data
from loaderbench.doctor.data_case import Case
from loaderbench.doctor.data_verdict import DataDiagnosis, diagnose
from loaderbench.doctor.on_data import examine_data, size_bytes
from loaderbench.findings.analysis import analyse
from loaderbench.findings.raw_times import analyse_folder
from loaderbench.formats.estimation import CANONICAL, Estimate, PartEstimate
from loaderbench.images.class_folders import scan
from loaderbench.machine.errors import FixableError
from loaderbench.machine.progress import Display
from loaderbench.records.folder import CampaignFolder
from tests import campaigns, fabricate
from tests.sampled import CAMPAIGN, GIB, IMAGES, LIMITS, SPEEDS, case, found, places, rows_of, sampled_at

ALL_EQUAL = dict.fromkeys(SPEEDS, 1000.0)
IDLE = {"cores": 0.8}


@pytest.mark.parametrize(
    ("bottleneck", "differing"),
    [
        ("image size", {}),
        ("decoder", {"speeds": {"original-torchvision": 2100.0}}),
        ("float batches", {"speeds": {"original-uint8": 2200.0}}),
        ("cores", {"speeds": {"copies-pil": 1040.0}}),
        ("hand-over", {"limits": {"transfer": 1010.0}}),
        ("too few workers", {"present": IDLE, "workers": {1: 500.0, 4: 1900.0}}),
        ("waiting", {"present": IDLE}),
        ("disk", {"memory_gib": 64, "limits": {"disk/original": 300.0}}),
        ("model", {"demand": 900.0}),
        ("none", {"speeds": ALL_EQUAL}),
        ("cannot tell", {"speeds": {"present-again": 700.0}}),
        ("cannot tell", {"present": {"other_cpu_pct": 40.0}}),
        ("cannot tell", {"memory_gib": 64, "limits": {"disk/original": 0.0}}),
    ],
)
def test_bottleneck_is_named(bottleneck: str, differing: dict[str, Any]) -> None:
    assert found(**differing).bottleneck == bottleneck


def test_fastest_way_is_the_first_cure_without_a_demand() -> None:
    cures = found().cures
    assert cures[0].way.name == "ffcv-raw"
    assert cures[0].gain == pytest.approx(9.6)
    assert [cure.gain for cure in cures] == sorted((cure.gain for cure in cures), reverse=True)


def test_cheapest_way_that_meets_the_demand_is_the_first_cure() -> None:
    diagnosis = found(demand=1800.0)
    first = diagnosis.cures[0]
    assert (first.way.name, first.meets, first.way.conversion_s) == ("original-threads", True, 0)
    assert not next(cure for cure in found(demand=5000.0).cures if cure.way.name == "copies-pil").meets


def test_conversion_is_paid_for_when_shorter_epochs_have_saved_its_time() -> None:
    paid = {cure.way.name: cure.paid_after_epochs for cure in found().cures}
    assert paid["copies-pil"] == pytest.approx(1500 / (IMAGES / 1000 - IMAGES / 2000))
    assert paid["original-threads"] == 0
    assert paid["ffcv-half"] is None  # how long it takes to write is not known


def test_demand_bounds_what_a_conversion_saves() -> None:
    paid = {cure.way.name: cure.paid_after_epochs for cure in found(demand=1250.0).cures}
    assert paid["ffcv-raw"] == pytest.approx(2000 / (IMAGES / 1000 - IMAGES / 1250))


def test_format_that_does_not_stay_in_memory_is_as_fast_as_the_disk() -> None:
    ways = {cure.way.name: cure.way for cure in found(memory_gib=64, limits={"disk/original": 300.0}).cures}
    small = ways["copies-threads"]
    assert small.fits
    assert small.expected_images_per_s == 8000
    assert "ffcv-raw" in ways
    slow = {"disk/original": 300.0, "disk/ffcv-raw": 2500.0}
    raw = next(c.way for c in found(memory_gib=64, limits=slow).cures if c.way.name == "ffcv-raw")
    assert (raw.fits, raw.expected_images_per_s, raw.images_per_s) == (False, pytest.approx(2500), 9600)


def test_gain_within_the_spread_of_the_present_way_is_no_cure() -> None:
    diagnosis = found({"present-again": 1200.0, "original-torchvision": 1250.0})
    assert "original-torchvision" not in {cure.way.name for cure in diagnosis.cures}
    assert "original-torchvision" in {way.name for way in diagnosis.no_cures}


def test_another_way_can_be_the_present_one() -> None:
    diagnosis = diagnose(replace(case(), now="copies-torchvision"))
    assert (diagnosis.bottleneck, diagnosis.present and diagnosis.present.images_per_s) == ("cores", 3000)
    gains = {cure.way.name: cure.gain for cure in diagnosis.cures}
    assert gains["ffcv-raw"] == pytest.approx(3.2)
    assert not gains.keys() & {"present", "copies-torchvision"}
    assert "present" in {way.name for way in diagnosis.no_cures}


def test_unknown_loader_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FixableError, match=r"--loader mine is no contestant .* use one of present,"):
        examine_data(None, loader="mine")


@pytest.mark.parametrize("arguments", [[], ["my_project.data:make_loader", "--data", "/data/birds"]])
def test_images_or_a_loader_must_be_named(arguments: list[str]) -> None:
    told = CliRunner().invoke(cli.app, ["doctor", *arguments])
    assert told.exit_code == 1
    assert "name either images with --data, or a loader of your own as module:function" in told.output


def test_stopped_examination_says_how_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: str, **__: Any) -> DataDiagnosis:
        raise KeyboardInterrupt

    monkeypatch.setattr(on_data, "examine_data", stopped)
    told = CliRunner().invoke(cli.app, ["doctor", "--data", "/data/birds"])
    assert (told.exit_code, told.output) == (130, "stopped; run the same command to resume\n")


def test_options_of_the_command_reach_the_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(on_data, "examine_data", lambda data, **options: given.update(options, data=data) or found())
    command = ["doctor", "--data", "s3://birds", "--demand", "8000", "--memory", "16GiB", "--workers", "3"]
    assert CliRunner().invoke(cli.app, command).exit_code == 0
    assert (given["data"], given["demand"], given["memory_bytes"]) == ("s3://birds", 8000, 16 * GIB)
    assert given["overrides"] == {"work": {"workers": 3}}


def test_nothing_is_promised_where_nothing_can_be_told() -> None:
    diagnosis = found({"present-again": 700.0})
    assert diagnosis.cures == diagnosis.no_cures == ()
    assert "two trials of the present way differ by 43%" in diagnosis.evidence


def test_present_way_without_a_speed_is_no_verdict_on_the_data() -> None:
    rows = [fabricate.failed(fabricate.Actor("present", "Now", "a loader", "original", 1.0), 1, reason="no memory")]
    analysis = analyse(rows, CAMPAIGN)
    given = replace(case(), analysis=analysis)
    diagnosis = diagnose(given)
    assert diagnosis.bottleneck == "cannot tell"
    assert diagnosis.missing == ("Now: failed: no memory",)


def without(*names: str) -> Case:
    """The ordinary case, in which these contestants have no speed."""
    speeds = {name: speed for name, speed in SPEEDS.items() if name not in names}
    return replace(case(), analysis=analyse(rows_of(speeds, LIMITS, {}), CAMPAIGN))


def test_present_way_that_ran_once_does_not_show_how_steady_the_machine_is() -> None:
    assert diagnose(without("present-again")).bottleneck == "cannot tell"
    assert diagnose(replace(without("present-again"), now="copies-torchvision")).bottleneck == "cores"


def test_another_way_is_examined_if_the_usual_one_fails() -> None:
    assert diagnose(replace(without("present", "present-again"), now="copies-torchvision")).bottleneck == "cores"


def test_page_holds_the_verdict_the_cures_and_the_picture(tmp_path: Path) -> None:
    page = data_answer.write(found(demand=1800.0), "/data/birds", "2 cores; 1,024 images", tmp_path)
    text = page.read_text()
    assert "# What holds back training on /data/birds?" in text
    assert "(bottleneck: image size)" in text
    assert re.search(r"\| 1\. Threads, simplejpeg, OpenCV +\| +1,900 \| +1\.90. \| yes +\| +none \|", text)
    assert re.search(r"\| 1\. Threads, simplejpeg, OpenCV +\| +110\.0 GB \|.*\| the same files +\|", text)
    assert max(len(line) for line in text.split("\n") if line.startswith("|")) <= 120
    assert "those of the whole data set, 1,000,000 images" in text
    assert "Nothing to gain with: uint8 handed over, normalised on the device (1.08" in text
    assert (tmp_path / data_answer.PICTURE).stat().st_size > 10_000
    assert f"({data_answer.PICTURE})" in text


def test_images_are_examined_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled_at(tmp_path, monkeypatch)
    diagnosis = examine_data("/data/birds", memory_bytes=1024 * GIB, **places(tmp_path))
    assert (diagnosis.bottleneck, diagnosis.images) == ("image size", IMAGES)
    text = (tmp_path / "reports" / "doctor" / data_answer.ANSWER).read_text()
    assert "1,000,000 images in the whole data set; 1,024.0 GiB of memory; each way once, 0 trials disturbed." in text


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_sample_is_converted_and_measured_and_the_whole_data_set_is_counted(tree: Path, tmp_path: Path) -> None:
    small = config.load(str(campaigns.file(tmp_path)))
    sampled = small.model_copy(update={"data": small.data.model_copy(update={"samples": 16})})
    (tmp_path / "cache").mkdir()
    measured = data_sample.measure(sampled, tree, tmp_path / "cache", tmp_path / "results", Display())
    assert measured.images == 96
    assert measured.conversion_s["files"] > 0
    assert analyse_folder(CampaignFolder(measured.folder)).measured[0].name == "a"
    assert not list((tmp_path / "cache").glob("doctor-*"))


def test_conversion_of_a_format_includes_decoding(monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path) -> None:
    parts = (PartEstimate(CANONICAL, 60.0, 1.0), PartEstimate("FFCV raw", 20.0, 1.0))
    monkeypatch.setattr(data_sample, "estimate_on_samples", lambda *_: Estimate(9, parts, free_bytes=1, measuring_s=1))
    seconds = data_sample.conversion_s(config.load("doctor"), scan(tree), tmp_path, Display())
    assert seconds == {"ffcv-raw": 80.0}


def test_epochs_have_batches_for_each_worker() -> None:
    assert on_data.campaign({"work": {"workers": 64}}).work.epoch_images == 8 * 64 * 128
    assert on_data.campaign({"work": {"workers": 1, "batch_size": 16}}).work.epoch_images == 2048


def test_demand_that_nothing_meets_is_told() -> None:
    assert "no way that was tried is enough" in found(demand=50_000.0).evidence
    assert "no way that was tried is enough" not in found(demand=5000.0).evidence


def test_page_without_a_verdict_has_neither_cures_nor_picture(tmp_path: Path) -> None:
    diagnosis = found({"present-again": 700.0}, demand=8000.0)
    text = data_answer.write(diagnosis, "/data/birds", "2 cores", tmp_path).read_text()
    assert "too unsteady" in text
    assert "What would help" not in text
    assert "8,000" not in text
    assert not (tmp_path / data_answer.PICTURE).exists()


def test_columns_of_a_table_are_aligned_for_a_terminal() -> None:
    page = "before\n| a | b \\| c |\n|---|--:|\n| long | 1 |\nafter"
    assert answer.aligned(page).split("\n") == [
        "before",
        "| a    | b \\| c |",
        "|------|-------:|",
        "| long |      1 |",
        "after",
    ]


@pytest.mark.parametrize(
    ("text", "expected"), [("16GiB", 16 * GIB), ("64 GB", 64 * 10**9), ("1.5T", 1_500_000_000_000), ("1000", 1000)]
)
def test_size_of_memory_is_read_with_its_unit(text: str, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize("text", ["much", "-3GiB", "0", "3 GiB of it"])
def test_wrong_size_of_memory_is_refused(text: str) -> None:
    with pytest.raises(FixableError, match="write it like 16GiB"):
        size_bytes(text)


def test_evidence_names_the_way_that_saves_the_time() -> None:
    assert "256 px copies: 0.97 of 1.95 ms of CPU time for an image are saved" in found().evidence
