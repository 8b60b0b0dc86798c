"""The sections of a report: data in a bucket, consumers, jobs, tuning, formats, published figures, certificates."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from loaderbench.report import report
from tests import fabricate
from tests.fabricate import CAST
from tests.reports import rows_of, tables, written

pytestmark = pytest.mark.usefixtures("one_picture")


def test_report_shows_gpu_driver_and_environment_variables(tmp_path: Path) -> None:
    text = written(tmp_path, gpu="H200", gpu_driver="580.1", variables={"OMP_NUM_THREADS": "1"}, git_commit=None)
    assert "| GPU | H200, driver 580.1 |\n" in text
    assert "| Environment variables | OMP_NUM_THREADS = 1 |\n" in text
    assert "not from a commit" in text
    plain = written(tmp_path / "plain")
    assert "quota" not in plain
    assert "| GPU | no NVIDIA driver on this machine |\n" in plain
    assert "| Environment variables |" not in plain


def test_a_cpu_quota_is_shown_beside_the_allowed_cores(tmp_path: Path) -> None:
    host = fabricate.environment(CAST, 1, CAST[0].name)["host"] | {"cores_allowed": 64, "cpu_quota_cores": 1.5}
    text = written(tmp_path, host=host)
    assert "cores allowed, with a CPU quota of 1.5" in text
    assert ", 1.5 cores, " in text
    assert ", 2 workers. " in text


def test_a_format_that_memory_cannot_keep_is_named(tmp_path: Path) -> None:
    host = fabricate.environment(CAST, 1, CAST[0].name)["host"]
    assert "Warm trials of" not in written(tmp_path / "large", host=host)
    text = written(tmp_path / "small", host=host | {"memory_limit_mib": 1024})
    assert "MiB memory, of which the container may use 1,024" in text
    assert "**Warm trials of FFCV raw**: the format of " in text


def test_bucket_section_lists_crossovers(tmp_path: Path) -> None:
    """LitData's 3,600 images/s begin after 5.0 s; ImageFolder downloads and is as fast; FFCV has 5,500 after 13 s."""
    text = written(tmp_path, blocks=1)
    streamed, ffcv = "LitData JPEG, streamed", "FFCV JPEG, os_cache on, downloaded first"
    assert "**Data in S3:** ImageFolder 256 px, torchvision.io, downloaded first has the first batch soonest" in text
    assert "The bucket was s3://bucket/ready" in text
    assert "--artifacts s3://bucket/ready" in text
    assert "limited to 50.0 MiB/s, all connections together, and each round trip took 20.0 ms longer" in text
    [overtaking] = [cells for cells in tables(text) if cells[:2] == [streamed, ffcv]]
    assert overtaking[5:] == ["extrapolated", "1 of 1"]
    [never] = [cells for cells in tables(text) if cells[:2] == [streamed, f"never by {streamed}, cache bounded"]]
    assert never[2:] == ["\N{EN DASH}"] * 3 + ["the speeds after epoch 1", "1 of 1"]
    [bounded] = [cells for cells in rows_of(text, "LitData JPEG, streamed, cache bounded") if len(cells) == 11]
    assert bounded[-2:] == ["48.0 (within its 64.0)", "4.00"]


def test_missing_delivery_curves_are_omitted(tmp_path: Path) -> None:
    folder = fabricate.campaign(tmp_path / "results" / "quick", blocks=1)
    (folder / "times" / "1+litdata-jpeg+stream.npz").unlink()
    text = report.write(folder, tmp_path / "reports" / "quick").read_text()
    assert "LitData JPEG, streamed has the first batch" not in text
    assert rows_of(text, "LitData JPEG, streamed")


def test_other_consumers_have_their_own_sections(tmp_path: Path) -> None:
    text = written(tmp_path)
    feeding = text[text.index("## How fast an accelerator") : text.index("## How fast is training")]
    [_, fastest, *_] = tables(feeding)
    assert fastest[:2] == ["FFCV raw, os_cache on", "11,222"]
    training = text[text.index("## How fast is training") : text.index("### What does Lightning add?")]
    rows = {row[0]: row for row in tables(training)}
    assert rows["FFCV raw, os_cache on"][1:4] == ["1,669", "2,000", "16.5"]
    assert "LitData JPEG, under Lightning" in rows
    assert "no model was trained." not in text


def test_jobs_have_their_own_section(tmp_path: Path) -> None:
    several = {"slowest_rank_images_per_s": 900.0, "fairness": 0.98, "jobs": 2}
    rows = [fabricate.load(CAST[0], 1, **several), fabricate.fed(CAST[0], 1, "train", **several)]
    env = fabricate.environment(CAST[:1], 1, CAST[0].name, feeding=[CAST[0].name])["campaign"]
    env["work"] |= {"jobs": 2, "ranks": 1}
    text = written(tmp_path, rows, cast=CAST[:1], blocks=1, campaign=env)
    section = text[text.index("## How do several jobs share") : text.index("## Do all contestants")]
    assert tables(section)[0][1:3] == ["Images/s of all 2 jobs", "Slowest job"]
    assert rows_of(section, CAST[0].title)[0][2:4] == ["900", "0.980"]
    training = tables(text[text.index("## How fast is training") :])
    assert training[0][2] == "Slowest job"
    assert training[1][2] == "900"
    assert "in each of 2 jobs" in text


