"""Class folders are numbered by links or by renaming, and undoing restores them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loaderbench.cli import app
from loaderbench.images import classes
from loaderbench.images.class_folders import scan
from loaderbench.images.tree import SourceError

SYNSETS = ("n02119789", "n01440764", "n03000684")


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "train"
    for synset in SYNSETS:
        (root / synset / "deep").mkdir(parents=True)
        (root / synset / f"{synset}_1.JPEG").write_bytes(synset.encode())
        (root / synset / "deep" / "2.jpg").write_bytes(b"2")
    (root / "README").write_text("mine")
    return root


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """Return inode, modification time and content of every entry."""
    entries = (Path(folder, name) for folder, folders, files in os.walk(root) for name in folders + files)
    return {
        str(path.relative_to(root)): (s.st_ino, s.st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in entries
        for s in [path.lstat()]
    }


@pytest.mark.parametrize("move", [False, True])
def test_index_is_the_position_among_the_sorted_names(source, tmp_path, move):
    before = scan(source)
    assert classes.number(source, tmp_path / "out", move=move) == 3
    after = scan(tmp_path / "out")
    assert after.classes == ("000000", "000001", "000002")
    assert list(after.labels) == list(before.labels)
    assert (tmp_path / "out" / "000000" / "n01440764_1.JPEG").read_bytes() == b"n01440764"


def test_torchvision_labels_class_index_folders_like_their_synsets(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    for number in range(12):  # 10 sorts before 2 without leading zeros
        (tmp_path / "train" / f"n{number:08d}").mkdir(parents=True)
        (tmp_path / "train" / f"n{number:08d}" / f"{number}.jpg").touch()
    classes.number(tmp_path / "train", tmp_path / "out", move=False)
    images = datasets.ImageFolder(tmp_path / "out").samples
    assert [(Path(path).stem, label) for path, label in images] == [(str(n), n) for n in range(12)]


def test_numbering_by_links_leaves_the_users_folders_unchanged(source, tmp_path):
    before = state(source)
    classes.number(source, tmp_path / "out", move=False)
    assert state(source) == before
    assert all(path.is_symlink() for path in (tmp_path / "out").glob("0*"))


@pytest.mark.parametrize("move", [False, True])
def test_undo_restores_every_folder_and_leaves_nothing(source, tmp_path, move):
    before = state(source)
    classes.number(source, tmp_path / "out", move=move)
    assert classes.undo(tmp_path / "out") == 3
    assert state(source) == before
    assert not (tmp_path / "out").exists()


class Killed(BaseException):
    """Stands for a kill between two steps."""


def kill_at(monkeypatch, step: int):
    """Raise `Killed` before the given rename, link or removal."""
    steps = iter(range(step))
    for name in ("rename", "symlink_to", "unlink", "rmdir", "mkdir"):
        real = getattr(Path, name)

        def counted(path, *arguments, real=real, **options):
            if next(steps, None) is None:
                raise Killed
            return real(path, *arguments, **options)

        monkeypatch.setattr(Path, name, counted)


STEPS = range(10)


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_undo_restores_every_folder_after_a_kill_at_any_step(source, tmp_path, monkeypatch, move, step):
    before = state(source)
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        try:
            classes.number(source, tmp_path / "out", move=move)
        except Killed:
            assert step < 6
    if (tmp_path / "out" / classes.JOURNAL).exists():
        classes.undo(tmp_path / "out")
    assert state(source) == before


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_numbering_resumes_after_a_kill(source, tmp_path, monkeypatch, move, step):
    before, out = state(source), tmp_path / "out"
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        try:
            classes.number(source, out, move=move)
            classes.undo(out)
        except Killed:
            pass
    classes.number(source, out, move=move)
    assert scan(out).classes == ("000000", "000001", "000002")
    classes.undo(out)
    assert state(source) == before


def test_undo_refuses_a_folder_that_numbering_did_not_make(source):
    before = state(source)
    with pytest.raises(SourceError, match="nothing is changed"):
        classes.undo(source)
    assert state(source) == before


@pytest.mark.parametrize("move", [False, True])
def test_undo_changes_nothing_if_the_folder_holds_the_users_files(source, tmp_path, move):
    classes.number(source, tmp_path / "out", move=move)
    (tmp_path / "out" / "mine.txt").write_text("mine")
    before = state(tmp_path)
    with pytest.raises(SourceError, match=r"holds other files: mine.txt"):
        classes.undo(tmp_path / "out")
    assert state(tmp_path) == before


def test_undo_of_a_move_never_overwrites_a_new_folder(source, tmp_path):
    classes.number(source, tmp_path / "out", move=True)
    (source / SYNSETS[0]).mkdir()
    before = state(tmp_path)
    with pytest.raises(SourceError, match="these folders exist again where they came from"):
        classes.undo(tmp_path / "out")
    assert state(tmp_path) == before


def test_impossible_requests_are_refused_before_anything_changes(source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "none").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "n01").symlink_to(source)
    before = state(tmp_path)
    for arguments, message in (
        ((tmp_path / "nowhere", tmp_path / "out"), "is no folder"),
        ((source, source / "out"), "is inside"),
        ((source, tmp_path / "full"), "is not empty"),
        ((tmp_path / "none", tmp_path / "out"), "holds no class folders"),
        ((tmp_path / "links", tmp_path / "out"), "omit --move"),
    ):
        with pytest.raises(SourceError, match=message):
            classes.number(*arguments, move=True)
        assert state(tmp_path) == before


def test_numbering_in_another_way_is_refused_until_undone(source, tmp_path):
    classes.number(source, tmp_path / "out", move=False)
    with pytest.raises(SourceError, match=r"made from another .*undo it: loaderbench classes .*/out --undo"):
        classes.number(source, tmp_path / "out", move=True)


def test_classes_command_makes_and_removes_class_index_folders(source, tmp_path):
    before, out = state(source), tmp_path / "out"
    said = CliRunner().invoke(app, ["classes", str(source), str(out)]).output
    assert said == f"made 3 class-index folders in {out}\n"
    said = CliRunner().invoke(app, ["classes", str(out), "--undo"]).output
    assert said == f"removed 3 class-index folders of {out}\n"
    assert state(source) == before
    assert not out.exists()


def test_undo_of_a_move_shows_its_target_and_asks(source, tmp_path):
    before, out = state(source), tmp_path / "out"
    classes.number(source, out, move=True)
    moved = state(tmp_path)
    asked = CliRunner().invoke(app, ["classes", str(out), "--undo"], input="n\n")
    assert asked.exit_code == 1
    assert f"moving n01440764, n02119789, n03000684 to {source}\n" in asked.output
    assert state(tmp_path) == moved
    assert CliRunner().invoke(app, ["classes", str(out), "--undo"], input="y\n").exit_code == 0
    assert state(source) == before


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"classes": [".ssh"]}, "names .ssh, which is no class folder"),
        ({"classes": ["../mine"]}, "names ../mine"),
        ({"classes": ["/etc"]}, "names /etc"),
        ({"classes": [""]}, "which is no class folder"),
        ({"classes": [7]}, "is damaged"),
        ({"move": "yes"}, "is damaged"),
        ({"more": 1}, "is damaged"),
    ],
)
def test_a_journal_that_a_download_brings_moves_nothing_outside(tmp_path, changed, told):
    home, out = tmp_path / "home", tmp_path / "download"
    (home / "mine").mkdir(parents=True)
    (out / "000000").mkdir(parents=True)
    (out / "000000" / "authorized_keys").write_text("theirs")
    journal = {"source": str(home), "classes": ["mine"], "move": True}
    (out / classes.JOURNAL).write_text(json.dumps(journal | changed))
    before = state(tmp_path)
    for attempt in (classes.undo, lambda out: classes.number(home, out, move=True)):
        with pytest.raises(SourceError, match=re.escape(told)):
            attempt(out)
    assert state(tmp_path) == before


def test_class_folders_need_no_name_in_utf8(tmp_path):
    source = tmp_path / "train"
    (source / os.fsdecode(b"caf\xe9")).mkdir(parents=True)
    before = state(source)
    classes.number(source, tmp_path / "out", move=True)
    assert classes.undo(tmp_path / "out") == 1
    assert state(source) == before
