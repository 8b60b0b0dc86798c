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
from loaderbench.doctor.experiment import Experiment, goes_on, lasting, needs_step
from loaderbench.doctor.steps import points, replay
from loaderbench.machine.process import run_child
from tests.clinic import odd
from tests.test_lightning import noting, trainer

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("forked")


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
        ({"text": ["a", "b"], "label": torch.zeros(2)}, Batch(2, 8, ("2 float32",), 0)),
        ([{"data": torch.zeros(5, 2), "label": torch.zeros(5)}], Batch(5, 60, ("5 x 2 float32", "5 float32"), 40)),
        (((torch.zeros(3, 1, 1),) * 4, ({},) * 4), Batch(4, 48, ("3 x 1 x 1 float32",) * 4, 48)),
        ([(torch.zeros(3, 1, 1), 7)] * 4, Batch(4, 48, ("3 x 1 x 1 float32",) * 4, 48)),
    ],
    ids=["tensor", "nested", "texts", "dict with texts", "DALI", "lists of fields", "list of samples"],
)
def test_a_batch_of_any_make_is_described(batch, expected):
    assert described(batch) == expected


def test_the_size_of_a_full_batch_decides_between_channels_and_samples():
    images = [torch.zeros(3, 1, 1)] * 2
    assert described(images).samples == 3
    assert described(images, expected=2).samples == 2


def test_a_batch_without_arrays_or_length_is_refused():
    with pytest.raises(TypeError, match=r"a batch is int, which holds no tensor or array"):
        described(7)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "the loader ended without a batch"),
        ("broken", "the disk is not mounted"),
        ("number", "the function returned no iterable of batches, but int"),
        ("pair", "the function returned 2 loaders; name a function that returns one of them"),
        ("with_arguments", r"needs arguments \(folder\); name a function without any that calls it"),
        ("dropping", "drop_last=True drops its only one, of 64 samples instead of 100"),
        ("once", "the loader has one epoch only; name a function that makes it again for each epoch"),
        ("leaving", r"the code called sys.exit\(3\); its last output: no data found in /data"),
        ("_SAMPLES", "is no loader and no function that returns one, but int"),
        ("missing", "has no missing"),
        pytest.param("unpicklable", "Can't pickle", marks=pytest.mark.slow),
        pytest.param("after_cuda", "Cannot re-initialize CUDA", marks=pytest.mark.slow),
    ],
)
def test_a_loader_that_does_not_run_gets_a_clear_error(name, reason):
    with pytest.raises(DoctorError, match=rf"odd:{name} does not run as it is: .*{reason}"):
        examine(f"tests.clinic.odd:{name}", folder=ROOT)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (
            "tests.clinic.odd",
            r"'tests.clinic.odd' names no loader; write module:function, .* or the command",
        ),
        ("tests/clinic/odd.py:no_labels", r"'tests/clinic/odd.py:no_labels' names no loader"),
        ("torchrun main.py", r"'torchrun main.py' names no loader"),
        ("python 'main.py", r"No closing quotation; write module:function"),
        ("nothing.data:make", r"Python finds no module nothing, .* put PYTHONPATH=src before the command"),
        ("missing.py /data", r"there is no script .*/missing.py"),
        ("python -m", r"-m needs a module"),
        ("tests/clinic/odd.py", r"odd.py ended before it trained on a batch of a torch DataLoader"),
        ("tests/clinic/training.py data --wrong", r"sys.exit\(2\); its last output: .*required: --checkpoint"),
    ],
)
def test_a_target_that_names_no_loader_gets_a_clear_error(target, reason):
    with pytest.raises(DoctorError, match=reason):
        examine(target, folder=ROOT)


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
        ("subset", "DataLoader", 4),
        ("streamed", "DataLoader", 4),
        ("streamed_batches", "DataLoader", 4),
        ("several", "DataLoader", 4),
        ("derived", "Derived of tests", 4),
        ("holding", "DataLoader", 4),
        ("spawned", "DataLoader", 4),
        ("listed", "DataLoader", 4),
        ("mixed", "list", 4),
        ("talking", "DataLoader", 4),
        ("ready", "DataLoader", 4),
        ("Resettable", "Resettable of tests", 4),
        ("web", "DataLoader", 4),
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
@pytest.mark.parametrize("name", ["derived", "holding", "streamed"])
def test_settings_change_of_loaders_of_any_class(name, tmp_path):
    report = observed(name, tmp_path, settings=(("num_workers", 2), ("prefetch_factor", 3)))
    assert report["observation"].settings.items() >= {"num_workers": 2, "prefetch_factor": 3}.items()


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
@pytest.mark.parametrize("name", ["subset", "streamed", "streamed_batches", "itself", "several", "derived"])
def test_samples_are_timed_however_the_data_set_makes_them(name, tmp_path):
    report = observed(name, tmp_path, settings=(("num_workers", 0),), timed=True)
    assert report["observation"].steps["sample"].calls == report["observation"].samples


