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
from tests.archives import read
from tests.campaigns import campaign

CODE = """
import os, random, sys
import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 24, 32, 3), dtype=np.uint8)

class Plain:
    classes = ["cat", "dog", "fox"]
    def __len__(self):
        return 20
    def __getitem__(self, place):
        return PIXELS[place], place % 2

class Items(Plain):
    def __init__(self, convert=lambda pixels: pixels, length=20, label=lambda place: place % 2):
        self.convert, self.length, self.label = convert, length, label
    def __len__(self):
        return self.length
    def __getitem__(self, place):
        return self.convert(PIXELS[place]), self.label(place)

class Item(Plain):
    def __init__(self, item):
        self.item = item
    def __getitem__(self, place):
        return self.item

class Streamed(Plain):  # like torch's IterableDataset with a length
    def __iter__(self):
        return iter(())
    def __getitem__(self, place):
        raise NotImplementedError

class Handle(Plain):  # like a file of h5py
    def __reduce__(self):
        raise TypeError("h5py objects cannot be pickled")

class Unbuilt(Plain):
    def __init__(self, needed):
        self.needed = needed
    def __reduce__(self):
        return Unbuilt, ()

class File(Plain):
    def __init__(self):
        self.file = open(__file__)
    def __del__(self):
        self.file.close()

class Long(Plain):
    def __len__(self):
        raise RuntimeError("no length yet")

def arrays(): return Items()
def images(): return Items(Image.fromarray)
def tensors():
    import torch
    return Items(lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1), label=torch.tensor)
made = Items()
def floats(): return Items(lambda pixels: pixels / 255)
def nothing(): return Items(lambda pixels: None)
def flat(): return Items(lambda pixels: pixels[:0])
def empty(): return Items(length=0)
def streamed(): return iter(range(3))
def raises():
    def fail(pixels):
        if (pixels == PIXELS[7]).all(): raise OSError("no such file")
        return pixels
    return Items(fail)
def dies():
    def end(pixels):
        if (pixels == PIXELS[7]).all(): os._exit(1)
        return pixels
    return Items(end)
def random_crop():
    def crop(pixels): return pixels[:, random.randrange(16):][:, :16]
    return Items(crop)
def broken(): raise KeyError("x")
def a_dict(): return Item({"image": PIXELS[0], "label": 1})
def a_triple(): return Item((PIXELS[0], 1, "x.jpg"))
def no_item(): return Item(None)
def no_label(): return Item((PIXELS[0], None))
def one_hot(): return Item((PIXELS[0], np.array([0, 1])))
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own in the current folder."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


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


class TestChanges:
    """The cache notices a change by the key of the images."""

    @staticmethod
    def key(module: str, made: str = "made") -> str:
        """Return the key of a module as it is in the file now."""
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        found = dataset.find(f"{module}:{made}")
        assert found
        return found.key

    @pytest.mark.parametrize(
        ("old", "new", "noticed"),
        [
            ("", "", False),
            ("made = Items()", "made = Items()  # mine", False),
            ("place % 2\n", "place % 3\n", True),
            ("default_rng(0)", "default_rng(1)", True),
            ("made = Items()", "made = Items(); made.root = 'elsewhere'", True),
            ("made = Items()", "made = Items(); made.targets = np.arange(20)", True),
            ("made = Items()", "made = Items(); made.inner = Item({'x': [1, (2, {3})]})", True),
        ],
    )
    def test_changed_code_and_values_are_noticed(self, module: str, old: str, new: str, *, noticed: bool) -> None:
        before = self.key(module)
        Path(f"{module}.py").write_text(CODE.replace(old, new))
        assert (self.key(module) != before) == noticed

    def test_changed_file_and_array_are_noticed(self, tmp_path: Path, module: str) -> None:
        given, named = importlib.import_module(module).Plain(), tmp_path / "7.jpg"
        named.write_bytes(b"x")
        given.samples, given.pixels = [(str(named), 0)], np.zeros((20, 4))
        keys = [self.of(given), self.of(given)]
        named.write_bytes(b"xy")
        keys.append(self.of(given))
        given.pixels[7, 2] = 1
        keys.append(self.of(given))
        assert keys[0] == keys[1]
        assert len(set(keys)) == 3

    @staticmethod
    def of(given: object) -> str:
        """Return the key of an object."""
        found = dataset.find(given)
        assert found
        return found.key

    def test_object_that_holds_itself_has_a_key(self, module: str) -> None:
        given = importlib.import_module(module).Plain()
        given.itself = [given]
        assert self.of(given) == self.of(given)


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
