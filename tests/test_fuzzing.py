"""Mutated files are read, or refused with a reason: no crash, no hang, nothing outside the folder for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.archives import contents, image, read, tar
from tests.fuzzing.kinds import KINDS
from tests.fuzzing.mutations import mutated

FILES = 20_000
MOST_MIB = 2048


def fuzzed(kind: str, first: int, end: int, folder: Path) -> dict[str, int]:
    """Read the files of these numbers in a process of its own, and return how many were read and refused."""
    command = [sys.executable, "-m", "tests.fuzzing", kind, str(first), str(end), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    case = (folder / "case").read_text() if (folder / "case").exists() else "the sound files"
    assert done.returncode == 0, f"{kind} {case}: ended with {done.returncode}: {done.stderr[-2000:]}"
    found = json.loads(done.stdout)
    assert found["peak_mib"] < MOST_MIB
    return dict(found["seen"])


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS])
def test_every_mutated_file_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    seen = fuzzed(kind, 0, FILES, tmp_path)
    assert sum(seen.values()) == FILES
    assert min(seen["read"], seen["refused"]) > FILES // 50


@pytest.mark.slow
def test_a_parquet_footer_that_would_end_the_process_is_refused(tmp_path: Path) -> None:
    """pyarrow 26 ends it if it is asked for the metadata of a column, because a histogram has a wrong size."""
    assert fuzzed("Parquet", 469, 470, tmp_path) == {"refused": 1}


def test_the_mutated_file_of_a_number_is_always_the_same(tmp_path: Path) -> None:
    seeds = KINDS["JPEG"].seeds(tmp_path)
    assert len({mutated(seeds, "JPEG", number) for number in range(50)}) > 40
    assert mutated(seeds, "JPEG", 7) == mutated(seeds, "JPEG", 7)


def test_names_in_an_archive_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    names = ("a/caf\udce9.jpg", "b/2.jpg")
    path = tar(tmp_path / "x.tar", [(name, image(number)) for number, name in enumerate(names)])
    assert contents(read(path, tmp_path / "cache")) == {name: image(number) for number, name in enumerate(names)}