def test_report_without_training_omits_its_section(tmp_path: Path) -> None:
    text = written(tmp_path, cast=CAST[:2], best=[])
    assert "## How fast is training" not in text
    assert "**Training**: no model was trained" in text


def test_report_gives_mean_visits_per_image_for_a_partial_pass(tmp_path: Path) -> None:
    env = fabricate.environment(CAST[:1], 1, CAST[0].name)["campaign"]
    env["work"] |= {"epoch_images": 6554}
    text = written(tmp_path, [fabricate.load(CAST[0], 1)], cast=CAST[:1], blocks=1, campaign=env)
    assert "each measured epoch visits an image 1.6 times on average" in text


def test_report_names_the_images_of_every_certificate(tmp_path: Path) -> None:
    seen = {actor.name: fabricate.certificate(seen_on=f"{number} images") for number, actor in enumerate(CAST[:2], 7)}
    text = written(tmp_path, [fabricate.load(CAST[0], 1)], cast=CAST[:2], blocks=1, certified=seen)
    assert "Seen on 7 images; 8 images." in text


def test_tuned_contestants_have_their_own_section(tmp_path: Path) -> None:
    cast = CAST[:6]
    text = written(tmp_path, cast=cast, blocks=6)
    section = text[text.index("## What does tuning gain?") : text.index("## How close are")]
    assert text.index("## How fast is each") < text.index("## What does tuning")
    assert "**Tuned:** with settings tuned for each loader, FFCV raw is fastest: 11," in text
    times, arrow = "\N{MULTIPLICATION SIGN}", "\N{RIGHTWARDS ARROW}"
    [cells] = [row for row in rows_of(section, "FFCV raw") if len(row) == 9]
    assert cells[0] == "1"
    assert cells[5].startswith("faster (p 0.0")
    assert cells[6:8] == [f"os_cache True {arrow} False: 1.05{times}; workers 2 {arrow} 3: 1.07{times}", "640"]
    [cells] = rows_of(section, "LitData raw")
    assert cells[6] == "none: its own were the best found"
    tried = f"- **LitData raw**: workers 2 {arrow} 1: no gain, 0.55{times}; "
    assert f"{tried}prefetch_factor 2 {arrow} 4: no gain, 1.00{times}; tried everything (4 trials)." in section
    assert "FFCV raw" not in {row[1] for row in tables(text[: text.index("## What does tuning")]) if len(row) > 1}


def test_report_without_a_search_omits_tuning(tmp_path: Path) -> None:
    assert "tuned" not in written(tmp_path, cast=CAST[:2], best=[]).lower()


def test_report_explains_a_search_without_a_result(tmp_path: Path) -> None:
    actor = CAST[0]
    greedy = [replace(row, anon_memory_mib=5000.0) for row in fabricate.searched(actor)[:2]]
    bad = fabricate.at_best(actor, 1, status="unavailable", reason="no settings keep to it", images_per_s=None)
    again = replace(greedy[1], status="failed", reason="it broke", images_per_s=None)
    for name, searched in (("a", greedy), ("b", [greedy[0], again])):
        rows = [*searched, fabricate.load(actor, 1), bad]
        text = written(tmp_path / name, rows, cast=CAST[:1], blocks=1, best=[actor.name])
        [cells] = [row for row in rows_of(text, "FFCV raw") if len(row) == 9]
        assert cells[3] == "unavailable: no settings keep to it"
        assert cells[6] == "none keeps to the memory budget"
    assert ["Search: FFCV raw", "failed", "1", "\N{EN DASH}", "it broke"] in tables(text)
    assert "os_cache True \N{RIGHTWARDS ARROW} False: rejected, failed: it broke" in text


def test_a_deviating_format_is_described(tmp_path: Path) -> None:
    less = "JPEG of quality about 75, 4:2:0, full resolution, 38.2 dB from the canonical pixels"
    rows = [fabricate.write("ffcv-jpeg"), fabricate.write("litdata-jpeg", stored=less)]
    text = written(tmp_path, [fabricate.load(CAST[0], 1), *rows])
    converted = {row[0]: row[2] for row in tables(text) if row[-1] == "ok"}
    assert converted == {"FFCV JPEG": "canonical JPEG bytes", "LitData JPEG": less}
    assert re.findall(r"\*\*Not what was requested\*\*: (.*)", text) == [
        "LitData JPEG stores JPEG of quality about 75 where 90 was requested."
    ]


