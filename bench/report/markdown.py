"""Markdown from values: escaped cells, tables, links, and the environment of the templates."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, Undefined
from markupsafe import Markup

from loaderbench.findings.comparison import Comparison, Ratio
from loaderbench.findings.findings import ContestantSummary, shown
from loaderbench.machine.text import one_line, without_home

EN_DASH, _TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_])|^[-+]")
"""What Markdown would read as markup. An underscore within a word is none."""


def rows(of: Iterable[Iterable[object]]) -> Markup:
    """Return the rows of a table, whose headings the template holds."""
    return verbatim("\n".join(f"| {' | '.join(map(cell, cells))} |" for cells in of))


def cell(value: object) -> Markup:
    """Return what is printed for a value: one line without markup, a rounded number, or a dash if it is missing."""
    if isinstance(value, Markup):
        return value
    if value is None or value == "" or isinstance(value, Undefined):
        return verbatim(EN_DASH)
    if isinstance(value, int | float):
        return verbatim(shown(value))
    return verbatim(_SPECIAL.sub(r"\\\g<0>", without_home(one_line(str(value)))))


def verbatim(written: str) -> Markup:
    """Mark text as fit to print: escaped, or written by us."""
    return Markup(written)  # noqa: S704 - this is Markdown, and not HTML to be trusted


def formatted(template: str, *values: object) -> Markup:
    """Return a format string of ours with escaped values in its fields."""
    return verbatim(template.format(*map(cell, values)))


def interval(of: Ratio | Comparison | None) -> Markup:
    """Return a ratio and its confidence interval, if it has one."""
    ratio = of.ratio if isinstance(of, Comparison) else of
    if not ratio:
        return cell(None)
    ends = "" if ratio.low is None or ratio.high is None else f" [{shown(ratio.low)}{EN_DASH}{shown(ratio.high)}]"
    return verbatim(f"{shown(ratio.mean)}{_TIMES}{ends}")


def speed_range(s: ContestantSummary) -> Markup:
    """Return a contestant's median and range over blocks, the median in bold if it is ranked, or why it has none."""
    if not s.speeds:
        return cell(s.trouble or "not run yet")
    pattern = ("{}" if s.unranked_reason else "**{}**") + (" [{}{}{}]" if len(s.speeds) > 1 else "")
    return formatted(pattern, s.median, min(s.speeds), EN_DASH, max(s.speeds))


def medians(s: ContestantSummary, *columns: str) -> list[float | None]:
    """Return a contestant's medians of these columns, None where not measured."""
    return [s.medians.get(column) for column in columns]


def anchor(heading: str) -> str:
    """Return the anchor that Markdown viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def settings(options: Mapping[str, object]) -> str:
    """Return options and their values in one line."""
    return ", ".join(f"{name} = {value}" for name, value in options.items())


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers in short: 1 to 3 and 5 as `1-3, 5`, with en dashes."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(EN_DASH.join(map(str, dict.fromkeys((run[0], run[-1])))) for run in runs)


def templates() -> Environment:
    """Return the environment of the templates, in which every value is printed as a cell."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # a second net: all text has passed `cell` before it
        finalize=cell,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["rows"] = rows
    return environment
