"""What the doctor makes of batches, windows, steps and readings of memory, without a child process."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from loaderbench.doctor.batches import Batch, described
from loaderbench.doctor.deliveries import by_workers
from loaderbench.doctor.experiment import goes_on, needs_step
from loaderbench.doctor.memory import lasting
from loaderbench.doctor.steps import points, replay
from tests.clinic import odd


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
    ("window_s", "batches", "workers", "epoch", "expected"),
    [
        (3.9, 100, 2, 0, True),  # too short
        (4.1, 2, 2, 0, True),  # too few batches
        (4.1, 5, 2, 0, True),  # the other worker delivers as well
        (4.1, 6, 2, 0, False),
        (4.1, 5, 0, 0, False),
        (4.1, 6, 2, 5, True),  # no whole number of epochs
        (4.1, 10, 2, 5, False),
        (24.1, 1, 2, 0, False),  # it lasts six times as long as asked for, not longer
        (24.1, 6, 2, 50, False),
    ],
)
def test_a_window_takes_whole_rounds_of_the_workers_and_whole_epochs(window_s, batches, workers, epoch, expected):
    assert goes_on(window_s, 4.0, batches, workers, epoch) is expected


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


def test_worker_processes_can_do_what_the_main_process_does_with_batches():
    class Marked:
        def __iter__(self):
            return iter([torch.tensor([os.getpid()])] * 3)

    batches = iter(by_workers(Marked(), make=None, workers=2))
    marks = {next(batches).item() for _ in range(8)}  # more than two epochs
    assert len(marks) == 2
    assert os.getpid() not in marks


def test_memory_is_that_of_the_processes_that_live_throughout():
    main, first, second = 1, 2, 3
    readings = [(0, {main: 10.0}), (4, {main: 11.0, first: 500.0}), (8, {main: 12.0, first: 500.0, second: 500.0})]
    assert list(lasting(readings)) == [(0, 10.0), (4, 11.0), (8, 12.0)]
