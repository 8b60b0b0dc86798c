"""Say what holds back training on the user's images, and which cures pay. Pure functions of what was measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

from loaderbench.campaign.variant import MAIN, Variant
from loaderbench.doctor.data_case import AGAIN, PRESENT, Case, Way, disk_step
from loaderbench.findings.findings import shown

DataBottleneck = Literal[
    "disk",
    "decoder",
    "image size",
    "float batches",
    "cores",
    "hand-over",
    "too few workers",
    "waiting",
    "model",
    "none",
    "cannot tell",
]
_GAIN = 1.1
"""A way that is faster by less is no cure."""
_UNSTEADY = 1.25
"""If two trials of the present way differ by more, nothing can be said."""
_ELSEWHERE_PCT = 20
"""Nothing can be said either if other programs take more of the cores during a trial of the present way."""
_NEAR = 1.3
"""The lowest limit binds if it is at most this many times the speed."""
_UINT8 = "original-uint8"
"""The contestant that leaves floats and normalising to the device."""
_HAND_OVER, _CORES = "hand-over between processes", "cores"
_SAVING = 0.1
"""A step is named if a way without it saves at least this share of the CPU time."""
_STEPS: tuple[tuple[str, DataBottleneck, str], ...] = (
    ("original-torchvision", "decoder", "PIL takes most of what could be saved: torchvision.io decodes the same files"),
    (
        "copies-pil",
        "image size",
        "The images are larger than training needs: decoding and cropping them takes the time",
    ),
    (_UINT8, "float batches", "Making and handing over float32 batches takes most of what could be saved"),
)
"""Contestants that spare the cores one step of the work, the step, and a sentence for it."""


@dataclass(frozen=True)
class Limit:
    """How fast one part of this machine would allow the present way to be."""

    part: str
    images_per_s: float | None
    note: str = ""


@dataclass(frozen=True)
class DataCure:
    """A way that is faster than the present one on the whole data set."""

    way: Way
    gain: float
    """Speed on the whole data set, in times that of the present way."""
    paid_after_epochs: float | None
    """Epochs after which the conversion has saved as much time as it took; None if that is never, or not known."""
    meets: bool | None
    """Whether it delivers what the training takes; None without a demand."""


@dataclass(frozen=True)
class DataDiagnosis:
    """What holds back training on the user's images, by how much, and what would help."""

    bottleneck: DataBottleneck
    sentence: str
    evidence: tuple[str, ...]
    present: Way | None
    demand: float | None
    images: int
    limits: tuple[Limit, ...]
    cures: tuple[DataCure, ...]
    """Best first."""
    no_cures: tuple[Way, ...]
    """Ways that gain nothing here."""
    missing: tuple[str, ...]
    """What could not be measured, with the reason."""


def diagnose(case: Case) -> DataDiagnosis:
    """Return the diagnosis."""
    present = case.present
    missing = tuple(f"{f.title}: {f.status}: {f.reason}" for f in case.analysis.failures)
    if present is None:
        sentence = "The present way could not be measured, so there is nothing to compare with."
        return DataDiagnosis("cannot tell", sentence, (), None, case.demand, case.images, (), (), (), missing)
    limits = tuple(_limits(case, present))
    ways = sorted(case.others, key=lambda way: _rank(way, case.demand or inf))
    least = max(_GAIN, _unsteadiness(case))
    cures = tuple(_cure(case, present, way) for way in ways if _gain(way, present) >= least)
    bottleneck, sentence, evidence = _decide(case, present, limits, cures)
    return DataDiagnosis(
        bottleneck=bottleneck,
        sentence=sentence,
        evidence=tuple(evidence),
        present=present,
        demand=case.demand,
        images=case.images,
        limits=limits,
        cures=() if bottleneck == "cannot tell" else cures,
        no_cures=() if bottleneck == "cannot tell" else tuple(way for way in ways if _gain(way, present) < least),
        missing=missing,
    )


def _rank(way: Way, demand: float) -> tuple[float, ...]:
    """Return the key that puts the best way first: speed as far as training takes it, conversion, disk, speed."""
    conversion_s = inf if way.conversion_s is None else way.conversion_s
    return -min(way.expected_images_per_s, demand), conversion_s, way.size_bytes, -way.expected_images_per_s


def _gain(way: Way, present: Way) -> float:
    return way.expected_images_per_s / present.expected_images_per_s


