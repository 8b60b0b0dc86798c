"""Imports, links and lengths of files follow the rules of the project."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loaderbench.campaign import registry

ROOT = Path(__file__).parent.parent
SHARED = ROOT / "loaders" / "shared" / "__init__.py"
ADAPTERS = sorted([*(ROOT / "loaders").glob("*.py"), *(ROOT / "writers").glob("*.py"), SHARED])
HARNESS = sorted((ROOT / "bench").rglob("*.py"))
CODE = [
    path for folder in ("bench", "loaders", "writers", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")
]
REASON = "# long, because"


def imports(path: Path) -> set[str]:
    """Return all modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_adapters_import_only_the_api_and_shared_loader_code(path: Path) -> None:
    ours = {name for name in imports(path) if name.split(".")[0] == "loaderbench"}
    seen = (
        ("loaderbench.api",)
        if path == SHARED or path.parent.name == "writers"
        else ("loaderbench.api", "loaderbench.loaders.shared")
    )
    assert {name for name in ours if not name.startswith(seen)} == set()


def test_shared_loader_code_counts_for_every_loader_and_is_no_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "code_digest", lambda paths: " ".join(str(path.resolve()) for path in paths))
    assert str(SHARED) in registry.adapters("loader")["imagefolder"].code_digest()
    assert "shared" not in registry.adapters("loader")


@pytest.mark.parametrize("path", HARNESS, ids=lambda path: path.name)
def test_harness_names_no_loader_library(path: Path) -> None:
    # What is trained is torchvision's, whatever loads its images. The doctor tries its decoder in users' loaders.
    knows_torchvision = path.parent.name in ("consumers", "doctor")
    libraries = {"ffcv", "litdata", "torchvision"} - ({"torchvision"} if knows_torchvision else set())
    assert {name for name in imports(path) if name.split(".")[0] in libraries} == set()
    strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert {adapter for adapter in registry.adapters("loader") if adapter in strings} == set()


@pytest.mark.parametrize("path", HARNESS, ids=lambda path: path.name)
def test_only_plots_import_matplotlib(path: Path) -> None:
    draws = any(name.split(".")[0] == "matplotlib" for name in imports(path))
    assert draws == (path.parent.name == "plots")


def too_long(path: Path) -> list[str]:
    """Return the file above 300 lines and the functions above 50 without a comment that says why."""
    text = path.read_text()
    lines = text.splitlines()
    found = [path.name] if len(lines) > 300 and REASON not in text else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 50:
            first = min([node, *node.decorator_list], key=lambda part: part.lineno).lineno
            if REASON not in "".join(lines[first - 1 : node.lineno]):
                found.append(f"{path.name}:{node.lineno} {node.name}")
    return found


def test_files_and_functions_are_short_or_explain_why_not() -> None:
    assert {path.name: long for path in CODE if (long := too_long(path))} == {}


def test_import_contracts_refuse_an_import_that_runs_upwards(tmp_path: Path) -> None:
    """`make lint` checks the contracts on the code as it is; here a copy gets an import that runs upwards."""
    package = shutil.copytree(ROOT / "bench", tmp_path / "loaderbench")
    for name in ("loaders", "writers"):
        shutil.copytree(ROOT / name, package / name)
    with (package / "machine" / "files.py").open("a") as file:
        file.write("from loaderbench.report import report\n")
    command = [Path(sys.executable).with_name("lint-imports"), "--config", ROOT / "pyproject.toml", "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "loaderbench.machine is not allowed to import loaderbench.report" in done.stdout


def test_src_links_to_every_part_of_the_package() -> None:
    links = ROOT / "src" / "loaderbench"
    inside = [path for path in (ROOT / "bench").iterdir() if path.name != "__pycache__"]
    package = [*inside, ROOT / "loaders", ROOT / "writers"]
    assert {link.resolve() for link in links.iterdir()} == {path.resolve() for path in package}


def test_listing_adapters_imports_no_library() -> None:
    program = (
        "import sys; from loaderbench.campaign import registry; "
        "found = [a for kind in ('loader', 'writer') for a in registry.adapters(kind).values()]; "
        "[a.why_unavailable() + a.versions() for a in found]; "
        "print(sorted({'torch', 'ffcv', 'litdata', 'torchvision', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
