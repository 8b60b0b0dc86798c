"""State with how many workers each loader keeps the device that trains busy."""

from collections.abc import Iterable, Mapping

from loaderbench.findings.findings import Analysis, ContestantSummary, ScalingCurve, shown
from loaderbench.findings.verdicts import Headline, against_cached, counted

BUSY_STALL_PCT = 5
"""A device that waits for data for at most this share of the time, in %, is kept busy."""
Points = Mapping[int, ContestantSummary]
"""Trainings of one contestant by number of workers, ascending."""


def reading(points: Points) -> str:
    """Return with how many workers a contestant keeps the device busy, or how far it is from that."""
    if not stalls_pct(points):
        return "Its data stall in training was not measured."
    device, enough = _device(points.values()), _enough(points)
    workers = enough or _best(points)
    claim = f"It keeps {device} busy with" if enough else f"It does not keep {device} busy: at best, with"
    point = points[workers]
    speed = ", ".join(filter(None, [f"{shown(point.median)} images/s", against_cached(point)]))
    return f"{claim} {_number(points, workers)}, the data stall is {shown(point.medians['starved_pct'])} %; {speed}."


def headline(analysis: Analysis) -> Headline | None:
    """Return which contestant keeps the device busy with the fewest workers, and what the others take.

    Contestants that are not ranked are left out. None if no other one trained with several numbers of workers.
    """
    curves = [c for c in trained(analysis) if stalls_pct(c.points) and not c.main.unranked_reason]
    if not curves:
        return None
    device = _device(point for curve in curves for point in curve.points.values())
    enough = [(workers, curve) for curve in curves if (workers := _enough(curve.points))]
    enough.sort(key=lambda pair: (pair[0], pair[1].points[pair[0]].medians.get("cores_used", 0)))
    takes = [f"{curve.main.title} takes {_number(curve.points, workers)}" for workers, curve in enough[1:]]
    lacks = [_lacks(curve) for curve in curves if not _enough(curve.points)]
    if not enough:
        return Headline(f"No loader keeps {device} busy in training", f": {'; '.join(lacks)}.")
    workers, first = enough[0]
    so_far = " so far" if analysis.recorded < analysis.planned else ""
    claim = f"{first.main.title} keeps {device} busy in training with {_number(first.points, workers)}{so_far}"
    return Headline(claim, "".join(f"; {said}" for said in [*takes, *lacks]) + ".")


def trained(analysis: Analysis) -> list[ScalingCurve]:
    """Return the curves of the contestants that trained with several numbers of workers."""
    return [curve for curve in analysis.scaling if curve.trains]


def stalls_pct(points: Points) -> dict[int, float]:
    """Return the measured data stalls by number of workers."""
    return {n: p.medians["starved_pct"] for n, p in points.items() if p.speeds and "starved_pct" in p.medians}


def _enough(points: Points) -> int | None:
    """Return the smallest number of workers that keeps the device busy."""
    return next((workers for workers, stall_pct in stalls_pct(points).items() if stall_pct <= BUSY_STALL_PCT), None)


def _best(points: Points) -> int:
    """Return the number of workers with the shortest data stall."""
    stalls = stalls_pct(points)
    return min(stalls, key=lambda workers: stalls[workers])


def _lacks(curve: ScalingCurve) -> str:
    """Return how long the device waits for a contestant that does not keep it busy."""
    workers = _best(curve.points)
    stall = shown(curve.points[workers].medians["starved_pct"])
    return (
        f"{curve.main.title} leaves it waiting for {stall} % of the time at best, with {_number(curve.points, workers)}"
    )


def _number(points: Points, workers: int) -> str:
    """Return a number of workers, and how many cores the trial used with it."""
    cores = points[workers].medians.get("cores_used")
    return counted(workers, "worker") + ("" if cores is None else f" ({shown(cores)} cores)")


def _device(points: Iterable[ContestantSummary]) -> str:
    """Return how the device that trains is called."""
    return "this GPU" if any("gpu_starved_pct" in point.medians for point in points) else "this CPU"
