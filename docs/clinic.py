"""How often the doctor is right, from the visits that `make clinic` kept."""

from __future__ import annotations

import csv
from itertools import groupby
from statistics import median

from reference import EN_DASH, ROOT, TIMES, table

VISITS = ROOT / "results" / "clinic-2-cores.csv"


def _visits() -> list[dict[str, str]]:
    with VISITS.open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda visit: visit["patient"])


def unsure() -> str:
    """Return how often the doctor could not tell."""
    visits = _visits()
    looks = sum(int(visit["looks"]) for visit in visits)
    told = sum(visit["named"] != "cannot tell" for visit in visits)
    return f"Of {looks} examinations, {looks - told} ended with `cannot tell`."


def patients() -> str:
    """Return each patient's disease, how often it was named, and what its first cure promised and gave."""
    rows = []
    for patient, group in groupby(_visits(), key=lambda visit: visit["patient"]):
        seen = list(group)
        named = sum(visit["named"] == visit["disease"] for visit in seen)
        cured = [visit for visit in seen if visit["given_gain"]]
        rows.append(
            [
                patient.replace("_", " "),
                f"`{seen[0]['disease']}`",
                f"{named} of {len(seen)}",
                *(_spread([float(visit[gain]) for visit in cured]) for gain in ("promised_gain", "given_gain")),
            ]
        )
    head = ["Loader", "To be named", "Named rightly", "Promised gain", "Gain when cured"]
    return table(head, rows, numbers_from=2)


def _spread(gains: list[float]) -> str:
    """Return the median of gains, with the lowest and the highest if there are several."""
    if not gains:
        return EN_DASH
    ends = f" ({min(gains):.2f}{EN_DASH}{max(gains):.2f})" if gains[1:] else ""
    return f"{median(gains):.2f}{TIMES}{ends}"
