"""The doctor runs loaders of any make in child processes, changes what it says, and leaves them as they are."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import loaderbench
from loaderbench.doctor.changes import Change
from loaderbench.doctor.examination import DoctorError, examine, step_time
from loaderbench.doctor.experiment import Experiment
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
def test_workers_can_do_the_work_of_the_main_process(tmp_path):
    report = observed("holding", tmp_path, by_workers=2)
    assert report["status"] == "ok", report["reason"]
    assert report["observation"].settings["num_workers"] == 0  # each of the two iterates over a loader without workers


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
