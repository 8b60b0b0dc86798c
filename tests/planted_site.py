"""Packages with adapters of their own, installed for one test in a temporary site folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from loaderbench.campaign import registry

HONEST = """
from contextlib import contextmanager
requires = ()
reads = ("imagefolder", "modeless")
streams = False
@contextmanager
def stream(artifact, work):
    yield []
"""
"""A module that has what a loader needs."""


def install(
    site: Path,
    patch: pytest.MonkeyPatch,
    modules: Mapping[str, str],
    packages: Mapping[str, Mapping[str, str]],
) -> None:
    """Install packages for this process and its children, until `patch` is undone.

    `modules`: text by name. `packages`: by name, the value of each entry point by `kind/name`.
    """
    site.mkdir(exist_ok=True)
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)
    for package, points in packages.items():
        folder = site / f"{package.replace('-', '_')}-0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0\n")
        lines = [
            line
            for kind in ("loader", "writer")
            for line in (
                f"[loaderbench.{kind}s]",
                *(f"{p.partition('/')[2]} = {value}" for p, value in points.items() if p.startswith(kind)),
            )
        ]
        (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    patch.syspath_prepend(str(site))
    patch.setenv("PYTHONPATH", str(site), prepend=":")
    registry.adapters.cache_clear()
