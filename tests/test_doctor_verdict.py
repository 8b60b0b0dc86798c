"""The doctor names the bottleneck that made-up experiments show, and puts the best cure first."""

from dataclasses import replace

import pytest

from loaderbench.doctor import examination
from loaderbench.doctor.batches import Batch
from loaderbench.doctor.case import AS_IS, IN_COLLATE, Trial
from loaderbench.doctor.changes import Change
from loaderbench.doctor.experiment import Observation
from loaderbench.doctor.steps import Step
from loaderbench.doctor.verdict import diagnose

PLAIN = Observation(
    kind="DataLoader",
    settings={
        "num_workers": 2,
        "prefetch_factor": 2,
        "persistent_workers": True,
        "pin_memory": False,
        "batch_size": 10,
    },
    batch=Batch(10, 1 << 20, ("10 x 3 x 224 x 224 uint8",), 0),
    open_s=0.1,
    first_s=0.5,
    window_s=4.0,
    batches=40,
    samples=400,
    epochs=0,
    epoch_waits_s=(),
    waits_s=(0.1,) * 40,
    inside_s=3.9,
    cpu_s=7.0,
    elsewhere=0.05,
    memory=tuple((batches, 500.0) for batches in range(0, 40, 4)),
    steps={},
    decoded_pixels=None,
)


def step(own_s, wall_s=None, cpu_s=None):
    """Return a step of 100 calls that neither waits nor is blocked, unless its CPU time is given."""
    wall_s = own_s if wall_s is None else wall_s
    return Step(100, own_s, wall_s, wall_s if cpu_s is None else cpu_s, 0.0)


ALONE = {
    "sample": step(0.05, 1.0),
    "decode": step(0.5),
    "the data set's loader": step(0.02, 0.52),
    "transform RandomResizedCrop": step(0.35),
    "collate": step(0.08),
}


def trial(gain, name="a change", **change):
    """Return an experiment with this speed relative to the loader as it is."""
    return Trial(name, Change(**change), replace(PLAIN, samples=round(400 * gain)), "")


def timed(steps, workers=0, **changes):
    """Return an experiment in which each step was timed."""
    settings = () if workers else (("num_workers", 0),)
    return Trial("timed", Change(settings=settings, timed=True), replace(PLAIN, steps=steps, **changes), "")


def as_is(speed, plain=PLAIN):
    """Return an experiment without a change, with this speed relative to others."""
    return Trial(AS_IS, Change(), replace(plain, samples=round(400 * speed)), "")


def diagnosed(*trials, plain=PLAIN, step_s=None, alone=ALONE, speeds=(1.0, 1.0, 1.0)):
    return diagnose([*(as_is(speed, plain) for speed in speeds), timed(alone), *trials], cores=2, step_s=step_s)


@pytest.mark.parametrize(
    ("bottleneck", "change"),
    [
        ("too few workers", {"settings": (("num_workers", 4),)}),
        ("too many workers", {"settings": (("num_workers", 1),)}),
        ("library threads", {"library_threads": 1}),
        ("start of epochs", {"settings": (("persistent_workers", True),)}),
        ("prefetching", {"settings": (("prefetch_factor", 8),)}),
        ("hand-over", {"as_bytes": True}),
    ],
)
def test_a_setting_that_helps_names_the_bottleneck(bottleneck, change):
    found = diagnosed(trial(1.6, "the change", **change), trial(1.05, settings=(("num_workers", 3),)))
    assert found.bottleneck == bottleneck
    assert (found.cures[0].what, found.cures[0].gain, found.cures[0].measured) == ("the change", 1.6, True)


ONE_WORKER, PERSISTENT = {"settings": (("num_workers", 1),)}, {"settings": (("persistent_workers", True),)}


@pytest.mark.parametrize(
    ("best", "gain", "other", "bottleneck"),
    [
        (ONE_WORKER, 1.5, {"library_threads": 1}, "library threads"),
        (ONE_WORKER, 1.2, {"library_threads": 1}, "too many workers"),
        (PERSISTENT, 1.5, ONE_WORKER, "too many workers"),
        (PERSISTENT, 1.2, ONE_WORKER, "start of epochs"),
    ],
)
def test_of_settings_that_help_alike_the_cause_is_named(best, gain, other, bottleneck):
    assert diagnosed(trial(1.52, **best), trial(gain, **other)).bottleneck == bottleneck


