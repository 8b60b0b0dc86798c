"""The section on speed by number of workers."""

from typing import Any

from loaderbench.report.first_screen import limit_share
from loaderbench.report.markdown import medians, speed_range
from loaderbench.report.material import Material


def scaling(material: Material) -> dict[str, Any] | None:
    """Return the values of the section; None if no contestant ran with several numbers of workers."""
    curves = material.analysis.scaling
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
