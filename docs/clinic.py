"""How often the doctor is right, from the visits that `make clinic` kept."""

from __future__ import annotations

from itertools import groupby, permutations
from statistics import mean, median

from reference import EN_DASH, ROOT, TIMES, table

from tests.clinic import visits
from tests.clinic.visits import Visit

VISITS = ROOT / "results" / "clinic-2-cores.csv"


def _visits() -> list[Visit]:
    return sorted(visits.read(VISITS), key=lambda visit: visit["patient"])


def in_all() -> str:
    """Return how often the doctor was right and could not tell, and how well gains were promised and came back."""
    seen = _visits()
    right = sum(map(visits.right, seen))
    looks, told = sum(int(visit["looks"]) for visit in seen), sum(visit["named"] != "cannot tell" for visit in seen)
    kept = [visits.kept(visit) for visit in seen if visits.promises(visit)]
    again = [
        visits.close(*(float(visit["given_gain"]) for visit in pair))
        for pair in permutations(filter(visits.promises, seen), 2)
        if pair[0]["patient"] == pair[1]["patient"]
    ]
    return (
        f"The doctor named {right} of {len(seen)} rightly. Of {looks} examinations, {looks - told} ended with "
        f"`cannot tell`.\n{sum(kept)} of {len(kept)} promises ({mean(kept):.0%}) were within {visits.TOLERANCE:.0%} of "
        f"the gain when cured. So were {mean(again):.0%} of\nthe gains that another run measured for the same loader."
    )


def patients() -> str:
    """Return each patient's disease, how often it was named, and what its first cure promised and gave."""
    rows = []
    for patient, group in groupby(_visits(), key=lambda visit: visit["patient"]):
        seen = list(group)
        cured = [visit for visit in seen if visits.promises(visit)]
        rows.append(
            [
                patient.replace("_", " "),
                f"`{seen[0]['disease']}`",
                f"{sum(map(visits.right, seen))} of {len(seen)}",
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
