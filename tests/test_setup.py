"""Set-up names the system packages that it would install, and asks at a terminal."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
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


def wheel(folder: Path, name: str, version: str = "1.0") -> Path:
    """Write the wheel of a package whose module says its version, and return its path."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()) for path, text in files.items()}
    rows = [f"{path},sha256={digest.decode().rstrip('=')},\n" for path, digest in digests.items()]
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_inside, text in {**files, f"{info}/RECORD": "".join(rows)}.items():
            archive.writestr(name_inside, text)
    return path


PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "loaderbench"
version = "0"
[project.scripts]
loaderbench = "started:main"
[tool.hatch.build.targets.wheel]
only-include = ["started.py"]
[tool.hatch.build]
dev-mode-dirs = ["."]
"""
FINDER = "import os; print(os.environ['FFCV_WHEEL'])"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project whose lock has `carried`, which a folder of wheels has too, and `pluggy`, which this Python has."""
    root, wheels = tmp_path / "project", tmp_path / "wheels"
    (root / "scripts").mkdir(parents=True)
    (root / "requirements").mkdir()
    wheels.mkdir()
    shutil.copy(ROOT / "scripts" / "setup.py", root / "scripts")
    (root / "scripts" / "ffcv_wheel.py").write_text(FINDER)
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "started.py").write_text("import carried, ffcv, pluggy\ndef main(): print('started')\n")
    digest = hashlib.sha256(wheel(wheels, "carried").read_bytes()).hexdigest()
    wheel(wheels, "ffcv")
    hashed = f"\\\n    --hash=sha256:{digest}\n    # via loaderbench\n"
    locks = f"carried==1.0 {hashed}pluggy==0.1 {hashed}"
    for name in ("all", "ffcv"):
        (root / "requirements" / f"{name}.lock").write_text(locks)
    return root


def set_up(root: Path, wheels: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WHEELS": str(wheels), "PIP_INDEX_URL": "http://127.0.0.1:9"}
    command = [sys.executable, root / "scripts" / "setup.py"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_folder_of_wheels_and_this_python_make_the_environment_without_network(checkout: Path) -> None:
    done = set_up(checkout, checkout.parent / "wheels")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"1 packages are not in {checkout.parent / 'wheels'}" in done.stdout
    started = subprocess.run([checkout / ".venv/bin/loaderbench"], capture_output=True, text=True, check=True)
    assert started.stdout == "started\n"
    shutil.rmtree(checkout.parent / "wheels")
    assert set_up(checkout, checkout.parent / "wheels").returncode == 0  # it is there, and not made again


@pytest.mark.slow
def test_a_wheel_that_is_not_the_locked_one_is_refused(checkout: Path) -> None:
    with (checkout.parent / "wheels" / "carried-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"changed")
    done = set_up(checkout, checkout.parent / "wheels")
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_a_missing_folder_of_wheels_is_named(setup: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(setup.SetupError, match=r"WHEELS: .*/nowhere is no folder"):
        setup.install_from(tmp_path / "nowhere")
    assert setup.ran == []
