"""A torch dataset in Python, named as module:object, becomes a source like the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import loaderbench
from loaderbench.formats import prepare
from loaderbench.images import SourceError, dataset
from loaderbench.images.decoding import decode
from loaderbench.machine.progress import Display
from tests.archives import read
from tests.campaigns import campaign

CODE = """
import numpy as np, torch
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 24, 32, 3), dtype=np.uint8)

class Items:
    classes = ["cat", "dog", "fox"]
    def __init__(self, convert=lambda pixels: pixels, length=20, label=lambda place: place % 2):
        self.convert, self.length, self.label = convert, length, label
    def __len__(self):
        return self.length
    def __getitem__(self, place):
        return self.convert(PIXELS[place]), self.label(place)

def arrays(): return Items()
def images(): return Items(Image.fromarray)
def tensors(): return Items(lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1), label=torch.tensor)
made = Items()
def floats(): return Items(lambda pixels: pixels / 255)
def nothing(): return Items(lambda pixels: None)
def empty(): return Items(length=0)
def streamed(): return iter(range(3))
def raises():
    def fail(pixels):
        if (pixels == PIXELS[7]).all(): raise OSError("no such file")
        return pixels
    return Items(fail)
def broken(): raise KeyError("x")
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own in the current folder."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return name


PIXELS = np.random.default_rng(0).integers(0, 255, (20, 24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("made", ["arrays", "images", "made"])
def test_every_item_is_read_with_its_pixels_and_label(tmp_path: Path, module: str, made: str) -> None:
    tree = read(f"{module}:{made}", tmp_path / "cache")
    assert tree.classes == ("cat", "dog", "fox")
    found = {int(Path(path).stem): (label, path) for label, path in zip(tree.labels, tree.paths, strict=True)}
    assert sorted(found) == list(range(20))
    for place, (label, path) in found.items():
        assert label == place % 2
        assert np.array_equal(decode(tree.root / path)[0], PIXELS[place])


def test_labels_may_be_tensors(tmp_path: Path, module: str) -> None:
    tree = read(f"{module}:tensors", tmp_path / "cache")
    assert tree.labels.tolist() == list(range(20))
    assert tree.classes[:4] == ("cat", "dog", "fox", "3")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("floats", r"\[0\] has an image of float64; return PIL images or uint8, without ToTensor and Normalize"),
        ("nothing", r"\[0\] has None for its image"),
        ("empty", "is empty"),
        ("streamed", "is iterable only; a dataset with __getitem__ and __len__ is needed"),
        ("raises", r"\[7\] raised OSError: no such file"),
        ("broken", "cannot be made: KeyError: 'x'"),
        ("missing", "cannot be made: AttributeError"),
    ],
)
def test_unusable_dataset_is_refused_with_the_reason(tmp_path: Path, module: str, made: str, told: str) -> None:
    with pytest.raises(SourceError, match=f"{module}:{made}.*{told}"):
        read(f"{module}:{made}", tmp_path / "cache")


def test_other_names_are_no_datasets() -> None:
    assert dataset.find("s3://bucket/prefix") is None
    assert dataset.find("/data/images") is None


@pytest.mark.usefixtures("forked")
def test_formats_are_prepared_from_a_dataset(tmp_path: Path, module: str) -> None:
    settings = campaign({"a": {"loader": "imagefolder"}})
    made = prepare(settings, f"{module}:made", tmp_path / "cache", Display(), strict=True)
    assert made.artifacts["files"].samples == 20
    assert made.artifacts["files"].class_names == ("cat", "dog", "fox")


@pytest.mark.usefixtures("forked")
def test_one_call_writes_a_format_for_training(tmp_path: Path, module: str) -> None:
    options = {"max_side": 16, "cache": tmp_path / "cache"}
    artifact = loaderbench.write_format(f"{module}:made", "imagefolder", **options)
    assert (artifact.samples, artifact.encoding.max_side) == (20, 16)
    assert loaderbench.Artifact.load(Path(artifact.path).parent) == artifact
    assert loaderbench.write_format(f"{module}:made", "imagefolder", **options) == artifact


def test_one_call_refuses_an_unknown_writer(tmp_path: Path, module: str) -> None:
    with pytest.raises(ValueError, match="no_such_writer"):
        loaderbench.write_format(f"{module}:made", "no_such_writer", cache=tmp_path / "cache")
