"""Set-up names the system packages that it would install, and asks at a terminal."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, in which no command is run: `ran` lists them."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ran = []
    monkeypatch.setattr(module, "apt_command", lambda: ["apt-get"])
    monkeypatch.setattr(module, "run", lambda what, *command: module.ran.append(command))
    return module


def terminal(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], str]) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", answer)


def test_nothing_is_installed_if_the_user_declines(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch, lambda _: "n")
    with pytest.raises(setup.SetupError, match="only root may install them: g\\+\\+ pkg-config"):
        setup.install_system_packages(["g++", "pkg-config"], "another way")
    assert setup.ran == []


def test_packages_are_named_before_the_user_agrees(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    terminal(monkeypatch, lambda _: shown.append(capsys.readouterr().out) or "")
    setup.install_system_packages(["g++", "pkg-config"], "another way")
    assert "apt-get install g++ pkg-config" in shown[0]
    assert [command[1] for command in setup.ran] == ["update", "install"]


def test_without_a_terminal_packages_are_named_and_installed(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    setup.install_system_packages(["g++"], "another way")
    assert "apt-get install g++" in capsys.readouterr().out
    assert [command[1] for command in setup.ran] == ["update", "install"]
