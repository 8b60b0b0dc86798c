"""Make hands paths to the command line as they were typed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ODD = """/data/pets$5 "cats"; touch made; `touch made` $(shell touch made) it's #1"""


@pytest.mark.parametrize("by", ["command line", "environment"])
@pytest.mark.parametrize("target", ["data", "bench"])
def test_a_path_reaches_the_program_as_typed(tmp_path: Path, target: str, by: str) -> None:
    program = tmp_path / "loaderbench"
    program.write_text('#!/bin/sh\nprintf \'%s\\n\' "$@" "$FFCV_WHEEL"\n')
    program.chmod(0o755)
    typed = {"DATA": ODD, "CAMPAIGN": "my $campaign.toml", "FFCV_WHEEL": "a$b.whl"}
    words = [f"{name}={value}" for name, value in typed.items()] if by == "command line" else []
    command = ["make", "-s", "-f", ROOT / "Makefile", f"BIN={tmp_path}", "SETUP=@true", target, *words]
    env = {**os.environ, **(typed if by == "environment" else {})}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    verb = {"data": "prepare", "bench": "bench"}[target]
    assert done.stdout.splitlines() == [verb, typed["CAMPAIGN"], "--data", ODD, typed["FFCV_WHEEL"]]
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("typed", "given"),
    [({"DEMAND": "8000"}, ["--demand", "8000"]), ({"MODEL": "resnet50"}, ["--model", "resnet50"]), ({}, [])],
)
def test_doctor_gets_the_demand_or_the_model(tmp_path: Path, typed: dict[str, str], given: list[str]) -> None:
    (tmp_path / "loaderbench").symlink_to("/bin/echo")
    words = [f"{name}={value}" for name, value in {"DATA": ODD, **typed}.items()]
    command = ["make", "-s", "-f", ROOT / "Makefile", f"BIN={tmp_path}", "SETUP=@true", "doctor", *words]
    env = {name: value for name, value in os.environ.items() if name not in {"DEMAND", "MODEL"}}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == " ".join(["doctor", "--data", ODD, *given]) + "\n"


def test_the_gpu_check_needs_no_environment_and_takes_its_folders_as_typed(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] || printf \'%s\\n\' "$@" "$WHEELS"\n')
    python.chmod(0o755)
    command = ["make", "-s", "-f", ROOT / "Makefile", f"PYTHON={python}", "gpu-check", f"OUT={ODD}", "WHEELS=w$1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["scripts/gpu_check.py", ODD, "w$1"]
    assert not (tmp_path / "made").exists()
