"""Contestants train with several numbers of workers, and the report says with how many each keeps the GPU busy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loaderbench.api import Artifact, Encoding
from loaderbench.campaign import campaign as config
from loaderbench.campaign.variant import Variant
from loaderbench.findings import keeping_busy
from loaderbench.findings.analysis import analyse
from loaderbench.findings.findings import Analysis
from loaderbench.records.record import Record
from loaderbench.report import plots, report
from loaderbench.run.one_trial import trial_spec
from tests import fabricate
from tests.analysed import CAST, FAST, SLOW
from tests.reports import rows_of

WORKERS = (1, 2, 4, 8)
"""The campaign's own number is 4."""
TRAINED = Variant(track="scaling", consumer="train", workers=2)


def trained(actor: fabricate.Actor, stalls_pct: tuple[float | None, ...], *, gpu: bool = True) -> list[Record]:
    """Rows of trainings with 1, 2, 4 and 8 workers with these data stalls; None: it failed."""
    rows = []
    for workers, stall_pct in zip(WORKERS, stalls_pct, strict=True):
        if stall_pct is None:
            columns: dict[str, Any] = dict.fromkeys(("images_per_s", "starved_pct"))
            columns |= {"status": "failed", "reason": "it broke"}
        else:
            columns = {
                "images_per_s": 2000 * (1 - stall_pct / 100),
                "warm_cached_images_per_s": 2000.0,
                "stall_vs_warm_cached_pct": stall_pct,
                "starved_pct": stall_pct,
                "gpu_starved_pct": stall_pct if gpu else None,
                "cores_used": 0.9 * workers,
            }
        if workers != 4:
            columns |= {"track": "scaling", "trial": f"1/{actor.name}/scaling/train/{workers}"}
        rows.append(fabricate.fed(actor, 1, "train", **columns | {"workers": workers}))
    return rows


def env(**changes: Any) -> dict[str, Any]:
    content = fabricate.environment(CAST, 1, "reference")
    names = ["fast", "slow"]
    content["campaign"] |= {
        "consumers": {"train": {"contestants": names, "options": {"model": "resnet50"}}},
        "scaling": {"contestants": names, "workers": [1, 2, 8], "consumer": "train"},
    }
    for contestant in content["campaign"]["contestants"]:
        contestant.update(changes.get(contestant["name"], {}))
    return content


def analysis_of(rows: list[Record], **changes: Any) -> Analysis:
    main = [fabricate.load(actor, 1) for actor in CAST]
    return analyse([*main, *rows], env(**changes)["campaign"])


def headline(rows: list[Record], **changes: Any) -> str:
    return "".join(keeping_busy.headline(analysis_of(rows, **changes)) or ())


BUSY_WITH_2 = trained(FAST, (48.0, 4.9, 1.0, 0.5))
BUSY_WITH_8 = trained(SLOW, (80.0, 60.0, 21.0, 2.0))


def test_the_contestant_that_keeps_the_gpu_busy_with_the_fewest_workers_comes_first() -> None:
    said = "Fast keeps this GPU busy in training with 2 workers (1.80 cores); Slow takes 8 workers (7.20 cores)."
    assert headline([*BUSY_WITH_8, *BUSY_WITH_2]) == said


def test_the_headline_of_an_unfinished_campaign_holds_so_far() -> None:
    assert headline(BUSY_WITH_2) == "Fast keeps this GPU busy in training with 2 workers (1.80 cores) so far."


def test_the_picture_shows_the_line_of_a_busy_gpu_also_above_all_points(monkeypatch: pytest.MonkeyPatch) -> None:
    found = analysis_of([*trained(FAST, (0.4, 0.3, 0.2, 0.1)), *trained(SLOW, (0.4, 0.3, 0.2, 0.1))])
    monkeypatch.setattr(plots, "PLOTS", [plot for plot in plots.PLOTS if plot.file == "keeping-busy.png"])
    [figure] = plots.figures(found, "a machine, 1 block").values()
    assert figure.axes[0].get_ylim()[1] > keeping_busy.BUSY_STALL_PCT
    assert figure.axes[1].get_ylim()[1] > 2000


def test_of_equally_many_workers_fewer_used_cores_come_first() -> None:
    rows = [replace(row, cores_used=0.75 * row.workers) for row in trained(SLOW, (48.0, 4.9, 1.0, 0.5))]
    said = "Slow keeps this GPU busy in training with 2 workers (1.50 cores); Fast takes 2 workers (1.80 cores)."
    assert headline([*BUSY_WITH_2, *rows]) == said


