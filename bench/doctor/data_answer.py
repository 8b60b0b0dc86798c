"""Write a diagnosis of data as one page and one picture."""

from collections.abc import Iterator
from pathlib import Path

from loaderbench.doctor.answer import page, times
from loaderbench.doctor.data_case import Way
from loaderbench.doctor.data_verdict import DataCure, DataDiagnosis
from loaderbench.machine.disk import size
from loaderbench.report.plots import cures as picture

ANSWER, PICTURE = "answer.md", "cures.png"
_MINUTE_S, _HOUR_S = 60, 3600


def write(diagnosis: DataDiagnosis, origin: str, machine: str, folder: Path) -> Path:
    """Write the page and its picture into a folder, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PICTURE).unlink(missing_ok=True)
    if diagnosis.present and (diagnosis.cures or diagnosis.no_cures):
        picture.draw(
            _speeds(diagnosis, diagnosis.present), diagnosis.demand, "What each cure gives", machine, folder / PICTURE
        )
    answer = folder / ANSWER
    answer.write_text(text(diagnosis, origin, machine), encoding="utf-8")
    return answer


def text(diagnosis: DataDiagnosis, origin: str, machine: str) -> str:
    """Return the page. `origin`: the user's name for the images. `machine`: the machine and the sample, in one line."""
    ways = list(_titled(diagnosis))
    return page(
        "doctor_data.md.j2",
        of=f"training on {origin}",
        machine=machine,
        diagnosis=diagnosis,
        picture=PICTURE,
        missing=diagnosis.missing,
        limits=[(one.part, one.images_per_s, one.note) for one in diagnosis.limits],
        speeds=[[title, *_speed(way, diagnosis, cure)] for title, way, cure in ways],
        costs=[[title, *_costs(way)] for title, way, _ in ways],
        nothing=", ".join(f"{way.title} ({_times(way, diagnosis)})" for way in diagnosis.no_cures),
    )


def _titled(diagnosis: DataDiagnosis) -> Iterator[tuple[str, Way, DataCure | None]]:
    """Yield the present way, then the cures, best first, with the titles of their rows."""
    if diagnosis.present and (diagnosis.cures or diagnosis.no_cures):
        yield f"now: {diagnosis.present.title}", diagnosis.present, None
    for place, cure in enumerate(diagnosis.cures, 1):
        yield f"{place}. {cure.way.title}", cure.way, cure


def _speed(way: Way, diagnosis: DataDiagnosis, cure: DataCure | None) -> list[object]:
    demand, speed = diagnosis.demand, way.expected_images_per_s
    enough = [] if demand is None else ["yes" if speed >= demand else "no"]
    conversion = "none" if way.conversion_s == 0 else _duration(way.conversion_s)
    return [speed, _times(way, diagnosis), *enough, conversion, _epochs(cure)]


def _costs(way: Way) -> list[object]:
    disk = size(way.size_bytes) + ("" if way.fits else ", more than memory")
    memory = None if way.memory_mib is None else size(way.memory_mib * 2**20)
    start = None if way.start_s is None else f"{way.start_s:.1f} s"
    return [disk, memory, start, way.pixels]


def _times(way: Way, diagnosis: DataDiagnosis) -> str:
    assert diagnosis.present
    return times(way.expected_images_per_s / diagnosis.present.expected_images_per_s)


def _epochs(cure: DataCure | None) -> str:
    """Return after how many epochs a conversion has paid for itself."""
    if cure is None or cure.way.conversion_s == 0:
        return ""
    if cure.paid_after_epochs is None:
        return "never" if cure.way.conversion_s is not None else ""
    return f"{max(cure.paid_after_epochs, 0.1):,.1f} epochs"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE_S:.0f} min" if seconds < 2 * _HOUR_S else f"{seconds / _HOUR_S:.1f} h"


def _speeds(diagnosis: DataDiagnosis, present: Way) -> list[picture.Speed]:
    """Return the bars of the picture: the present way, the cures, and what gains nothing."""
    ways = [present, *(cure.way for cure in diagnosis.cures), *diagnosis.no_cures]
    return [
        picture.Speed(
            way.title,
            way.expected_images_per_s,
            way.limit_images_per_s if way.expected_images_per_s == way.images_per_s else None,
            "now" if way is present else _times(way, diagnosis),
            present=way is present,
        )
        for way in ways
    ]