def test_a_format_written_in_several_runs_has_no_write_time(tmp_path: Path) -> None:
    untimed = fabricate.write("litdata-jpeg", write_synced_s=None, cpu_s=None, images_per_s=None)
    text = written(tmp_path / "a", [fabricate.load(CAST[0], 1), fabricate.write("ffcv-jpeg"), untimed])
    [row] = [row for row in rows_of(text, "LitData JPEG") if row[-1] == "ok"]
    assert set(row[3:6]) == {"\N{EN DASH}"}
    assert "- **No seconds**: the format was written in several runs" in text
    assert "No seconds" not in written(tmp_path / "b", [fabricate.load(CAST[0], 1), fabricate.write("ffcv-jpeg")])


def test_published_ratios_and_the_effect_of_each_change_are_shown(tmp_path: Path) -> None:
    cast = CAST[:3]
    rows = [
        fabricate.load(actor, block, images_per_s=speed)
        for actor, speed in zip(cast, (3000.0, 1500.0, 1000.0), strict=True)
        for block in range(1, 7)
    ]
    text = written(tmp_path, rows, cast=cast, blocks=6)
    [first] = [row for row in rows_of(text, cast[0].title) if "2.00× [2.00\N{EN DASH}2.00]" in row and len(row) == 7]  # noqa: RUF001
    assert first[1] == "6,960 / 6,550"
    assert first[4] == "0.667× [0.667\N{EN DASH}0.667]"  # noqa: RUF001 - it is changed into the third
    assert first[5] == "107,374"
    [change] = rows_of(text, "one thing")
    assert change[1:5] == [cast[0].title, cast[2].title, "0.333× [0.333\N{EN DASH}0.333]", "slower (p 0.0312)"]  # noqa: RUF001
    assert "in the stored order" not in text


def test_unreadable_images_are_counted_and_the_first_listed(tmp_path: Path) -> None:
    text = written(tmp_path, unreadable=[(f"{n}.jpg", "truncated") for n in range(25)])
    assert "**25 unreadable images** skipped in every format alike; the first 20:" in text
    assert len(rows_of(text, "truncated")) == report.SHOWN_UNREADABLE


def test_a_missing_list_of_unreadable_images_counts_as_empty(tmp_path: Path) -> None:
    folder = fabricate.campaign(tmp_path / "quick")
    (folder / "unreadable.csv").unlink()
    assert "No image was unreadable." in report.write(folder, tmp_path / "out").read_text()


WINDOWS = fabricate.certificate(faults=("shuffled only within windows of about 256 samples",))


def test_different_work_is_on_the_first_screen_without_a_rank(tmp_path: Path) -> None:
    certified = {actor.name: fabricate.certificate() for actor in CAST} | {CAST[0].name: WINDOWS}
    text = written(tmp_path, blocks=6, certified=certified, cold=[])
    assert f"**{CAST[1].title}" in text.split("![")[0], "the fastest of the same work leads"
    assert f"**Not ranked:** {CAST[0].title} (shuffled only within windows of about 256" in text
    cells = next(row for row in rows_of(text, CAST[0].title) if row[0] == "not ranked")
    assert cells[3].startswith("4.3")
    assert rows_of(text, CAST[1].title)[0][0] == "1"


def test_a_table_lists_the_work_of_each_contestant(tmp_path: Path) -> None:
    text = written(tmp_path)
    row = next(row for row in rows_of(text, CAST[1].title) if "bilinear, antialiased" in row)
    assert row[1:4] == ["the same", "canonical JPEG bytes", "canonical JPEG"]


def test_report_names_missing_certificates(tmp_path: Path) -> None:
    text = written(tmp_path, certified={})
    assert "**No certificates:** this campaign did not check" in text
    assert "## Do all contestants do the same work?" not in text


def test_limits_section_says_why_a_contestant_has_no_limit(tmp_path: Path) -> None:
    reason = "transfer: faster, so it takes another way than the measured one"
    unlimited = {"bound_ips": None, "pct_of_bound": None, "bound_by": "", "bound_reason": reason}
    rows = [fabricate.load(CAST[0], 1, **unlimited), fabricate.load(CAST[1], 1), fabricate.limit("crop", 1)]
    text = written(tmp_path, rows, cast=CAST[:2], blocks=1)
    assert f"- **No limit for {CAST[0].title}**: {reason}.\n" in text
    assert f"No limit for {CAST[1].title}" not in text


def test_a_cold_trial_without_reads_shows_zero(tmp_path: Path) -> None:
    rows = [fabricate.load(CAST[0], 1), fabricate.load(CAST[0], 1, cache="cold", read_bytes=0, cache_state="unproven")]
    text = written(tmp_path, rows, cast=CAST[:1], blocks=1, cold=[CAST[0].name])
    [row] = rows_of(text, "unproven (1)")
    assert row[-2:] == ["0.00", "unproven (1)"]
