"""Titles that no two contestants or formats share: where a campaign gives one title twice, the names are added."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from loaderbench.records.record import Record


def distinct(campaign: Mapping[str, Any]) -> dict[str, Any]:
    """Return a campaign, as `env.json` keeps it, in which titles differ: of contestants, tuned ones, and formats."""
    contestants, formats, best = _tables(campaign)
    return {
        **campaign,
        "contestants": [c | {"title": contestants[c["name"]]} for c in campaign["contestants"]],
        "formats": [f | {"title": formats[f["name"]]} for f in campaign["formats"]],
        "best": {name: one | {"title": best[name]} for name, one in campaign["best"].items()},
    }


def retitled(records: Iterable[Record], campaign: Mapping[str, Any]) -> list[Record]:
    """Return rows with those titles. `campaign`: with its own titles."""
    contestants, formats, best = _tables(campaign)
    found = []
    for row in records:
        tuned = row.kind == "tune" or row.track == "best"
        titles = formats if row.kind == "write" else best if tuned else contestants
        name = row.contestant or row.format
        title = titles.get(name, row.title)
        found.append(replace(row, title=title) if title == f"{row.title} ({name})" else row)
    return found


def _tables(campaign: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Return the distinct titles of contestants, formats and tuned contestants, by name."""
    named = [[(one["name"], one["title"]) for one in campaign[table]] for table in ("contestants", "formats")]
    contestants, formats, best = map(_distinct, [*named, [(n, one["title"]) for n, one in campaign["best"].items()]])
    return contestants, formats, best


def _distinct(titles: Iterable[tuple[str, str]]) -> dict[str, str]:
    titles = [*titles]
    given = Counter(title for _, title in titles)
    return {name: title if given[title] == 1 else f"{title} ({name})" for name, title in titles}
