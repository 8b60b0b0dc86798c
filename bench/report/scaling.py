"""The sections on several numbers of workers: speed, and how busy a GPU in training is kept."""

from typing import Any

from loaderbench.findings.keeping_busy import BUSY_STALL_PCT, trained
from loaderbench.report.first_screen import limit_share
from loaderbench.report.markdown import medians, speed_range
from loaderbench.report.material import Material


def scaling(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on speed; None if no contestant ran with several numbers of workers."""
    curves = [curve for curve in material.analysis.scaling if not curve.trains]
    if not curves:
        return None
    points = []
    for curve in curves:
        fewest = next((point.median for point in curve.points.values() if point.speeds), None)
        for workers, point in curve.points.items():
            times = point.median / fewest if point.speeds and fewest else None
            costs = medians(point, "cpu_s_per_1k_images", "cores_used")
            points.append([curve.main.title, workers, speed_range(point), times, *costs, limit_share(point)])
    return {"readings": [(curve.main.title, curve.reading) for curve in curves], "points": points}


def keeping_busy(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on training; None if none ran with several numbers of workers."""
    curves = trained(material.analysis)
    if not curves:
        return None
    columns = ("starved_pct", "stall_vs_warm_cached_pct", "cores_used", "cpu_s_per_1k_images")
    points = []
    for curve in curves:
        for workers, point in curve.points.items():
            points.append([curve.main.title, workers, speed_range(point), *medians(point, *columns)])
    readings = [(curve.main.title, curve.reading) for curve in curves]
    return {"readings": readings, "points": points, "busy_stall_pct": BUSY_STALL_PCT}
