"""Visits of the clinic, as `tests/perf/clinic.py` keeps them in a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = (
    *("code", "run", "patient", "disease", "named", "looks", "evidence", "cure", "promised_gain", "given_gain"),
    *("examined_samples_per_s", "later_samples_per_s"),
)
"""The last two are the speed of the loader as it is: in the examination, and later, in turn with the cured one."""
TOLERANCE = 0.15
"""Part by which a gain may miss another one that is close to it."""
Visit = dict[str, str]


def read(path: Path) -> list[Visit]:
    """Return all visits of a file, in its order. Raises ValueError if it has other columns."""
    with path.open(newline="") as file:
        visits = csv.DictReader(file)
        if tuple(visits.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path} has other columns; name another file with --out")
        return list(visits)


def keep(path: Path, visit: Visit) -> None:
    """Append a visit to a file, which is begun if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begins = not path.exists()
    with path.open("a", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if begins:
            rows.writeheader()
        rows.writerow(visit)


def right(visit: Visit) -> bool:
    """Return whether the doctor named the disease."""
    return visit["named"] == visit["disease"]


def promises(visit: Visit) -> bool:
    """Return whether the doctor promised a gain."""
    return bool(visit["given_gain"])


def kept(visit: Visit) -> bool:
    """Return whether the first cure gave what it promised, or promised nothing."""
    return not promises(visit) or close(float(visit["promised_gain"]), float(visit["given_gain"]))


def close(gain: float, other: float) -> bool:
    """Return whether a gain is within the tolerance of another one."""
    return abs(gain / other - 1) < TOLERANCE
