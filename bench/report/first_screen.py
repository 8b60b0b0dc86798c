"""First screen: the answer, how sure it is, its price, its limit, the caveats, and the table of contestants."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from loaderbench.campaign.pixel_values import delivers
from loaderbench.findings import keeping_busy, publication, verdicts
from loaderbench.findings.findings import Analysis, ContestantSummary
from loaderbench.report.markdown import formatted, interval, medians, speed_range
from loaderbench.report.material import Material


class Point(NamedTuple):
    """One line of the first screen: a name, a sentence, and the sections that have the details."""

    name: str
    sentence: str
    sections: tuple[str, ...] = ()


def first_screen(material: Material) -> dict[str, Any]:
    """Return the values of the first screen."""
    found = material.analysis
    heading, places = verdicts.places(found.summaries)
    return {
        "question": material.campaign["question"],
        "headline": keeping_busy.headline(found) or verdicts.headline(found),
        "points": [point for point in _points(material) if point.sentence],
        "place": heading,
        "contestants": list(_contestants(found, places)),
    }


def _points(material: Material) -> list[Point]:
    found, stream = material.analysis, material.campaign.get("stream") or {}
    drained = "".join(verdicts.headline(found)) if keeping_busy.headline(found) else ""
    return [
        Point("Preliminary", verdicts.preliminary(found)),
        Point("Controls failed", verdicts.controls_failed(found), ("controls",)),
        Point("Confidence", verdicts.confidence(found), ("results",)),
        Point("Without training", drained, ("results",)),
        Point("Published", publication.published(found), ("published",)),
        Point("Tuned", verdicts.tuned(found), ("tuning",)),
        Point("Accelerator", verdicts.accelerator(found), ("accelerator",)),
        Point("Training", verdicts.training(found), ("training",)),
        Point("Data in S3", verdicts.bucket(found, stream.get("epochs", 1)), ("bucket",)),
        Point("Price", verdicts.price(found), ("costs",)),
        Point("Machine limit", verdicts.machine_limit(found), ("limits",)),
        Point("Set-up", f"{'; '.join(setup(material))}.", ("conditions",)),
        Point("Harness", verdicts.harness(found), ("controls", "noise")),
        Point("Beyond the machine limit", verdicts.beyond_limit(found), ("limits",)),
        Point("Not ranked", verdicts.unranked(found), ("work",)),
        Point("No certificates", verdicts.unchecked(found)),
        Point("No speed", verdicts.unmeasured(found) if found.measured else "", ("failures",)),
    ]


def setup(material: Material) -> list[str]:
    """Return what was measured on what, in short parts."""
    host, data, work = material.env["host"], material.env["data"], material.campaign["work"]
    processes = f" in each of {material.processes} {material.process_noun}s" if material.process_noun else ""
    return [
        f"{' '.join(host['cpu'].split())}, {material.cores:g} cores, {material.env['gpu'] or 'no GPU'}",
        f"{data['samples']:,} images ({data['origin']})",
        f"{work['image_size']} px crop and flip, {delivers(work)}",
        f"batches of {work['batch_size']}, {verdicts.counted(material.workers, 'worker')}{processes}",
    ]


def _contestants(analysis: Analysis, places: Mapping[str, str]) -> Iterator[list[object]]:
    """Yield a row for each contestant: ranked ones first, then unranked ones, then those without a speed."""
    for s in analysis.summaries if analysis.measured else ():
        ratio = "1 (reference)" if s.name == analysis.reference else interval(s.reference)
        costs = medians(s, "start_s", "cpu_s_per_1k_images", "anon_memory_mib", "bytes_per_image")
        yield [places[s.name], s.title, speed_range(s), ratio, limit_share(s), *costs]


def limit_share(s: ContestantSummary) -> object:
    """Return the share of the machine limit, and the step that sets it."""
    share = s.medians.get("pct_of_bound")
    return formatted("{} ({})", share, s.bound_by) if share is not None and s.bound_by else share
