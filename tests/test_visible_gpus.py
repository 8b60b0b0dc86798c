"""Only trials that deliver on a GPU or train see one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.trial import processes
from loaderbench.trial.spec import ObserveSpec, TrialSpec, Window

if TYPE_CHECKING:
    from loaderbench.records.record import Consumer

ARTIFACT = Artifact("f", "/nowhere", 8, 0, 1, 1, Encoding("jpeg"))
WORK = Work(batch_size=4, workers=1, image_size=8)
ON_GPU = replace(WORK, device="cuda")


def trial(work: Work, consumer: Consumer, jobs: int = 1) -> TrialSpec:
    return TrialSpec("any", ARTIFACT, work, Window(0, 0, 1, None), Path("times"), consumer=consumer, jobs=jobs)


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        (trial(WORK, "hungry"), ""),
        (trial(WORK, "paced"), ""),
        (trial(WORK, "hungry", jobs=2), ""),
        (trial(WORK, "train"), "3"),
        (trial(WORK, "lightning"), "3"),
        (trial(ON_GPU, "hungry"), "3"),
        (ObserveSpec("any", ARTIFACT, WORK, {}), ""),
        (ObserveSpec("any", ARTIFACT, ON_GPU, {}), "3"),
    ],
)
def test_a_gpu_is_shown_to_those_alone_that_deliver_on_it_or_train(
    spec: TrialSpec | ObserveSpec, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(processes.process, "run_child", lambda *_, environment: told.append(environment) or {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    processes.run("task", spec, Path("log"), 60)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in told] == [shown]
