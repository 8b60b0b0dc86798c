"""`check` and `report` read plain files of bounded size in a folder, and say in one line what is wrong with them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from typer.testing import CliRunner

from loaderbench.cli import app
from loaderbench.records.timeline import Timeline
from tests.test_check import TRIAL, judged, made


def test_an_npz_of_raw_times_that_no_trial_has_is_invalid(tmp_path: Path) -> None:
    folder = made(tmp_path / "c")
    path = folder / "times" / f"{TRIAL.replace('/', '-')}.npz"
    with np.load(path) as arrays:
        kept = dict(arrays)
    changes: list[dict[str, Any]] = [
        {"window": [0, 10**9]},
        {"window": [3, 3]},
        {"interval_ns": 0 * kept["interval_ns"]},
        {"wait_ns": kept["wait_ns"][1:]},
        {"ranks": np.full(len(kept["images"]), 2**31 - 1)},  # a count of each would take 16 GiB
        {"workers": [0]},
        {"images": [[None]]},
    ]
    for change in changes:
        np.savez(path, **kept | change)
        [reason] = [each for each in judged(folder, TRIAL).reasons if "raw times" in each][-1:]
        assert "holds no raw times" in reason or "seal is broken" in reason
        with pytest.raises(ValueError, match="holds no raw times"):
            Timeline.load(path)


def test_raw_times_that_unpack_to_far_more_than_a_trial_has_are_not_read(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "x.npz", "w", ZIP_DEFLATED) as packed, packed.open("images.npy", "w") as file:
        for _ in range(600):
            file.write(bytes(1 << 20))
    with pytest.raises(ValueError, match="it unpacks to 600 MiB"):
        Timeline.load(tmp_path / "x.npz")


@pytest.mark.parametrize("times", ["/dev/zero", "../env.json", "..", "link", "pipe", "folder"])
def test_only_plain_files_of_the_folder_are_read_as_raw_times(tmp_path: Path, times: str) -> None:
    folder = made(tmp_path / "c")
    (folder / "times" / "link").symlink_to("/dev/zero")
    (folder / "times" / "folder").mkdir()
    os.mkfifo(folder / "times" / "pipe")
    text = (folder / "trials.csv").read_text()
    name = f"{TRIAL.replace('/', '-')}.npz"
    assert name in text
    (folder / "trials.csv").write_text(text.replace(name, times))
    assert re.search("is no file of|is not read: ", judged(folder, TRIAL).reasons[0])


@pytest.mark.parametrize("file", ["env.json", "trials.csv", "certificates.json", "unreadable.csv"])
@pytest.mark.parametrize("kind", ["link", "device", "folder"])
@pytest.mark.parametrize("command", ["check", "report"])
def test_only_plain_files_of_a_strangers_folder_are_read(tmp_path: Path, file: str, kind: str, command: str) -> None:
    if (command, file) == ("check", "unreadable.csv"):
        return  # it is not read
    folder = made(tmp_path / "c")
    path = folder / file
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "/etc/passwd")
    given = [command, str(folder), *([f"--reports={tmp_path}/reports"] if command == "report" else [])]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 1
    assert re.search(rf"{file} is not read: (a link|no regular file|is a directory)", done.output.replace("\n", ""))


@pytest.mark.parametrize(
    "change",
    [{"host": None}, {"campaign": {"timing": []}}, {"data": "x"}, {"versions": [[[]]]}],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("command", ["check", "report"])
def test_a_folder_of_another_form_is_told_in_one_line(tmp_path: Path, change: dict[str, Any], command: str) -> None:
    folder = made(tmp_path / "c")
    env = json.loads((folder / "env.json").read_text())
    (folder / "env.json").write_text(json.dumps(env | change))
    given = [command, str(folder), *([f"--reports={tmp_path}/reports"] if command == "report" else [])]
    done = CliRunner().invoke(app, given)
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_row_of_another_form_is_told_with_its_file(tmp_path: Path) -> None:
    folder = made(tmp_path / "c")
    with (folder / "trials.csv").open("a") as file:
        file.write("7,x\n")
    done = CliRunner().invoke(app, ["check", str(folder)])
    assert "trials.csv has a row that no loaderbench has written" in done.output
