"""The doctor measures what a model takes, copies a bucket's images, and refuses options that do not go together."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from loaderbench import cli
from loaderbench.bucket import loopback
from loaderbench.campaign import campaign as config
from loaderbench.campaign.selection import select
from loaderbench.doctor import data_answer, data_demand, data_sample, on_data
from loaderbench.doctor.data_case import Case
from loaderbench.doctor.data_verdict import diagnose
from loaderbench.doctor.on_data import examine_data
from loaderbench.machine.errors import FixableError
from loaderbench.trial.consumers.train import Training
from tests import campaigns
from tests.proxy import point
from tests.sampled import GIB, case, found, places, sampled_at

TIMING = {**campaigns.TIMING, "blocks": 1}
SMALL = config.load("doctor", {"work": {"batch_size": 16, "workers": 2, "image_size": 32}, "timing": TIMING})


def test_demand_of_a_model_is_measured_on_a_batch_of_the_loaders_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(data_demand, "_SECONDS", 0.01)
    monkeypatch.setattr(data_demand, "run_child", lambda _, task, *__: data_demand.run(task))
    seen: list[tuple[int, ...]] = []
    step = Training.step

    def watched(of: Training, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append((*images.shape, of.classes))
        return step(of, images, labels)

    monkeypatch.setattr(Training, "step", watched)
    work = on_data.campaign({"work": {"image_size": 32}}).work_on(1, 1)
    images_per_s, trained = data_demand.measure("resnet18", work)
    assert images_per_s > 0
    assert trained == "resnet18 on this machine's CPU"
    assert set(seen) == {(8, 3, 32, 32, 1000)}  # few, because a step on a CPU takes long


@pytest.mark.parametrize(
    ("model", "reason"), [("resnet5", "near names: resnet50, "), ("zzz", "it has: alexnet, convnext_base, ")]
)
def test_unknown_model_is_refused_before_anything_is_measured(
    model: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_demand, "run_child", lambda _, task, *__: data_demand.run(task))
    monkeypatch.setattr(data_sample, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(FixableError, match=rf"--model {model}: torchvision has no such model of images; {reason}"):
        examine_data(None, model=model, **places(tmp_path))


def test_model_that_does_not_train_on_such_batches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"status": "failed", "reason": "OutOfMemoryError: no memory"}
    monkeypatch.setattr(data_demand, "run_child", lambda *_: report)
    with pytest.raises(FixableError, match=r"--model vit_h_14: OutOfMemoryError: no memory; --demand takes images/s"):
        data_demand.measure("vit_h_14", on_data.campaign({}).work_on(1, 1))


def test_page_says_which_model_takes_the_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled_at(tmp_path, monkeypatch)
    monkeypatch.setattr(data_demand, "measure", lambda model, _: (1250.0, f"{model} on this machine's GPU"))
    diagnosis = examine_data("/data/birds", model="resnet50", memory_bytes=1024 * GIB, **places(tmp_path))
    assert diagnosis.demand == 1250
    assert "resnet50 on this machine's GPU takes 1,250 images/s: it runs at 80% of its speed" in diagnosis.evidence


def test_demand_is_given_or_measured_but_not_both() -> None:
    with pytest.raises(FixableError, match="give only one of them"):
        examine_data(None, model="resnet50", demand=8000)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["my.data:make", "--demand", "8", "--model", "resnet50"], "--demand and --model: only with --data"),
        (["--data", "/data/birds", "--step-ms", "120"], "--step-ms: only with a loader of your own"),
    ],
)
def test_options_of_the_other_doctor_are_refused(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(cli.app, ["doctor", *arguments])
    assert (done.exit_code, done.output) == (1, f"{told}\n")


def test_transforms_are_told_apart_by_the_cpu_time_that_uint8_batches_save() -> None:
    def allowed(speed: float) -> float | None:
        limits = found({"original-uint8": speed}).limits
        return next(one.images_per_s for one in limits if one.part == "transforms")

    assert allowed(1250.0) == pytest.approx(1000 / 0.975 / (1 - 1000 / 1250))
    assert allowed(900.0) is None


def test_speed_of_the_disk_says_if_it_is_that_of_a_buckets_copy() -> None:
    def note(given: Case) -> str:
        return next(one.note for one in diagnose(given).limits if one.part == "disk or network")

    assert note(case()).startswith("the files where they are")
    assert note(replace(case(), bucket=True)).startswith("the copy in the cache, not the bucket itself")


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_images_in_a_bucket_are_examined(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tree, tmp_path / "buckets" / "birds" / "train")
    monkeypatch.setattr(on_data, "campaign", lambda _: select(SMALL, ["present*", "copies-torchvision"], ()))
    with loopback.serve(tmp_path / "buckets") as endpoint:
        point(monkeypatch, loopback.environment(endpoint))
        diagnosis = examine_data("s3://birds/train", **places(tmp_path))
    assert (diagnosis.images, diagnosis.missing) == (96, ())
    assert diagnosis.present
    text = (tmp_path / "reports" / "doctor" / data_answer.ANSWER).read_text()
    assert "# What holds back training on s3://birds/train?" in text
    assert "the copy in the cache, not the bucket itself" in text
