"""The conditions of a campaign: only what measures counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import loaderbench
from loaderbench.run.environment import differences, digest_of_measuring_code


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that a test may change."""
    return Path(shutil.copytree(Path(loaderbench.__file__).parent, tmp_path / "loaderbench"))


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("trial/trial.py", '"""', '"""Another docstring. '),
        ("report/plots/style.py", "import", "import this\nimport"),
        ("findings/analysis.py", "def analyse(", "def analysed("),
        ("records/record.py", "SCHEMA_VERSION = 5", "SCHEMA_VERSION = 6"),
    ],
)
def test_docstrings_plots_and_statistics_are_no_condition(package: Path, file: str, before: str, after: str) -> None:
    digest = digest_of_measuring_code(package)
    edit(package / file, before, after)
    assert digest_of_measuring_code(package) == digest


@pytest.mark.parametrize("file", ["trial/trial.py", "records/timeline.py", "loaders/imagefolder.py", "api.py"])
def test_measuring_code_is_a_condition(package: Path, file: str) -> None:
    digest = digest_of_measuring_code(package)
    edit(package / file, "import annotations\n", "import annotations\n\nCHANGED = 1\n")
    assert digest_of_measuring_code(package) != digest


def test_another_gpu_makes_another_campaign() -> None:
    one = {"campaign": {}, "data": {}, "code_digest": "", "versions": {}, "host": {}, "gpu": "H100"}
    assert differences(one, one | {"gpu": "H200", "started_at": "later"}) == ["GPU"]
