"""What did the campaign find? Its folder to Markdown and PNGs.

Runs on any machine, and without the library of any loader.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, Undefined
from markupsafe import Markup

from loaderbench.api import Encoding
from loaderbench.campaign.campaign import CAMPAIGNS
from loaderbench.campaign.pixel_values import delivers
from loaderbench.campaign.tuning import MARGIN
from loaderbench.findings import gpu_uses
from loaderbench.findings.analysis import analyse
from loaderbench.findings.comparison import RANKING_BLOCKS
from loaderbench.findings.crossover import DeliveryCurve
from loaderbench.findings.findings import shown
from loaderbench.formats import payloads as stored
from loaderbench.records import certificates
from loaderbench.records import record as records
from loaderbench.records.timeline import Timeline
from loaderbench.report import plots
from loaderbench.run.bucket_under_test import ON_LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loaderbench.findings.findings import Analysis
    from loaderbench.records.record import Record

REPORT = "report.md"
EN_DASH = "\N{EN DASH}"
SHOWN_UNREADABLE = 20
"""So many unreadable images are named; all are counted."""
_ENV_SCHEMA = 1
_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_])|^[-+]")
"""What Markdown would read as markup. An underscore within a word is none."""


def write(folder: Path, out: Path) -> Path:
    """Write `report.md` and its PNGs into `out` and return its path; what else is there stays.

    Reads the files of a campaign's folder alone. Raises FileNotFoundError without an `env.json`,
    and ValueError if that or `trials.csv` was written by another version.
    """
    env = json.loads((folder / "env.json").read_text())
    if env.get("schema") != _ENV_SCHEMA:
        message = (
            f"{folder / 'env.json'} has schema {env.get('schema')} and not {_ENV_SCHEMA}; "
            f"use loaderbench {env.get('loaderbench', 'of the version that wrote it')}"
        )
        raise ValueError(message)
    certified = certificates.load(folder)
    rows = records.read(folder / "trials.csv")
    analysis = analyse(rows, env["campaign"], certified, _curves(rows, folder / "times"))
    analysis = replace(analysis, gpu_uses=gpu_uses.of(folder, rows, analysis))
    unreadable, examples = _unreadable(folder / "unreadable.csv")
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".report-", dir=out) as name:
        made = Path(name)
        pictures = plots.render(analysis, _caption(env, analysis), made)
        text = (
            _markdown()
            .get_template("report.md.j2")
            .render(
                env=env,
                campaign=env["campaign"],
                analysis=analysis,
                certified=certified,
                plots={plot.file: plot for plot in pictures},
                unreadable=unreadable,
                examples=examples,
                ranking_blocks=RANKING_BLOCKS,
                margin=MARGIN,
                command=_command(env),
                unasked=_unasked(analysis),
            )
        )
        (made / REPORT).write_text(re.sub(r"\n{3,}", "\n\n", text), encoding="utf-8")
        _publish(made, out)
    return out / REPORT


def _curves(rows: Sequence[Record], times: Path) -> dict[str, DeliveryCurve]:
    """Return the delivery curves of the trials whose data was in a bucket and whose raw times are there."""
    return {
        row.trial: DeliveryCurve.of(Timeline.load(times / row.times), row.until_asked_s)
        for row in rows
        if row.until_asked_s is not None and row.status == "ok" and (times / row.times).is_file()
    }


def _publish(made: Path, out: Path) -> None:
    """Move the new report into place.

    The Markdown goes first and comes last: killed half-way, this leaves no report rather than one
    that shows old pictures beside new figures.
    """
    (out / REPORT).unlink(missing_ok=True)
    for plot in plots.PLOTS:
        (out / plot.file).unlink(missing_ok=True)
    for picture in made.glob("*.png"):
        picture.replace(out / picture.name)
    (made / REPORT).replace(out / REPORT)


def _unreadable(path: Path) -> tuple[int, list[dict[str, str]]]:
    """Return how many images could not be read, and the first of them."""
    if not path.exists():
        return 0, []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        examples = list(islice(rows, SHOWN_UNREADABLE))
        return len(examples) + sum(1 for _ in rows), examples


def _unasked(analysis: Analysis) -> dict[str, str]:
    """Return why a format does not store what was asked for, by its title."""
    reasons = {
        w.title: stored.unasked(Encoding(**json.loads(w.options)), w.stored) for w in analysis.writes if w.stored
    }
    return {title: reason for title, reason in reasons.items() if reason}


def _caption(env: Mapping[str, Any], analysis: Analysis) -> str:
    """Say what was measured on what, in one line."""
    host, data, work = env["host"], env["data"], env["campaign"]["work"]
    blocks = f"{analysis.blocks} block{'s' if analysis.blocks != 1 else ''}"
    parts = [
        f"{' '.join(host['cpu'].split())}, {host['cores_allowed']} cores",
        env["gpu"],
        f"{data['samples']:,} images ({data['origin']})",
        f"batch {work['batch_size']}, {_workers(env)} workers",
        blocks + (" (descriptive)" if analysis.descriptive else ""),
    ]
    if analysis.recorded < analysis.planned:
        parts.append(f"unfinished: {analysis.recorded:,} of {analysis.planned:,} trials")
    return " · ".join(part for part in parts if part)


def _workers(env: Mapping[str, Any]) -> int:
    workers = env["campaign"]["work"]["workers"]
    return int(env["host"]["cores_allowed"] if workers == "cores" else workers)


def _command(env: Mapping[str, Any]) -> str:
    """Return the command line that repeats the campaign on the same images."""
    campaign, origin = env["campaign"], str(env["data"]["origin"])
    shipped = (CAMPAIGNS / f"{campaign['name']}.toml").exists()
    words = ["loaderbench", "bench", campaign["name"] if shipped else f"{campaign['name']}.toml"]
    if not origin.startswith("synthetic"):
        words += ["--data", " ".join(origin.split())]
    if (bucket := env["data"].get("bucket", ON_LOOPBACK)) != ON_LOOPBACK:
        words += ["--artifacts", bucket]
    if campaign["data"]["samples"] is not None:
        words += ["--samples", campaign["data"]["samples"]]
    words += ["--batch-size", campaign["work"]["batch_size"]]
    if campaign["work"]["workers"] != "cores":
        words += ["--workers", campaign["work"]["workers"]]
    return shlex.join(map(str, [*words, "--blocks", campaign["timing"]["blocks"]]))


def _markdown() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # a second net: all text has passed _cell before it
        finalize=_cell,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"delivers": delivers, "ranges": _ranges, "settings": _settings, "verbatim": _verbatim}
    return environment


def _cell(value: object) -> Markup:
    """Return what the template prints for a value: one line, no Markdown; missing is a dash."""
    if isinstance(value, Markup):
        return value
    if value is None or value == "" or isinstance(value, Undefined):
        return _verbatim(EN_DASH)
    if isinstance(value, int | float):
        return _verbatim(shown(value))
    return _verbatim(_SPECIAL.sub(r"\\\g<0>", " ".join(str(value).split())))


def _verbatim(text: str) -> Markup:
    """Mark text as fit to print: escaped, or written by us."""
    return Markup(text)  # noqa: S704 - this is Markdown, and not HTML to be trusted


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers in short: 1 to 3 and 5 as `1-3, 5`, with en dashes."""
    runs = [list(run) for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    ends = [(run[0][1], run[-1][1]) for run in runs]
    return ", ".join(str(first) if first == last else f"{first}{EN_DASH}{last}" for first, last in ends)


def _settings(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in options.items())
