"""Write the report of a made-up campaign, and read its tables as a reader sees them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from loaderbench.report import report
from tests import fabricate

MARKDOWN = MarkdownIt().enable("table")


def tables(text: str) -> list[list[str]]:
    """Return the rows of all tables as a reader sees them, without markup."""
    rows: list[list[str]] = []
    for before, token in pairwise(MARKDOWN.parse(text)):
        if token.type == "tr_open":
            rows.append([])
        elif before.type in {"th_open", "td_open"}:
            rows[-1].append("".join(child.content for child in token.children))
    return rows


def rows_of(text: str, title: str) -> list[list[str]]:
    """Return the table rows that have a cell with just this text."""
    return [row for row in tables(text) if title in row]


def written(tmp_path: Path, *args: object, **kwargs: object) -> str:
    """The text of a campaign's report."""
    folder = fabricate.campaign(tmp_path / "results" / "quick", *args, **kwargs)  # type: ignore[arg-type]
    return report.write(folder, tmp_path / "reports" / "quick").read_text()
