"""Digests depend on code, and not on comments, docstrings or layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from loaderbench.campaign import registry
from loaderbench.machine.code_digest import code_digest

CODE = '''"""A module."""

LIMIT = 3
"""An attribute."""


def add(a, b=None, *, c=1):
    """Return a sum."""
    # plainly
    return f"{a + c:>4}", {**b}


class Empty:
    """A class."""
'''


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Another description."""'),
        ('"""A module."""\n', ""),
        ('"""An attribute."""', '"""The limit."""'),
        ('"""Return a sum."""', '"""Return\n\n    the sum.\n    """'),
        ('"""A class."""', '"""Nothing."""  # yet'),
        ("    # plainly\n", "\n"),
        ("a, b=None, *, c=1", "\n    a,\n    b=None,\n    *,\n    c=1,\n"),
    ],
)
def test_docstrings_comments_and_layout_keep_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert old in CODE
    before, after = (written(tmp_path / f"{n}.py", text) for n, text in enumerate((CODE, CODE.replace(old, new))))
    assert code_digest([before]) == code_digest([after])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("c=1", "c=True"),
        ("*, c", "c"),
        ("a + c", "a - c"),
        (":>4", ":>5"),
        ("b=None", "b=0"),
        ("**b", '"b": b'),
        ("class Empty:", "class Bare:"),
        ('    """Return a sum."""', '    print("Return a sum.")'),
    ],
)
def test_a_change_of_code_changes_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert old in CODE
    before, after = (written(tmp_path / f"{n}.py", text) for n, text in enumerate((CODE, CODE.replace(old, new))))
    assert code_digest([before]) != code_digest([after])


def test_digest_covers_every_file_and_all_bytes_of_binaries(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one.py", "x = 1"), written(tmp_path / "two.py", "y = 1")
    built = written(tmp_path / "built.so", "# 1")
    digests = [code_digest(paths) for paths in ([one], [two], [one, two], [two, one], [built])]
    digests.append(code_digest([written(built, "# 2")]))
    assert len(set(digests)) == len(digests)


def test_digest_is_equal_in_every_python_version(tmp_path: Path) -> None:
    assert code_digest([written(tmp_path / "code.py", CODE)])[:8] == "a85345e4"


def test_digest_of_an_adapter_follows_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    adapter = registry.Adapter("mine", "my_adapter", "pip install mine")
    digests = []
    for text in ('"""One."""\nrequires = ()', '"""Two."""\nrequires = ()', '"""Two."""\nrequires = ("x",)'):
        written(tmp_path / "my_adapter.py", text)
        digests.append(adapter.code_digest())
    assert digests[0] == digests[1] != digests[2]
