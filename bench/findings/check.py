"""Is a campaign's folder what its rows say it is? Every row CLOSED, OPEN or INVALID, with the reasons.

CLOSED: whole, sealed, and nothing speaks against it. OPEN: true, but not under the conditions of a comparison to be
quoted. INVALID: not what was measured, or not of this campaign.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

from loaderbench.campaign import tuning
from loaderbench.campaign.disturbances import flags
from loaderbench.findings.analysis import analyse, feedings, transports
from loaderbench.findings.comparison import RANKING_BLOCKS
from loaderbench.records import certificates
from loaderbench.records import record as records
from loaderbench.records.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from loaderbench.findings.findings import Analysis
    from loaderbench.records.certificates import Certificate
    from loaderbench.records.record import Record

State = Literal["CLOSED", "OPEN", "INVALID"]


@dataclass(frozen=True)
class Judgement:
    """What a row, or the campaign as a whole, is worth."""

    what: str
    """The row's trial, or `campaign`."""
    state: State
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.state:<8}{': '.join(filter(None, [self.what, '; '.join(self.reasons)]))}"


def check(folder: Path) -> list[Judgement]:
    """Judge the campaign as a whole, then each of its rows.

    Raises FileNotFoundError without an `env.json`, ValueError if `trials.csv` has other columns than this version's.
    """
    env = json.loads((folder / "env.json").read_text())
    rows = records.read(folder / "trials.csv")
    certified = certificates.load(folder)
    known = _Known(
        folder=folder,
        campaign=env["campaign"],
        header=records.header_of(folder / "trials.csv") if rows else records.HEADER,
        names=Counter(row.trial for row in rows),
        certified=certified,
        searched=tuning.searches(rows, env["campaign"]),
        analysis=analyse(rows, env["campaign"], certified),
    )
    return [
        _judgement("campaign", _broken(known.analysis), _loose(env, known.analysis)),
        *(_judgement(row.trial, _wrong(row, known), _doubts(row, known.analysis)) for row in rows),
    ]


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What rows are held against."""

    folder: Path
    campaign: Mapping[str, Any]
    header: tuple[str, ...]
    """The columns that its rows were sealed with."""
    names: Mapping[str, int]
    """How many rows there are of each trial."""
    certified: Mapping[str, Certificate]
    searched: Mapping[str, tuning.Search]
    analysis: Analysis


def _judgement(what: str, invalid: Iterator[str], doubtful: Iterator[str]) -> Judgement:
    if faults := tuple(invalid):
        return Judgement(what, "INVALID", faults)
    doubts = tuple(doubtful)
    return Judgement(what, "OPEN" if doubts else "CLOSED", doubts)


def _broken(analysis: Analysis) -> Iterator[str]:
    """Tell why the campaign as a whole is no result."""
    if analysis.recorded < analysis.planned:
        yield f"{analysis.recorded} of {analysis.planned} planned trials are recorded"
    for control in analysis.controls_failed:
        yield f"the control {control.title} failed: must be {control.expected}, was {control.measured}"


def _loose(env: Mapping[str, Any], analysis: Analysis) -> Iterator[str]:
    """Tell what keeps the campaign from being quoted."""
    if not env["git_commit"]:
        yield "the commit of the code is not known"
    if env["git_dirty"]:
        yield "the code had local changes"
    if not analysis.certified:
        yield "its contestants have no certificates"
    if not analysis.controls:
        yield "it has no controls"
    for control in analysis.controls:
        if control.passed is None:
            yield f"the control {control.title} was not measured: {control.expected}"
    if analysis.blocks < RANKING_BLOCKS:
        yield f"it has {analysis.blocks} blocks, fewer than {RANKING_BLOCKS}"
    if env["data"]["unreadable"]:
        yield f"{env['data']['unreadable']} images were left out as unreadable"


def _wrong(row: Record, known: _Known) -> Iterator[str]:
    """Tell why a row is not what was measured in this campaign."""
    try:
        if row.seal != records.seal(row, known.folder, known.header):
            yield "the seal is broken: the row or its raw times were changed after the measurement"
        columns = Timeline.load(known.folder / "times" / row.times).columns() if row.times else {}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        yield f"its raw times cannot be read: {error}"
        return
    for name in columns.keys() & set(known.header):  # an earlier version has fewer
        if (stands := records.cell(getattr(row, name))) != (follows := records.cell(columns[name])):
            yield f"{name} is {stands or 'empty'}, and {follows or 'empty'} by its raw times"
    if known.names[row.trial] > 1 and row.kind != "write":  # a format that could be written later has a second row
        yield f"there are {known.names[row.trial]} rows of this trial"
    if row.status != "ok" and row.images_per_s is not None:
        yield f"it is {row.status} and yet has a speed"
    certificate = known.certified.get(row.contestant or "")
    certified = certificate.digest if certificate else ""
    if row.certificate != certified and (row.certificate or row.block != 1):  # the first block may precede certificates
        yield "the certificate of its contestant was changed after the measurement"
    if row.kind == "load":
        yield from _foreign(row, known.campaign)
    if row.kind == "tune" or row.track == "best":
        yield from _at_other_settings(row, known.campaign, known.searched)


def _foreign(row: Record, campaign: Mapping[str, Any]) -> Iterator[str]:
    planned: Sequence[str] = [c["name"] for c in campaign["contestants"]]
    if row.contestant not in planned:
        yield f"the campaign has no contestant {row.contestant}"
    if not 1 <= (row.block or 0) <= campaign["timing"]["blocks"]:
        yield f"the campaign has no block {row.block}"
    if row.cache == "cold" and row.contestant not in campaign["cold"]:
        yield "the campaign does not run it cold"
    if row.consumer not in {"", "hungry"} and row.contestant not in (
        feedings(campaign).get(row.consumer, {}).get("contestants", ())
    ):
        yield f"the campaign does not have it feed the consumer {row.consumer}"
    if row.transport and row.contestant not in transports(campaign).get(row.transport, ()):
        yield f"the campaign does not have its data come from a bucket, {row.transport}"
    if row.track not in {"same", "best"}:
        yield f"there is no track {row.track or 'of no name'}"


def _at_other_settings(
    row: Record, campaign: Mapping[str, Any], searched: Mapping[str, tuning.Search]
) -> Iterator[str]:
    """Tell what a row of a search, or at best settings, has that does not follow from the search."""
    if row.contestant is None or row.contestant not in searched:
        yield "the campaign does not search for its best settings"
        return
    search = searched[row.contestant]
    asked = search.settings
    if row.kind == "tune":
        number = row.position or 0
        if row.trial != tuning.trial_name(row.contestant, number) or not 1 <= number <= len(search.asked):
            yield "the search did not ask for it"
            return
        asked = search.asked[number - 1]
    if row.workers is None:  # it did not run
        return
    [own] = [c["options"] for c in campaign["contestants"] if c["name"] == row.contestant]
    options = own | {name: value for name, value in (asked or {}).items() if name != "workers"}
    workers = (asked or {}).get("workers", row.workers)
    if (row.options, row.workers) != (records.cell(json.dumps(options, sort_keys=True)), workers):
        yield f"it ran with {row.options} and {row.workers} workers, and the search asked for {asked}"


def _doubts(row: Record, analysis: Analysis) -> Iterator[str]:
    """Tell what keeps a true row out of a comparison to be quoted."""
    if reason := next((s.unranked_reason for s in analysis.summaries if s.name == row.contestant), ""):
        yield f"other work: {reason}"
    if row.status != "ok":
        yield f"{row.status}: {row.reason}"
    yield from flags(row)
