"""The command line prints results, and explains mistakes in plain words."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from loaderbench.cli import app
from tests import campaigns, messy

ROOT = Path(__file__).parent.parent


def loaderbench(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "loaderbench.cli", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=600
    )


def state(tree: Path) -> dict[Path, tuple[int, bytes]]:
    """The modification time and content of every entry."""
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for folder, folders, files in os.walk(tree)
        for path in (Path(folder, name) for name in folders + files)
    }


def test_help_names_the_commands() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    assert all(name in output for name in ("bench", "prepare", "report", "check", "compare", "adapters", "campaigns"))


def test_adapters_command_lists_versions() -> None:
    output = CliRunner().invoke(app, ["adapters"]).output
    assert "loader ffcv          available (ffcv 1.0.2; torch " in output


def test_campaigns_command_lists_questions() -> None:
    assert "quick         Which loader feeds training fastest" in CliRunner().invoke(app, ["campaigns"]).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "slow"], "no campaign slow: shipped are "),
        (["bench", "quick", "--data", "/no/such/folder"], "/no/such/folder"),
        (["report", "/no/campaign"], "holds no campaign (no env.json); measure one with: loaderbench bench"),
    ],
)
def test_mistakes_are_reported_without_a_traceback(words: list[str], said: str, tmp_path: Path) -> None:
    options = ["--cache", tmp_path / "c", "--results", tmp_path / "r"] if words[0] == "bench" else []
    done = loaderbench(*words, *options)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--workers", "--batch-size", "--samples", "--blocks"])
def test_a_count_of_0_is_refused_with_the_option(option: str) -> None:
    done = CliRunner().invoke(app, ["bench", "quick", option, "0"])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}': Input should be greater than or equal to 1" in done.output


def test_every_number_on_the_command_line_has_a_lower_bound() -> None:
    found = {}
    for command in app.registered_commands:
        for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():
            kind, option = get_args(parameter.annotation)
            if {int, float} & {kind, *get_args(kind)}:
                found[f"{command.callback.__name__} {name}"] = option.min
    assert {"bench workers", "estimate usd_per_hour", "compare tolerance"} <= found.keys()
    assert [name for name, least in found.items() if least is None] == []


def test_a_home_folder_is_expanded_in_every_path_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    found = {}
    for command in app.registered_commands:
        for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():
            kind, option = get_args(parameter.annotation)
            if {Path} & {kind, *get_args(kind)} or name in {"campaign", "data"}:
                found[f"{command.callback.__name__} {name}"] = option.parser and str(option.parser("~/x"))
    assert {"bench cache", "bench campaign", "bench data", "bench results", "report folder"} <= found.keys()
    assert set(found.values()) == {"/home/user/x"}


def test_results_of_another_schema_are_refused_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "env.json").write_text('{"schema": 999}')
    done = loaderbench("report", tmp_path)
    assert done.returncode == 1
    assert "schema 999" in done.stderr
    assert "Traceback" not in done.stderr


def test_bench_measures_a_messy_tree_and_lists_skipped_files(tmp_path: Path) -> None:
    tree = messy.grow(tmp_path / "tree")
    before = state(tree)
    places = ["--cache", tmp_path / "cache", "--results", tmp_path / "results", "--reports", tmp_path / "reports"]
    done = loaderbench("bench", campaigns.file(tmp_path), "--data", tree, "--batch-size", 4, *places)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "reports" / "small" / "report.md").read_text()
    unreadable = tmp_path / "results" / "small" / "unreadable.csv"
    assert f"unreadable images are skipped in every format; see {unreadable}" in done.stdout.replace("\n", "")
    left_out = unreadable.read_text().splitlines()
    assert len(left_out) > 1
    assert "unreadable" in report
    assert state(tree) == before
    words = ["prepare", campaigns.file(tmp_path), "--data", tree, "--strict", "--cache", tmp_path / "other"]
    refused = CliRunner().invoke(app, [*map(str, words)])
    assert refused.exit_code == 1
    assert "cannot be read" in str(refused.exception)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_leaves_no_partial_format(tree: Path, tmp_path: Path) -> None:
    """FFCV's own writer would hang while it waits for its workers."""
    mixed = '{ name = "mixed", title = "mixed", writer = "ffcv", mode = "proportion", max_side = 64, quality = 70 }'
    campaign = campaigns.file(tmp_path, campaigns.TOML.replace("}]", f"}}, {mixed}]"))
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = f"mount -t tmpfs -o size=3m none {disk} && {sys.executable} -m loaderbench.cli prepare {campaign} "
    inside += f"--data {tree} --cache {disk}; status=$?; ls {disk}/artifacts; exit $status"
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no mount namespace to make a small disk in")
    done = subprocess.run(
        [*namespace, "sh", "-c", inside], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert f"{disk} is full (0 MiB left)" in done.stdout
    assert ".partial" not in done.stdout
    assert "mixed-" not in done.stdout