def test_a_replayed_transform_returns_its_first_result_and_a_replayed_collate_copies_of_it():
    loader = odd.no_labels()
    for point in points(loader):
        if point.name != "sample":
            replay(point)
    transformed = [loader.dataset.transform(torch.full((3,), value)) for value in (1.0, 2.0)]
    batches = [loader.collate_fn([torch.full((3,), value)] * 4) for value in (1.0, 2.0)]
    assert transformed[1] is transformed[0]
    assert torch.equal(batches[1], batches[0])
    assert batches[1].data_ptr() != batches[0].data_ptr()


def test_the_steps_of_transforms_inside_a_preset_are_known():
    names = [point.name for point in points(odd.preset())]
    flatten = ["transform Identity", "transform Flatten", "transform Identity (2)"]
    assert names == ["sample", *flatten, "collate"]


def test_steps_of_a_plain_list_are_not_known():
    with pytest.raises(NotImplementedError, match="steps are known of data sets written in Python, not of list"):
        list(points(DataLoader([1, 2])))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([30.0], True),
        ([30.0, 1.0], False),
        ([0.5] * 4, True),
        ([0.5] * 5, False),
        ([1e-6] * 999, True),
        ([1e-6] * 1000, False),
    ],
)
def test_few_slow_steps_or_many_fast_ones_are_timed(times, expected):
    assert needs_step(times, 2.0) is expected


def test_memory_is_that_of_the_processes_that_live_throughout():
    main, first, second = 1, 2, 3
    readings = [(0, {main: 10.0}), (4, {main: 11.0, first: 500.0}), (8, {main: 12.0, first: 500.0, second: 500.0})]
    assert list(lasting(readings)) == [(0, 10.0), (4, 11.0), (8, 12.0)]


@pytest.mark.slow
def test_steps_of_workers_that_are_not_forked_cannot_be_timed(tmp_path):
    report = observed("spawned", tmp_path, timed=True)
    assert report["reason"].startswith("steps can be changed in forked workers only")


@pytest.mark.slow
def test_a_command_that_trains_runs_up_to_the_loader_that_it_trains_on(tree, tmp_path):
    command = f"python tests/clinic/training.py {tree} --workers 1 --checkpoint {tmp_path / 'checkpoint'}"
    experiment = Experiment(command, str(ROOT), 0.3, Change(settings=(("num_workers", 2),)))
    report = run_child("loaderbench.doctor.experiment.run", experiment, tmp_path / "log")
    assert report["status"] == "ok", report["reason"]
    assert report["observation"].settings.items() >= {"batch_size": 8, "num_workers": 2}.items()
    report = run_child("loaderbench.doctor.experiment.time_step", (experiment, None), tmp_path / "log")
    assert report["step_s"] > 0
    assert list(tmp_path.iterdir()) == [], "the command went on and saved its model"


@pytest.mark.slow
def test_a_training_step_is_timed_on_a_batch():
    assert step_time("tests.clinic.odd:no_labels", "tests.clinic.odd:step", ROOT) > 0
    with pytest.raises(DoctorError, match=r"the training step tests.clinic.odd:Module does not run"):
        step_time("tests.clinic.odd:no_labels", "tests.clinic.odd:Module", ROOT)


@pytest.mark.slow
def test_every_experiment_on_a_dataloader_runs():
    diagnosis = examine("tests.clinic.odd:no_labels", folder=ROOT, seconds=0.1)
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
    assert (seen.first_waits_s, seen.waits_s, seen.steps_s) == (4.0, 6.0, 8.0)
    assert "56% of the training time waits for data (8 batches, 2 epochs" in said[0]


@pytest.mark.slow
def test_the_trainer_of_lightning_trains_on_a_watched_loader():
    loader, model = odd.no_labels(), noting("lightning")
    model.training_step = lambda batch: model.layer(batch.mean((2, 3))).square().mean()
    with loaderbench.watch(loader, [].append) as seen:
        trainer("lightning", max_epochs=2).fit(model, loader)
    assert (seen.batches, seen.epochs) == (32, 2)
    assert seen.steps_s > 0


def test_an_iterator_can_be_watched(monkeypatch):
    monkeypatch.setattr(odd.Resettable, "made", 0)
    loader = odd.Resettable()
    with loaderbench.watch(loader, [].append) as seen:
        assert len(list(loader)) == 4
    assert seen.batches == 4


def test_a_generator_cannot_be_watched():
    with (
        pytest.raises(TypeError, match=r"a loader of type generator cannot be watched"),
        loaderbench.watch(odd.dicts()),
    ):
        pass
