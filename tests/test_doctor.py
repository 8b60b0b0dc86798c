"""The doctor runs loaders of any make in child processes, changes what it says, and leaves them as they are."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import loaderbench
from loaderbench.doctor.batches import Batch, described
from loaderbench.doctor.changes import Change
from loaderbench.doctor.examination import DoctorError, examine, step_time
from loaderbench.doctor.experiment import Experiment, goes_on
from loaderbench.machine.process import run_child
from tests.clinic import odd

ROOT = Path(__file__).parent.parent


def observed(name, tmp_path, **change):
    """Return the report of one experiment on a loader of `tests.clinic.odd`."""
    experiment = Experiment(f"tests.clinic.odd:{name}", str(ROOT), 0.3, Change(**change))
    return run_child("loaderbench.doctor.experiment.run", experiment, tmp_path / "log")


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (torch.zeros(4, 3, 8, 8), Batch(4, 3072, ("4 x 3 x 8 x 8 float32",), 3072)),
        ({"a": [np.zeros((2, 5), np.uint8)], "b": torch.zeros(2)}, Batch(2, 18, ("2 x 5 uint8", "2 float32"), 0)),
        (["a", "b", "c"], Batch(3, 0, (), 0)),
    ],
)
def test_a_batch_of_any_make_is_described(batch, expected):
    assert described(batch) == expected


def test_a_batch_without_arrays_or_length_is_refused():
    with pytest.raises(TypeError, match=r"a batch is int, which holds no tensor or array"):
        described(7)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "the loader ended without a batch"),
        ("broken", "the disk is not mounted"),
        ("number", "no iterable of batches, but int"),
        ("missing", "has no missing"),
        pytest.param("after_cuda", "Cannot re-initialize CUDA", marks=pytest.mark.slow),
    ],
)
def test_a_loader_that_does_not_run_gets_a_clear_error(name, reason):
    with pytest.raises(DoctorError, match=rf"odd:{name} does not run as it is: .*{reason}"):
        examine(f"tests.clinic.odd:{name}", folder=ROOT)


@pytest.mark.parametrize(
    ("window_s", "batches", "workers", "expected"),
    [
        (3.9, 100, 2, True),  # too short
        (4.1, 2, 2, True),  # too few batches
        (4.1, 5, 2, True),  # the other worker delivers as well
        (4.1, 6, 2, False),
        (4.1, 5, 0, False),
        (24.1, 1, 2, False),  # it lasts six times as long as asked for, not longer
    ],
)
def test_a_window_takes_whole_rounds_of_the_workers(window_s, batches, workers, expected):
    assert goes_on(window_s, 4.0, batches, workers) is expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "samples"),
    [
        ("no_labels", "DataLoader", 4),
        ("own_sampler", "DataLoader", 4),
        ("dicts", "generator", 4),
        ("endless", "generator", 4),
        ("Module", "DataLoader", 4),
    ],
)
def test_loaders_of_any_make_run(name, kind, samples, tmp_path):
    report = observed(name, tmp_path)
    assert report["status"] == "ok", report["reason"]
    assert (report["observation"].kind, report["observation"].batch.samples) == (kind, samples)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"settings": (("num_workers", 0),)}, {"num_workers": 0, "persistent_workers": False}),
        ({"settings": (("num_workers", 2),)}, {"num_workers": 2}),
        ({"settings": (("persistent_workers", True),)}, {"persistent_workers": True}),
    ],
)
def test_an_experiment_changes_the_setting_that_it_names(change, expected, tmp_path):
    report = observed("no_labels", tmp_path, **change)
    assert report["status"] == "ok", report["reason"]
    assert expected.items() <= report["observation"].settings.items()


@pytest.mark.slow
def test_batches_can_be_handed_over_as_bytes(tmp_path):
    report = observed("no_labels", tmp_path, as_bytes=True)
    assert report["observation"].batch.arrays == ("4 x 3 x 8 x 8 uint8",)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), (("num_workers", 0),)])
def test_each_step_is_timed_in_whatever_process_does_it(settings, tmp_path):
    report = observed("no_labels", tmp_path, settings=settings, timed=True)
    steps = report["observation"].steps
    assert set(steps) == {"sample", "transform Identity", "collate"}
    assert steps["sample"].calls == steps["transform Identity"].calls > steps["collate"].calls > 0
    assert steps["sample"].wall_s >= steps["sample"].own_s > 0


@pytest.mark.slow
def test_a_training_step_is_timed_on_a_batch():
    assert step_time("tests.clinic.odd:no_labels", "tests.clinic.odd:step", ROOT) > 0
    with pytest.raises(DoctorError, match=r"the training step tests.clinic.odd:Module does not run"):
        step_time("tests.clinic.odd:no_labels", "tests.clinic.odd:Module", ROOT)


@pytest.mark.slow
def test_every_experiment_on_a_dataloader_runs():
    diagnosis = examine("tests.clinic.odd:no_labels", folder=ROOT, seconds=0.3)
    assert [trial.reason for trial in diagnosis.trials if trial.observation is None] == []
    assert len(diagnosis.trials) > 8


def test_a_watched_loader_is_told_apart_and_stays_as_it_is():
    loader, said = DataLoader(odd.Numbers(), batch_size=16), []
    clock = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.perf_counter", lambda: float(next(clock)))
        with loaderbench.watch(loader, said.append) as seen:
            assert isinstance(loader, DataLoader)
            assert len(list(loader)) == 4
            assert len(list(loader)) == 4
    assert type(loader) is DataLoader
    assert (seen.batches, seen.epochs) == (8, 2)
    assert (seen.first_waits_s, seen.waits_s, seen.steps_s) == (2.0, 6.0, 8.0)
    assert "50% of the training time waits for data (8 batches, 2 epochs" in said[0]


def test_a_generator_cannot_be_watched():
    with (
        pytest.raises(TypeError, match=r"a loader of type generator cannot be watched"),
        loaderbench.watch(odd.dicts()),
    ):
        pass
