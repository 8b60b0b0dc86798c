"""Nothing in the current folder runs: it may hold a data set that somebody else made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