def test_the_gain_of_a_change_that_was_tried_again_is_the_mean():
    tries = [trial(gain, "bytes", as_bytes=True) for gain in (4.0, 1.0, 2.0)]
    assert [(cure.what, cure.gain) for cure in diagnosed(*tries).cures] == [("bytes", pytest.approx(2.0))]


def test_a_change_is_compared_with_the_runs_just_before_and_after_it():
    found = diagnosed(as_is(0.5), trial(1.5, as_bytes=True), as_is(1.0), as_is(0.9), speeds=(1.0,))
    assert found.cures[0].gain == pytest.approx(2.0)


@pytest.fixture
def examined(monkeypatch):
    """Return a function that examines a loader with these speeds without a change, twice as fast with one worker."""

    def examine(speeds):
        remaining = iter([*speeds, *[speeds[-1]] * 30])

        def report(_, spec):
            fast = ("num_workers", 1) in spec.change.settings
            seen = as_is(next(remaining)) if spec.change == Change() else trial(2.0 if fast else 1.0)
            return {"observation": seen.observation, "reason": ""}

        monkeypatch.setattr(examination, "_report", report)
        monkeypatch.setattr(examination, "core_count", lambda: 2)
        return [trial.name for trial in examination.examine("any:loader").trials]

    return examine


def test_a_cure_is_tried_twice_more_in_turn_with_the_loader_as_it_is(examined):
    assert examined([1.0])[-6:] == ["the same sample again and again", AS_IS, *["1 worker", AS_IS] * 2]


def test_a_cure_whose_gain_varies_is_tried_more_often(examined):
    assert examined([1.0, 1.0, 1.0, 1.3, 0.8, 1.3]).count("1 worker") > 3


def test_a_setting_that_helps_a_little_is_no_cure():
    assert diagnosed(trial(1.1, settings=(("num_workers", 4),))).bottleneck == "decoder"


def test_a_loader_that_is_unsteady_cannot_be_judged():
    found = diagnosed(trial(1.3, library_threads=1), speeds=(1.0, 0.7, 1.2))
    assert (found.bottleneck, found.cures) == ("cannot tell", ())


@pytest.mark.parametrize(
    ("change", "bottleneck"),
    [({"library_threads": 1}, "library threads"), ({"replayed": ("transform RandomResizedCrop",)}, "transform")],
)
def test_what_is_faster_than_each_unsteady_run_counts(change, bottleneck):
    alone = {**ALONE, "transform RandomResizedCrop": step(3.0)}
    found = diagnosed(trial(2.4, "faster", **change), speeds=(1.0, 0.7, 1.2), alone=alone)
    assert (found.bottleneck, found.cures[0].what, found.cures[0].gain) == (bottleneck, "faster", 2.0)


def test_what_gains_as_much_in_each_pair_of_unsteady_runs_counts():
    pairs = [each for speed in (0.8, 0.9, 1.0, 1.1) for each in (trial(1.25 * speed, library_threads=1), as_is(speed))]
    assert diagnosed(*pairs, speeds=(0.8, 0.8)).bottleneck == "library threads"


@pytest.mark.parametrize(("slowest", "bottleneck"), [(0.75, "model"), (0.4, "cannot tell")])
def test_an_unsteady_loader_is_fast_enough_if_each_run_is(slowest, bottleneck):
    runs = [as_is(speed, replace(PLAIN, waits_s=(0.1 / speed,) * 40)) for speed in (1.0, slowest, 1.0)]
    assert diagnose(runs, cores=2, step_s=0.2).bottleneck == bottleneck


def test_a_loader_beside_other_programs_cannot_be_judged():
    found = diagnosed(trial(2.0, settings=(("num_workers", 4),)), plain=replace(PLAIN, elsewhere=0.4))
    assert (found.bottleneck, found.cures) == ("cannot tell", ())
    assert found.evidence == ("other programs took 40% of the cores in the runs without a change",)


def test_a_step_longer_than_a_batch_means_that_the_model_bounds_training():
    found = diagnosed(trial(2.0, library_threads=1), step_s=0.2)
    assert (found.bottleneck, found.waiting, found.cures) == ("model", 0.0, ())


def test_waiting_follows_from_the_step_and_the_time_for_a_batch():
    assert diagnosed(step_s=0.05).waiting == pytest.approx(39 * 0.05 / (39 * 0.05 + 40 * 0.05))


