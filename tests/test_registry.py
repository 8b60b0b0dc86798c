"""Adapters are found by file and by entry point, and name their missing libraries."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from loaderbench.campaign import registry
from loaderbench.run import environment
from tests.campaigns import campaign

ROOT = Path(__file__).parent.parent


def test_own_adapters_are_found_by_file() -> None:
    assert set(registry.adapters("loader")) == {"ffcv", "imagefolder", "litdata", "nvjpeg", "pace", "threads"}
    assert set(registry.adapters("writer")) == {"ffcv", "imagefolder", "litdata"}


def test_every_writer_says_whether_it_resumes() -> None:
    resumes = {name: registry.writer(name).resumes for name in registry.adapters("writer")}
    assert resumes == {"ffcv": False, "imagefolder": True, "litdata": True}


@pytest.mark.usefixtures("planted")
def test_a_third_party_adapter_is_found_by_its_entry_point() -> None:
    assert registry.adapters("loader")["planted"].install == "pip install loaderbench-planted"
    assert registry.loader("planted").requires == ("torch",)


@pytest.mark.usefixtures("planted")
def test_an_adapter_without_its_library_names_the_install_command() -> None:
    absent = registry.adapters("loader")["absent"]
    assert absent.missing() == ("no_such_library",)
    assert absent.why_unavailable() == "not installed: no_such_library; install with: pip install loaderbench-planted"


def test_install_command_of_an_adapter_names_an_existing_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    commands = [adapter.install for kind in ("loader", "writer") for adapter in registry.adapters(kind).values()]
    named = [found[1] for command in commands if (found := re.search(r"'\.\[(\w+)\]'", command))]
    assert len(named) == 9
    assert set(named) <= extras.keys()


def test_versions_name_every_required_library() -> None:
    assert registry.adapters("loader")["litdata"].versions().startswith("litdata ")
    assert "; torch " in registry.adapters("loader")["litdata"].versions()


def test_all_code_of_another_package_counts_for_its_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "of_a_stranger"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "loader.py", "inner/decode.py"):
        (package / name).write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    adapter = registry.Adapter("a", "of_a_stranger.loader", "", package="stranger")
    before = adapter.code_digest()
    (package / "inner" / "decode.py").write_text("x = 2")
    assert adapter.code_digest() != before


@pytest.mark.usefixtures("planted")
def test_the_version_of_another_package_is_a_condition() -> None:
    versions = environment.describe(campaign({"a": {}}), {})["versions"]
    assert versions["loaderbench-planted"] == version("loaderbench-planted")