def _unsteadiness(case: Case) -> float:
    """Return the ratio of the faster to the slower trial of ImageFolder; 1 if one is missing."""
    speeds = _repeated(case)
    return max(speeds) / min(speeds) if len(speeds) > 1 else 1.0


def _repeated(case: Case) -> list[float]:
    return [s.median for s in map(case.summary, (PRESENT, AGAIN)) if s]


def _cure(case: Case, present: Way, way: Way) -> DataCure:
    speeds = [each.expected_images_per_s for each in (present, way)]
    if case.demand:  # training takes no more
        speeds = [min(speed, case.demand) for speed in speeds]
    saved_s = case.images / speeds[0] - case.images / speeds[1]
    paid = way.conversion_s / saved_s if way.conversion_s is not None and saved_s > 0 else None
    meets = way.expected_images_per_s >= case.demand if case.demand else None
    return DataCure(way, _gain(way, present), paid, meets)


def _limits(case: Case, present: Way) -> Iterator[Limit]:
    """Yield the limits of the present way, in the order in which an image meets them."""
    limits, absent = case.analysis.limits, case.analysis.limits_missing
    disk_bytes_per_s, step = case.disk_bytes_per_s(present.format), disk_step(present.format)
    disk = disk_bytes_per_s * case.images / present.size_bytes if disk_bytes_per_s and present.size_bytes else None
    read = "the copy in the cache, not the bucket itself" if case.bucket else "the files where they are"
    yield Limit("disk or network", disk, absent.get(step, f"{read}; nothing in memory before"))
    prefix = "original " if case.formats[present.format]["mode"] == "original" else ""
    decode, both = limits.get(f"{prefix}decode"), limits.get(f"{prefix}decode+crop")
    crop = 1 / (1 / both - 1 / decode) if decode and both and both < decode else None
    yield Limit("decoding", decode, "all cores, libjpeg-turbo's fastest methods")
    yield Limit("crop and resize", crop, "all cores, OpenCV; from the time of decoding with and without it")
    yield Limit("transforms", _transforms(case, present), "all cores; from the CPU time that uint8 batches save")
    yield Limit("writing batches", limits.get("output"), "all cores, finished float32 images")
    yield Limit(_HAND_OVER, limits.get("transfer"), "float32 batches made from nothing")
    yield Limit("copy to the device", limits.get("host-to-device"), absent.get("host-to-device", "page-locked memory"))
    sizes = f"{_gib(present.size_bytes)} of files, {_gib(case.memory_bytes)} of memory"
    yield Limit("memory", None, f"{sizes}: {'only the first epoch reads' if present.fits else 'every epoch reads'}")
    yield Limit(_CORES, _all_cores(case, present), "the present way, if all cores were busy")


def _transforms(case: Case, present: Way) -> float | None:
    """Return images/s that all cores would make normalised float32 of; None if that takes no time that shows."""
    costs_s, cores = _cpu_s(case), _all_cores(case, present)
    if case.now != PRESENT or not cores or not {PRESENT, _UINT8} <= costs_s.keys():
        return None
    share = 1 - costs_s[_UINT8] / costs_s[PRESENT]
    return cores / share if share > 0 else None


def _cpu_s(case: Case) -> dict[str, float]:
    """Return the CPU time of each way for 1,000 images, in seconds."""
    return {s.name: cost for s in case.analysis.measured if (cost := s.medians.get("cpu_s_per_1k_images"))}


def _all_cores(case: Case, present: Way) -> float | None:
    summary = case.summary(present.name)
    load_pct = summary.medians.get("cpu_load_pct") if summary else None
    return 100 * present.images_per_s / load_pct if load_pct else None


_Decision = tuple[DataBottleneck, str, list[str]]


def _decide(case: Case, present: Way, limits: tuple[Limit, ...], cures: tuple[DataCure, ...]) -> _Decision:
    evidence, speed = _general(case, present), present.expected_images_per_s
    if doubt := _doubt(case, present):
        return "cannot tell", doubt[0], [doubt[1], *evidence]
    evidence += _needed(case, present, cures)
    if case.demand and speed >= case.demand:
        return "model", "Your model, not your data: the present way delivers all that training takes.", evidence
    if not cures:
        return "none", "Nothing to gain here: no way that was tried is faster than the present one.", evidence
    if speed < present.images_per_s:
        told = f"{_gib(present.size_bytes)} of files do not stay in {_gib(case.memory_bytes)} of memory"
        return "disk", "Every epoch comes from the disk or the network, which takes the time.", [told, *evidence]
    return _in_memory(case, speed, {one.part: one.images_per_s for one in limits}, cures, evidence)