def test_starts_of_epochs_count_as_waiting():
    plain = replace(PLAIN, epochs=4, epoch_waits_s=(1.0,) * 4)
    assert diagnosed(plain=plain, step_s=0.1).waiting == pytest.approx(1.0 / (1.0 + 10 * 0.1))


def test_memory_that_grows_evenly_is_a_leak():
    plain = replace(PLAIN, memory=tuple((batches, 500.0 + 3 * batches) for batches in range(0, 40, 4)))
    found = diagnosed(plain=plain)
    assert found.bottleneck == "memory leak"
    assert found.evidence[0].startswith("3.0 MiB more")


def test_memory_that_grows_at_first_only_is_no_leak():
    plain = replace(PLAIN, memory=tuple((batches, 500.0 + min(batches, 16) * 10) for batches in range(0, 40, 4)))
    assert diagnosed(plain=plain).bottleneck != "memory leak"


def test_waiting_without_using_a_core_is_storage_if_it_stays_without_workers():
    alone = {**ALONE, "sample": step(0.8, 1.75, cpu_s=0.6)}
    found = diagnosed(trial(3.0, "copies", reader="local copies"), alone=alone)
    assert (found.bottleneck, found.cures[0].what) == ("storage", "copies")


def test_waiting_without_using_a_core_is_a_lock_if_only_workers_do_it():
    found = diagnosed(timed({"sample": step(0.8, 1.75, cpu_s=0.6)}, workers=2))
    assert found.bottleneck == "shared lock"
    assert found.cures[0].gain == pytest.approx(2 * 100 / 1.0 / 100)


@pytest.mark.parametrize(("gain", "cures"), [(1.3, [(1.3, True)]), (0.9, []), (None, [(None, False)])])
def test_time_outside_the_dataloader_is_the_main_process(gain, cures):
    tried = [trial(gain, IN_COLLATE, by_workers=2)] if gain else []
    found = diagnosed(*tried, plain=replace(PLAIN, inside_s=0.5))
    assert found.bottleneck == "main process"
    assert [(cure.gain, cure.measured) for cure in found.cures] == cures


def test_time_outside_a_dataloader_that_is_as_slow_alone_is_not_blamed():
    found = diagnosed(trial(1.01, without_wrapper=True), trial(2.5, as_bytes=True), plain=replace(PLAIN, inside_s=0.5))
    assert found.bottleneck == "hand-over"


@pytest.mark.parametrize(("name", "bottleneck"), [("collate", "collate"), ("transform Blur", "transform")])
def test_the_largest_step_is_named_with_what_it_costs(name, bottleneck):
    found = diagnosed(trial(2.5, f"{name} at no cost", replayed=(name,)), alone={**ALONE, name: step(3.0)})
    assert (found.bottleneck, found.cures[0].gain) == (bottleneck, 2.5)


@pytest.mark.parametrize(("gain", "bottleneck"), [(1.1, "transform"), (1.3, "transform"), (1.5, "decoder")])
def test_a_decoder_that_helps_about_as_much_as_the_largest_step_at_no_cost_is_named(gain, bottleneck):
    blur = trial(1.6, "transform Blur at no cost", replayed=("transform Blur",))
    found = diagnosed(blur, trial(gain, reader="torchvision.io"), alone={**ALONE, "transform Blur": step(0.6)})
    assert (found.bottleneck, len(found.cures)) == (bottleneck, 1 if bottleneck == "decoder" else 2)


def test_the_data_sets_own_code_is_named():
    assert diagnosed(alone={**ALONE, "sample": step(3.0, 4.0)}).bottleneck == "data set's own code"


@pytest.mark.parametrize(("pixels", "bottleneck"), [(3e6, "large images"), (5e4, "decoder")])
def test_decoding_is_told_apart_by_the_size_of_the_images(pixels, bottleneck):
    copies, decoder = trial(4.0, reader="256 px copies"), trial(1.3, "decoder", reader="torchvision.io")
    found = diagnosed(timed({}, workers=2, decoded_pixels=pixels), copies, decoder)
    assert (found.bottleneck, found.cures[0].gain) == (bottleneck, 4.0)


def test_a_loader_that_nothing_makes_faster_is_not_blamed():
    found = diagnosed(trial(1.02, settings=(("num_workers", 4),)), alone={})
    assert (found.bottleneck, found.cures) == ("none", ())
