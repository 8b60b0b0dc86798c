"""Lists in docs/ that come from the code: campaigns, rooms, commands, targets. See `front_page.py`."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module

import typer
from reference import ROOT, table
from typer.cli import get_docs_for_click

from loaderbench.campaign.campaign import CAMPAIGNS, load
from loaderbench.cli import app


def campaigns() -> str:
    """Return the shipped campaigns, from their files."""
    rows = []
    for path in sorted(CAMPAIGNS.glob("*.toml")):
        c = load(path.stem)
        rows.append(
            [f"`{c.name}`", c.question, str(len(c.competing)), str(c.timing.blocks), f"{c.timing.window_s:.0f} s"]
        )
    return table(["Campaign", "Question", "Contestants", "Blocks", "Window"], rows, numbers_from=2)


def rooms() -> str:
    """Return the rooms of bench/ from the bottom up, each with the first line of its docstring."""
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    rows = []
    for layer in reversed(layers):
        path = layer.replace("loaderbench.", "bench/")
        room = import_module(layer)
        rows.append(
            [f"`{path}/`" if hasattr(room, "__path__") else f"`{path}.py`", (room.__doc__ or "").splitlines()[0]]
        )
    return table(["Room", "What happens in it"], rows)


def command_line() -> str:
    """Return every command with its options, as typer documents them."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="loaderbench")
    return "\n## " + text.split("\n## ", 1)[1].strip() + "\n"


def make_targets() -> str:
    """Return the documented targets of the Makefile."""
    targets = re.findall(r"^([a-z0-9-]+):.*## (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return table(["Target", "What it does"], ([f"`make {name}`", what] for name, what in targets))
