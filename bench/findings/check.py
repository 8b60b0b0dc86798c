"""Check that a campaign's folder is what was measured: every row valid, valid with caveats, or invalid."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loaderbench.campaign import tuning
from loaderbench.campaign.disturbances import flags
from loaderbench.campaign.variant import MAIN, Variant, variants
from loaderbench.findings.analysis import analyse
from loaderbench.findings.comparison import RANKING_BLOCKS
from loaderbench.findings.findings import Analysis
from loaderbench.records import certificates, earlier
from loaderbench.records.folder import CampaignFolder
from loaderbench.records.record import Record
from loaderbench.records.trials_csv import cell

State = Literal["valid", "valid with caveats", "invalid"]
"""`valid`: complete, unchanged and undisturbed. `valid with caveats`: true, but not measured under the conditions of a
comparison that can be quoted. `invalid`: changed after the measurement, or not of this campaign."""


@dataclass(frozen=True)
class Judgement:
    """The state of a row, or of the campaign as a whole, with the reasons."""

    what: str
    """The row's trial, or `campaign`."""
    state: State
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.state}: {': '.join(filter(None, [self.what, '; '.join(self.reasons)]))}"


def check(path: Path) -> list[Judgement]:
    """Judge the campaign in a folder as a whole, then each of its rows.

    Raises FileNotFoundError without an `env.json`, and ValueError if another version wrote the folder.
    """
    folder = CampaignFolder(path)
    env, rows = folder.env, folder.rows
    analysis = analyse(rows, env["campaign"], folder.certificates)
    searches = tuning.searches(rows, env["campaign"])
    count = Counter(row.trial for row in rows)
    judgements = [_judgement("campaign", _campaign_faults(analysis), _campaign_caveats(env, analysis))]
    for row in rows:
        faults = [*_altered(row, folder), *_contradictory(row, count[row.trial], folder)]
        if row.kind == "load":
            faults += _unplanned(row, env["campaign"])
        if row.kind == "tune" or row.track == "best":
            faults += _at_other_settings(row, env["campaign"], searches)
        judgements.append(_judgement(row.trial, faults, _caveats(row, analysis)))
    return judgements


def _judgement(what: str, faults: Iterator[str] | list[str], caveats: Iterator[str]) -> Judgement:
    if reasons := tuple(faults):
        return Judgement(what, "invalid", reasons)
    reasons = tuple(caveats)
    return Judgement(what, "valid with caveats" if reasons else "valid", reasons)


def _campaign_faults(analysis: Analysis) -> Iterator[str]:
    """Yield why the campaign as a whole is no result."""
    if analysis.recorded < analysis.planned:
        yield f"{analysis.recorded} of {analysis.planned} planned trials are recorded"
    for control in analysis.controls_failed:
        yield f"the control {control.title} failed: expected {control.expected}, measured {control.measured}"


def _campaign_caveats(env: Mapping[str, Any], analysis: Analysis) -> Iterator[str]:
    """Yield why the campaign cannot be quoted."""
    if not env["git_commit"]:
        yield "the commit of the code is unknown"
    if env["git_dirty"]:
        yield "the code had local changes"
    if not analysis.certified:
        yield "its contestants have no certificates"
    if not analysis.controls:
        yield "it has no controls"
    for control in analysis.controls:
        if control.passed is None:
            measured = control.measured or "not measured"
            yield f"the control {control.title} was not read in every block: expected {control.expected}; {measured}"
    if analysis.blocks < RANKING_BLOCKS:
        yield f"it has {analysis.blocks} blocks, fewer than {RANKING_BLOCKS}"
    if env["data"]["unreadable"]:
        yield f"{env['data']['unreadable']} unreadable images were skipped"


def _altered(row: Record, folder: CampaignFolder) -> Iterator[str]:
    """Yield how a row or its raw times differ from what was sealed, and the row from its raw times."""
    try:
        if row.seal != folder.seal(row):
            yield "the seal is broken: the row or its raw times were changed after the measurement"
        timeline = folder.timeline(row)
        columns = timeline.columns() if timeline else {}
        if timeline and row.schema < earlier.RENAMED_IN:
            columns |= earlier.columns(timeline)
    except (OSError, ValueError) as error:
        yield f"its raw times, times/{row.times}, cannot be read: {error}"
        return
    for name in columns.keys() & set(folder.header):  # an earlier version has fewer
        if (recorded := cell(getattr(row, name))) != (computed := cell(columns[name])):
            yield f"{name} is {recorded or 'empty'}, but {computed or 'empty'} by its raw times"


def _contradictory(row: Record, count: int, folder: CampaignFolder) -> Iterator[str]:
    """Yield what contradicts the other cells, rows or certificates. `count`: the rows of the trial."""
    if count > 1 and row.kind != "write":  # a format that could be written in a later run has a second row
        yield f"there are {count} rows of this trial"
    if row.status != "ok" and row.images_per_s is not None:
        yield f"it is {row.status} but has a speed"
    certificate = certificates.of(row.contestant or "", row.track, folder.certificates)
    before_certificates = (row.block == 1 or row.kind == "tune") and not row.certificate
    if row.certificate != (certificate.digest if certificate else "") and not before_certificates:
        yield "the certificate of its contestant was changed after the measurement"


def _unplanned(row: Record, campaign: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a trial is not part of the campaign."""
    planned, variant = variants(campaign), Variant.of(row)
    if row.contestant not in planned[MAIN]:
        yield f"the campaign has no contestant {row.contestant}"
    elif row.contestant not in planned.get(variant, ()):
        yield f"the campaign does not run it in the variant: {variant.label}"
    if not 1 <= (row.block or 0) <= campaign["timing"]["blocks"]:
        yield f"the campaign has no block {row.block}"


def _at_other_settings(
    row: Record, campaign: Mapping[str, Any], searches: Mapping[str, tuning.Search]
) -> Iterator[str]:
    """Yield why a trial of a search, or a tuned one, does not follow from the search."""
    if row.contestant is None or row.contestant not in searches:
        yield "the campaign does not search for its best settings"
        return
    search = searches[row.contestant]
    settings = search.settings
    if row.kind == "tune":
        number = row.position or 0
        if row.trial != tuning.trial_name(row.contestant, number) or not 1 <= number <= len(search.asked):
            yield "the search did not request it"
            return
        settings = search.asked[number - 1]
    if row.workers is None:  # it did not run
        return
    [own] = [c["options"] for c in campaign["contestants"] if c["name"] == row.contestant]
    options = tuning.options_at(own, settings)
    workers = (settings or {}).get("workers", row.workers)
    if (row.options, row.workers) != (cell(json.dumps(options, sort_keys=True)), workers):
        yield f"it ran with {row.options} and {row.workers} workers, but the search requested {settings}"


def _caveats(row: Record, analysis: Analysis) -> Iterator[str]:
    """Yield why a valid row cannot be quoted."""
    if reason := next((s.unranked_reason for s in analysis.summaries if s.name == row.contestant), ""):
        yield f"not ranked: {reason}"
    if row.status != "ok":
        yield f"{row.status}: {row.reason}"
    yield from flags(row)
