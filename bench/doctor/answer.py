"""Write the doctor's answers as pages of Markdown, which a terminal shows as well."""

import re
from collections.abc import Iterator

from loaderbench.doctor.case import Cure, Diagnosis
from loaderbench.report.markdown import templates

_CURES = 2
_BAR = re.compile(r"(?<!\\)\|")
"""What separates the cells of a row; a bar in a cell is escaped."""


def text(diagnosis: Diagnosis, target: str) -> str:
    """Return the page on a loader: the verdict, its evidence, the first cures, and all experiments."""
    seen = [(trial.name, trial.observation.samples_per_s) for trial in diagnosis.trials if trial.observation]
    told = diagnosis.bottleneck in {"model", "cannot tell"}  # there it is evidence, or uncertain
    return page(
        "doctor_loader.md.j2",
        of=target,
        diagnosis=diagnosis,
        waiting=None if diagnosis.waiting is None or told else f"{diagnosis.waiting:.0%}",
        cures=[(f"{place}. {cure.what}", *_effect(cure)) for place, cure in enumerate(diagnosis.cures[:_CURES], 1)],
        experiments=[(name, speed, times(speed / diagnosis.samples_per_s)) for name, speed in seen],
        missing=[f"{trial.name}: {trial.reason}" for trial in diagnosis.trials if not trial.observation],
    )


def _effect(cure: Cure) -> tuple[str | None, str]:
    if cure.gain is None:
        return None, "not measured"
    return times(cure.gain), "measured" if cure.measured else "worked out, not measured"


def times(ratio: float) -> str:
    """Return how many times as fast something is."""
    return f"{ratio:.2f}\N{MULTIPLICATION SIGN}"


def page(template: str, **values: object) -> str:
    """Return the page that a template makes of values."""
    return aligned(templates().get_template(template).render(**values).strip()) + "\n"


def aligned(written: str) -> str:
    """Return Markdown with the cells of each table padded to the same width, so that a terminal shows columns."""
    lines: list[str] = []
    table: list[list[str]] = []
    for line in [*written.split("\n"), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in _BAR.split(line.strip())[1:-1]])
        else:
            lines += [*(_columns(table) if table else ()), line]
            table = []
    return "\n".join(lines[:-1])


def _columns(table: list[list[str]]) -> Iterator[str]:
    heads, rules, *_ = table
    widths = [max(len(row[place]) for row in table if row is not rules) for place in range(len(heads))]
    right = [rule.endswith(":") for rule in rules]
    for row in table:
        if row is rules:
            lines = ["-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)]
            yield f"|{'|'.join(lines)}|"
        else:
            cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
            yield f"| {' | '.join(cells)} |"
