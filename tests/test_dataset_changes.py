"""The cache notices by the key of the images when a dataset in Python changes."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import Compose, Resize

from loaderbench.images import dataset
from tests import datasets


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own in the current folder."""
    return datasets.module(tmp_path, monkeypatch)


def key(module: str, made: str = "made") -> str:
    """Return the key of a module as it is in the file now."""
    sys.modules.pop(module, None)
    importlib.invalidate_caches()
    found = dataset.find(f"{module}:{made}")
    assert found
    return found.key


def of(given: object) -> str:
    """Return the key of an object."""
    found = dataset.find(given)
    assert found
    return found.key


@pytest.mark.parametrize(
    ("old", "new", "noticed"),
    [
        ("", "", False),
        ("made = Items()", "made = Items()  # mine", False),
        ("place % 2\n", "place % 3\n", True),
        ("default_rng(0)", "default_rng(1)", True),
    ],
)
def test_changed_code_is_noticed_but_no_comment(module: str, old: str, new: str, *, noticed: bool) -> None:
    before = key(module)
    Path(f"{module}.py").write_text(datasets.CODE.replace(old, new))
    assert (key(module) != before) == noticed


@pytest.mark.parametrize(
    "values",
    [
        ("here", "elsewhere"),
        (np.arange(20), np.arange(1, 21)),
        ([1, {"x": (2, {3})}], [1, {"x": (2, {4})}]),
        (Compose([Resize(8)]), Compose([Resize(9)])),
        (torch.zeros(2), torch.zeros(3)),
    ],
)
def test_changed_values_of_a_dataset_are_noticed(module: str, values: tuple[object, object]) -> None:
    given, keys = importlib.import_module(module).Plain(), set()
    for value in (*values, *values):
        given.value = copy.deepcopy(value)
        keys.add(of(given))
    assert len(keys) == 2


def test_changed_file_and_array_are_noticed(tmp_path: Path, module: str) -> None:
    given, named = importlib.import_module(module).Plain(), tmp_path / "7.jpg"
    named.write_bytes(b"x")
    given.samples, given.pixels = [(str(named), 0)], np.zeros((20, 4))
    keys = [of(given), of(given)]
    named.write_bytes(b"xy")
    keys.append(of(given))
    given.pixels[7, 2] = 1
    keys.append(of(given))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_dataset_with_itself_and_an_open_file_is_left_as_it_is(module: str) -> None:
    given = importlib.import_module(module).File()
    given.itself = [given]
    assert of(given) == of(given)
    assert given.file.readline() == "\n"
