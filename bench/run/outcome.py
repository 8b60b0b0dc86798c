"""Decide whether a finished campaign answers its question."""

from collections.abc import Collection
from pathlib import Path

from loaderbench.campaign.campaign import Campaign
from loaderbench.records import trials_csv


def answers(campaign: Campaign, lacking: Collection[str]) -> bool:
    """Return whether a campaign has an answer although the contestants with these names have no speed."""
    return campaign.reference not in lacking and 2 * len(lacking) <= len(campaign.competing)


def failure(campaign: Campaign, folder: Path) -> str:
    """Return why a campaign has no answer; empty if the reference and at least half of the contestants have a speed."""
    rows = [row for row in trials_csv.read(folder / "trials.csv") if row.kind == "load"]
    measured = {row.contestant for row in rows if row.status == "ok"}
    lacking = {c.name: c.title for c in campaign.competing if c.name not in measured}
    if answers(campaign, lacking):
        return ""
    last = {row.contestant: f"{row.status}, {row.reason}" for row in rows}
    reasons = [f"  {title}: {last.get(name, 'not run')}" for name, title in lacking.items()]
    which = "the reference has" if campaign.reference in lacking else "most contestants have"
    return "\n".join([f"{which} no speed; {len(lacking)} of {len(campaign.competing)} have none:", *reasons])
