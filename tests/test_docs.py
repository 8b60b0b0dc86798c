"""README.md, docs/ and the site are up to date, consistent and self-contained."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = re.compile(r"<!-- \[\[\[cog.*?\[\[\[end\]\]\] -->", re.DOTALL)
SPEED = re.compile(r"\d[\d,.]*\d? ?(?:images/s|\N{MULTIPLICATION SIGN}|times as fast)")


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a project as `make docs` does."""
    command = [BIN / "mkdocs", "build", "--strict", "--config-file", project / "mkdocs.yml", "--site-dir", site]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project's pages; what is not a page is linked."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "docs", root / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "mkdocs.yml"):
        shutil.copy(ROOT / name, root)
    for name in ("bench", "examples", "reports", "results"):
        (root / name).symlink_to(ROOT / name)
    return root


def test_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_contain_no_speed_typed_by_hand(page: Path) -> None:
    assert not SPEED.findall(GENERATED.sub("", page.read_text()))


def test_python_on_the_pages_imports_existing_names() -> None:
    blocks = [block for page in PAGES for block in re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text())]
    imports = [
        (node.module, name.name)
        for block in blocks
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("loaderbench")
        for name in node.names
    ]
    assert imports
    for module, name in imports:
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), f"from {module} import {name}"


def test_site_builds_strictly_and_needs_no_network(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    html = "".join(path.read_text() for path in tmp_path.rglob("*.html"))
    assert (tmp_path / "docs" / "method.html").exists()
    assert not re.findall(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//[^"]*"', html)
    assert not re.findall(r'<link[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="(?:https?:)?//[^"]*"', html)


def dead_link(project: Path) -> None:
    with (project / "README.md").open("a") as page:
        page.write("\n[gone](docs/gone.md)\n")


def dead_anchor(project: Path) -> None:
    with (project / "docs" / "method.md").open("a") as page:
        page.write("\n[gone](results.md#gone)\n")


def unlisted_page(project: Path) -> None:
    (project / "docs" / "unlisted.md").write_text("# Unlisted\n")


@pytest.mark.parametrize(
    "damage", [dead_link, *(pytest.param(each, marks=pytest.mark.slow) for each in (dead_anchor, unlisted_page))]
)
def test_dead_links_and_unlisted_pages_fail_the_build(
    damage: Callable[[Path], None], project: Path, tmp_path: Path
) -> None:
    assert build(project, tmp_path / "before").returncode == 0
    damage(project)
    assert build(project, tmp_path / "after").returncode != 0