def test_a_contestant_that_never_keeps_the_gpu_busy_is_said_to_leave_it_waiting() -> None:
    rows = trained(SLOW, (80.0, 60.0, 30.0, 31.0))
    lacks = "Slow leaves it waiting for 30.0 % of the time at best, with 4 workers (3.60 cores)"
    assert headline([*BUSY_WITH_2, *rows]).endswith(f"; {lacks}.")
    assert headline(rows) == f"No loader keeps this GPU busy in training: {lacks}."


def test_training_without_a_gpu_speaks_of_the_cpu() -> None:
    assert "keeps this CPU busy" in headline(trained(FAST, (48.0, 4.9, 1.0, 0.5), gpu=False))


def test_an_unranked_contestant_is_not_in_the_headline() -> None:
    assert "Fast" not in headline([*BUSY_WITH_2, *BUSY_WITH_8], fast={"apart": "a GPU decodes"})


def test_without_trainings_at_several_numbers_of_workers_the_headline_is_the_usual_one() -> None:
    assert headline([]) == ""
    assert headline(trained(FAST, (None, None, None, None))) == ""


@pytest.mark.parametrize(
    ("stalls_pct", "said"),
    [
        (
            (48.0, 4.9, 1.0, 0.5),
            "It keeps this GPU busy with 2 workers (1.80 cores), the data stall is 4.90 %; 1,902 images/s, 4.90%",
        ),
        ((48.0, None, None, 0.5), "It keeps this GPU busy with 8 workers (7.20 cores)"),
        (
            (80.0, 60.0, 30.0, 31.0),
            "It does not keep this GPU busy: at best, with 4 workers (3.60 cores), the data",
        ),
        ((None, None, None, None), "Its data stall in training was not measured."),
    ],
)
def test_each_contestant_has_its_number_of_workers_in_one_sentence(
    stalls_pct: tuple[float | None, ...], said: str
) -> None:
    curves = keeping_busy.trained(analysis_of(trained(FAST, stalls_pct)))
    assert said in next(curve.reading for curve in curves if curve.main.name == "fast")


def test_trainings_with_other_numbers_of_workers_leave_the_other_sections_as_they_are() -> None:
    own = [row for row in BUSY_WITH_2 if row.workers == 4]
    lightning = fabricate.fed(FAST, 1, "lightning")
    with_others, alone = (analysis_of([*rows, lightning]) for rows in (BUSY_WITH_2, own))
    assert with_others.by_consumer == alone.by_consumer
    assert with_others.lightning == alone.lightning
    assert with_others.summaries == alone.summaries
    assert with_others.recorded == alone.recorded + 3


def test_the_report_answers_with_a_sentence_a_picture_and_a_table(tmp_path: Path) -> None:
    rows = [*(fabricate.load(actor, 1) for actor in CAST), *BUSY_WITH_2, *BUSY_WITH_8]
    folder = fabricate.campaign(tmp_path / "results" / "gpu-workers", rows, cast=CAST, reference="reference")
    (folder / "env.json").write_text(json.dumps(env()))
    text = report.write(folder, tmp_path / "report").read_text()
    assert text.index("**Fast keeps this GPU busy") < text.index("keeping-busy.png") < text.index("headline.png")
    assert "**Without training:**" in text
    assert [row[1:4] for row in rows_of(text, "Fast") if len(row) == 7 and row[1] in set("1248")] == [
        ["1", "1,040", "48.0"],
        ["2", "1,902", "4.90"],
        ["4", "1,980", "1.00"],
        ["8", "1,990", "0.500"],
    ]
    assert (tmp_path / "report" / "keeping-busy.png").exists()
    assert "How many workers does each loader need?" not in text


def test_a_training_with_another_number_of_workers_has_the_trainings_options_and_window() -> None:
    campaign = config.load("gpu-workers", {"work": {"workers": 16}})
    artifact = Artifact("ffcv-raw", "/nowhere", 4096, 0, 1, 1, Encoding("raw"))
    contestant = next(c for c in campaign.contestants if c.name == "ffcv-raw-mapped")
    spec = trial_spec(campaign, contestant, artifact, Path("times"), 1, TRAINED)
    assert campaign.consumers.train
    assert (spec.consumer, spec.work.workers) == ("train", 2)
    assert spec.consumer_options["model"] == "resnet50"
    assert spec.window.window_s == campaign.consumers.train.window_s


def test_contestants_that_train_with_several_numbers_of_workers_must_train_with_the_campaigns_own() -> None:
    training = {"train": {"contestants": ["ffcv-raw-mapped", "litdata-jpeg", "imagefolder-256-torchvision"]}}
    with pytest.raises(config.CampaignError, match=r"add to consumers\.train: ffcv-jpeg-mapped, threads"):
        config.load("gpu-workers", {"consumers": training})
