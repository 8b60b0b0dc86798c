"""Nothing in the current folder runs, and nobody else can enter a new cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loaderbench.machine.scratch import scratch
from tests import campaigns

PLANTED = ("psutil", "select", "socket", "json", "cv2", "numpy", "PIL", "loaderbench")
"""Modules that the harness, its workers and its conversions import."""


def test_modules_in_the_current_folder_are_not_imported(tree: Path, tmp_path: Path) -> None:
    here, ran = tmp_path / "here", tmp_path / "ran"
    here.mkdir()
    for name in PLANTED:
        (here / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('{name} ')\nraise SystemExit(3)\n")
    words = ["prepare", campaigns.file(tmp_path), "--data", tree, "--cache", tmp_path / "cache"]
    unsafe = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [Path(sys.executable).with_name("loaderbench"), *words],
        cwd=here, env=unsafe, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert not ran.exists(), ran.read_text()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("there", [False, True], ids=["new", "shared"])
def test_a_new_cache_is_its_users_alone(tmp_path: Path, *, there: bool) -> None:
    cache = tmp_path / "below" / "cache"
    if there:
        cache.mkdir(parents=True)
        cache.chmod(0o2775)  # by users who share it
    with scratch(cache):
        assert cache.stat().st_mode & 0o7777 == (0o2775 if there else 0o700)
