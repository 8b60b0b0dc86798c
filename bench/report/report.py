"""Write a report from a campaign's folder alone: Markdown and pictures, without the library of any loader."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from markupsafe import Markup

from loaderbench.findings import verdicts
from loaderbench.findings.raw_times import analyse_folder
from loaderbench.machine.disk import full_disk_explained
from loaderbench.machine.files import open_plain
from loaderbench.machine.text import printable, quoted
from loaderbench.records.folder import CampaignFolder
from loaderbench.records.record import Record
from loaderbench.report import conditions, plots, resources, results, scaling
from loaderbench.report.first_screen import first_screen, setup
from loaderbench.report.markdown import anchor, cell, templates, verbatim
from loaderbench.report.material import Material

REPORT = "report.md"
SHOWN_UNREADABLE = 20
"""Number of unreadable images that a report names; it counts all."""
_MOST_BYTES = 1 << 30


SECTIONS = (
    results.results,
    results.processes,
    results.work,
    results.published,
    results.tuning,
    scaling.keeping_busy,
    scaling.scaling,
    results.accelerator,
    results.training,
    results.bucket,
    resources.costs,
    resources.limits,
    resources.cold,
    resources.from_disk,
    resources.waiting,
    resources.conversion,
    resources.load,
    conditions.conditions,
    conditions.controls,
    conditions.noise,
    conditions.failures,
    conditions.gaps,
    conditions.reproduction,
)
"""Each section makes the values of the template of its name, or None if there is nothing to show."""


class _PrintableFolder(CampaignFolder):
    """A campaign's folder, each of its texts in one printable line: it may be a stranger's."""

    @cached_property
    def env(self) -> Mapping[str, Any]:
        """The conditions."""
        env: Mapping[str, Any] = _printable(super().env)
        return env

    @cached_property
    def rows(self) -> list[Record]:
        """The complete rows."""
        return [replace(row, **_printable(vars(row))) for row in super().rows]


def _printable(value: Any) -> Any:
    """Return a value of JSON with each text in one printable line. Spaces stay: a command may need them."""
    if isinstance(value, str):
        return printable(" ".join(value.splitlines()))
    if isinstance(value, dict):
        return {printable(key): _printable(each) for key, each in value.items()}
    return list(map(_printable, value)) if isinstance(value, list) else value


def write(folder: Path, out: Path) -> Path:
    """Write `report.md` and its PNGs into `out` and return its path; other files there stay.

    Raises FileNotFoundError without an `env.json`, ValueError if another version wrote it or `trials.csv`, and
    DiskSpaceError.
    """
    material = _read(folder)
    out.mkdir(parents=True, exist_ok=True)
    elsewhere = (
        f"the rows are; make room and run loaderbench report {quoted(folder)}, with --reports DIR for another disk"
    )
    with (
        full_disk_explained(out, "the report's files", elsewhere),
        TemporaryDirectory(prefix=".report-", dir=out) as name,
    ):
        made = Path(name)
        drawn = plots.render(material.analysis, _caption(material), made)
        material = replace(material, pictures={plot.file: plot.title for plot in drawn})
        (made / REPORT).write_text(_markdown(material), encoding="utf-8")
        _publish(made, out)
    return out / REPORT


def _read(folder: Path) -> Material:
    """Return what a campaign's folder holds, and its findings, without pictures."""
    files = _PrintableFolder(folder)
    analysis = analyse_folder(files)
    unreadable, examples = _unreadable(folder / "unreadable.csv")
    return Material(files.env, analysis, files.certificates, unreadable, examples, pictures={})


def _unreadable(path: Path) -> tuple[int, list[dict[str, str]]]:
    """Return how many images could not be read, and the first of them."""
    if not path.exists():
        return 0, []
    with io.TextIOWrapper(open_plain(path, _MOST_BYTES), "utf-8", "replace", newline="") as file:
        rows = csv.DictReader(file)
        examples = list(islice(rows, SHOWN_UNREADABLE))
        return len(examples) + sum(1 for _ in rows), examples


def _caption(material: Material) -> str:
    """Return one line that says what was measured on what, for all pictures."""
    found = material.analysis
    blocks = verdicts.counted(found.blocks, "block") + (" (descriptive)" if found.descriptive else "")
    progress = verdicts.progress(found)
    return " · ".join([*setup(material), f"preliminary, {progress}" if progress else blocks])


def _markdown(material: Material) -> str:
    """Return the text of a report: the first screen, then each section that has something to show."""
    environment = templates()

    def picture(file: str, reading: str) -> Markup:
        if file not in material.pictures:
            return verbatim("")
        return verbatim(f"![{cell(material.pictures[file])}]({file})\n\n{reading}\n")

    def rendered(name: str, values: Mapping[str, Any]) -> str:
        return environment.get_template(f"{name}.md.j2").render(values, picture=picture).strip()

    made = {section.__name__: section(material) for section in SECTIONS}
    texts = {name: rendered(name, values) for name, values in made.items() if values is not None}
    anchors = {name: anchor(text.partition("\n")[0].removeprefix("## ")) for name, text in texts.items()}
    texts = {"": rendered("first_screen", {**first_screen(material), "anchors": anchors}), **texts}
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(texts.values())) + "\n"


def _publish(made: Path, out: Path) -> None:
    """Move the new report into place.

    The old Markdown goes first and the new one comes last: a kill leaves no report rather than one that shows old
    pictures beside new figures.
    """
    (out / REPORT).unlink(missing_ok=True)
    for plot in plots.PLOTS:
        (out / plot.file).unlink(missing_ok=True)
    for picture in made.glob("*.png"):
        picture.replace(out / picture.name)
    (made / REPORT).replace(out / REPORT)
