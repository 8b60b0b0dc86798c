"""A torch dataset in Python, named as module:object, becomes a source like the others."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

import loaderbench
from loaderbench.formats import prepare
from loaderbench.images import SourceError, dataset
from loaderbench.images.decoding import decode
from loaderbench.machine.progress import Display
from tests import datasets
from tests.archives import read
from tests.campaigns import campaign


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own in the current folder."""
    return datasets.module(tmp_path, monkeypatch)


PIXELS = np.random.default_rng(0).integers(0, 255, (20, 24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("made", ["arrays", "images", "made", "Plain"])
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
        ("flat", r"\[0\] has an image of shape \(0, 32, 3\)"),
        ("empty", "is empty"),
        ("streamed", "is iterable only; a dataset with __getitem__ and __len__ is needed"),
        ("Streamed", "is iterable only; a dataset with __getitem__ and __len__ is needed"),
        ("Long", "is unknown: RuntimeError: no length yet"),
        ("raises", r"\[7\] raised OSError: no such file"),
        ("dies", "died at or soon after item [0-7]; if memory was short, run again"),
        ("random_crop", "differs each time that it is read; leave out random transforms"),
        ("a_dict", r"\[0\] is dict, not a pair of an image and a label"),
        ("a_triple", r"\[0\] is tuple of 3, not a pair"),
        ("no_item", r"\[0\] is NoneType, not a pair"),
        ("no_label", r"\[0\] has the label None; a whole number is needed"),
        ("one_hot", r"\[0\] has the label array\(\[0, 1\]\); a whole number is needed"),
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


def test_classes_of_a_subset_are_those_of_its_dataset(tree: Path) -> None:
    folder = ImageFolder(str(tree))
    found = dataset.find(Subset(Subset(folder, [0, 40, 90]), [1, 2]))
    assert found
    assert (found.images, found.classes) == (2, tuple(folder.classes))


class TestObject:
    """A dataset that is given itself instead of its name."""

    def test_object_is_read_like_the_dataset_of_its_name(self, tmp_path: Path, module: str) -> None:
        tree = read(importlib.import_module(module).Plain(), tmp_path / "cache")
        assert (tree.classes, len(tree.paths)) == (("cat", "dog", "fox"), 20)

    def test_classes_without_names_are_numbered(self, tmp_path: Path) -> None:
        tree = read([(pixels, 3) for pixels in PIXELS[:2]], tmp_path / "cache")
        assert (tree.classes, tree.labels.tolist()) == (("0", "1", "2", "3"), [3, 3])

    @pytest.mark.parametrize(
        ("made", "told"),
        [
            ("arrays", "Items cannot be pickled for worker processes .*lambda"),
            ("File", "File cannot be pickled for worker processes .*TextIOWrapper"),
            ("Handle", "Handle cannot be pickled for worker processes .*h5py objects cannot be pickled"),
            ("unbuilt", "Unbuilt cannot be read in worker processes: TypeError: .*'needed'"),
            ("number", "int is of type int; a dataset with __getitem__ and __len__ is needed"),
        ],
    )
    def test_object_that_other_processes_cannot_read_is_refused(
        self, tmp_path: Path, module: str, made: str, told: str
    ) -> None:
        mine = importlib.import_module(module)
        given = {"unbuilt": lambda: mine.Unbuilt(1), "number": int}.get(made) or getattr(mine, made)
        advice = "" if made == "number" else "; put what makes it into a module, and name that: my_project.data:make"
        with pytest.raises(SourceError, match=f"{told}.*{advice}"):
            loaderbench.write_format(given(), "imagefolder", cache=tmp_path / "cache")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("program", "guard", "told"),
        [
            ("mine.py", 'if __name__ == "__main__":', "20"),
            ("mine.py", "if True:", 'call write_format below `if __name__ == "__main__":`'),
            ("-c", "if True:", "attribute 'Mine' on .* put what makes it into a module"),
        ],
    )
    def test_dataset_of_a_script_works_and_of_a_notebook_is_refused(
        self, tmp_path: Path, module: str, program: str, guard: str, told: str
    ) -> None:
        code = f"""
import loaderbench, {module}
class Mine({module}.Plain): pass
{guard}
    print(loaderbench.write_format(Mine(), "imagefolder", cache="cache").samples)
"""
        Path("mine.py").write_text(code)
        words = [program] if program == "mine.py" else ["-c", code]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        assert re.search(told, done.stdout + done.stderr), done.stderr


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