def _doubt(case: Case, present: Way) -> tuple[str, str] | None:
    """Return why nothing can be said, and the evidence; None if something can."""
    again = "The machine is too unsteady to tell: run again while it is idle."
    if case.now == PRESENT and len(_repeated(case)) < 2:  # noqa: PLR2004 - two can differ
        return "Nothing shows how steady the machine is: run again.", "the present way ran once instead of twice"
    if (ratio := _unsteadiness(case)) > _UNSTEADY:
        return again, f"two trials of the present way differ by {100 * (ratio - 1):.0f}%"
    names, counted = {PRESENT, AGAIN, case.now}, case.analysis.counted
    flagged = [row for row, _ in case.analysis.flagged if row.trial in counted and Variant.of(row) == MAIN]
    rows = [row for row in flagged if row.contestant in names]
    elsewhere = max(((row.other_cpu_pct or 0) + (row.steal_pct or 0) for row in rows), default=0)
    if elsewhere > _ELSEWHERE_PCT:
        return again, f"other programs took {elsewhere:.0f}% of the cores from the present way"
    if not present.fits and disk_step(present.format) not in case.analysis.limits:
        return "The data does not stay in memory, and the disk could not be measured.", "no speed of the disk"
    return None


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:,.1f} GiB"


def _in_memory(
    case: Case, speed: float, limits: Mapping[str, float | None], cures: tuple[DataCure, ...], evidence: list[str]
) -> _Decision:
    """Return the verdict if the data comes from memory: the lower of the two limits that the present way can reach."""
    cores, handed = limits[_CORES] or inf, limits[_HAND_OVER] or inf
    if min(cores, handed) > _NEAR * speed:
        return _idle(cures, evidence)
    if cores <= handed:
        return _busy(case, evidence)
    told = f"{shown(handed)} images/s are the most that workers hand over as float32"
    return "hand-over", "Handing float32 batches from the workers to training takes the time.", [told, *evidence]


def _general(case: Case, present: Way) -> list[str]:
    """Return the evidence that every verdict has: the speed, and how busy the cores were."""
    found = [f"{shown(present.images_per_s)} images/s in the present way, from memory"]
    if present.expected_images_per_s < present.images_per_s:
        found.append(f"{shown(present.expected_images_per_s)} images/s from the disk")
    summary = case.summary(present.name)
    if summary and "cpu_load_pct" in summary.medians:
        found.append(f"{summary.medians['cpu_load_pct']:.0f}% of the cores busy")
    return found


def _needed(case: Case, present: Way, cures: tuple[DataCure, ...]) -> list[str]:
    """Return what the demand says of the present way and of the cures; nothing without one."""
    if not case.demand:
        return []
    share = min(1.0, present.expected_images_per_s / case.demand)
    told = f"{case.trained} takes {shown(case.demand)} images/s: it runs at {share:.0%} of its speed"
    none_is = [] if share == 1 or any(cure.meets for cure in cures) else ["no way that was tried is enough"]
    return [told, *none_is]


def _idle(cures: tuple[DataCure, ...], evidence: list[str]) -> _Decision:
    """Return the verdict if neither the cores nor the hand-over are near their limit."""
    if any((cure.way.workers or 0) > 1 for cure in cures):
        return "too few workers", "The present way has too few workers: cores are idle.", evidence
    return (
        "waiting",
        "Neither the cores nor the hand-over bind: the workers wait, for example for each other.",
        evidence,
    )


def _busy(case: Case, evidence: list[str]) -> _Decision:
    """Return the verdict if the cores bind: the step by which a way saves most CPU time."""
    costs = _cpu_s(case)
    if (now := costs.get(PRESENT)) and case.now == PRESENT:
        saved = {step: 1 - costs[step[0]] / now for step in _STEPS if step[0] in costs}
        best = max(saved, key=lambda step: saved[step], default=None)
        if best and saved[best] >= _SAVING:
            title = next(s.title for s in case.analysis.measured if s.name == best[0])
            told = f"{title}: {saved[best] * now:.2f} of {now:.2f} ms of CPU time for an image are saved"
            return best[1], f"{best[2]}.", [*evidence, told]
    return "cores", "All cores are busy, and no single step stands out: fewer steps or more cores are needed.", evidence
