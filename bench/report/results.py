"""Sections on what loaders deliver: speed, the same work, published ratios, tuning, training, and data in S3."""

from collections.abc import Iterable, Iterator
from typing import Any

from markupsafe import Markup

from loaderbench.campaign.tuning import MARGIN
from loaderbench.findings import publication, verdicts
from loaderbench.findings.comparison import RANKING_BLOCKS
from loaderbench.findings.crossover import Crossover
from loaderbench.findings.findings import ConsumerSummary, TransportSummary, TunedSummary
from loaderbench.findings.training import UnderLightning
from loaderbench.records import certificates
from loaderbench.records.certificates import WHOLE_SET, Certificate
from loaderbench.report.first_screen import limit_share
from loaderbench.report.markdown import cell, formatted, interval, medians, speed_range, verbatim
from loaderbench.report.material import Material

_MB = 1e6
_EQUAL_DB = 99
"""PSNR that certificates give images that are equal in every bit."""
_TRAITS = ("stored", "crops of", "resampling")
_SHUFFLE = (
    "batch_spread",
    "displacement",
    "new_companions",
    "neighbours_kept",
    "crop_area_distance",
    "crop_aspect_distance",
    "crop_horizontal_position_distance",
    "crop_vertical_position_distance",
    "same_next_epoch_share",
    "same_in_other_batch_share",
)
"""Figures of shuffling and augmentation in a certificate, in the order of the table."""


def results(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on how fast each contestant is, and how sure that is."""
    found = material.analysis
    if not found.measured:
        return None
    tests = []
    for s in found.measured:
        tested = "" if s.unranked_reason else verdicts.tested(s.reference)
        tests.append([s.title, len(s.speeds), tested, s.medians.get("epoch1_images_per_s"), s.memory_format])
    return {
        "tests": tests,
        "descriptive": found.descriptive,
        "ranking_blocks": RANKING_BLOCKS,
        "limited": bool(material.campaign.get("limited")),
        "least_difference_pct": 100 * found.least_difference,
        "unranked": any(s.unranked_reason for s in found.measured),
    }


def processes(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on several jobs or ranks."""
    if not material.process_noun:
        return None
    columns = ("images_per_s", "slowest_rank_images_per_s", "fairness", "anon_memory_mib", "file_backed_mib")
    shares = [(s.title, *medians(s, *columns)) for s in material.analysis.measured]
    return {"shares": shares, "noun": material.process_noun, "processes": material.processes}


def work(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on what work each contestant was seen to do, by its certificate."""
    certified = material.certified
    if not certified:
        return None
    seen = [(s.title, s, certified[s.name]) for s in material.analysis.summaries if s.name in certified]
    seen += [
        (f"{b.tuned.title}, tuned", b.tuned, one)
        for b in material.analysis.tuned
        if (one := certified.get(certificates.tuned(b.tuned.name)))
    ]
    return {
        "kinds": [(title, s.apart or "the same", *_kind(one)) for title, s, one in seen],
        "shuffle": [row for title, _, one in seen for row in _orders(title, one)],
        "seen_on": "; ".join(dict.fromkeys(one.seen_on for _, _, one in seen if one.seen_on)) or "nothing",
    }


def _orders(title: str, certificate: Certificate) -> Iterator[list[object]]:
    """Yield the row on the probe, and one on all images if the loader shuffles only parts of them together."""
    yield [title, *map(certificate.figures.get, _SHUFFLE)]
    if any(name.startswith(WHOLE_SET) for name in certificate.figures):
        yield [f"{title}, all images", *(certificate.figures.get(WHOLE_SET + name) for name in _SHUFFLE)]


def _kind(certificate: Certificate) -> list[object]:
    """Return the cells that say how a contestant does the work."""
    traits, figures = certificate.traits, certificate.figures
    own, common, flipped = map(figures.get, ("own_psnr_db", "common_psnr_db", "flipped_share"))
    common_shift = formatted("{} ({})", _psnr(common), figures.get("shift_px"))
    shares = [_psnr(own), common_shift, None if flipped is None else 100 * flipped]
    return [*map(traits.get, _TRAITS), *shares, traits.get("order by seed"), traits.get("memory of a batch")]


def _psnr(value: float | None) -> object:
    return "equal" if value == _EQUAL_DB else value


def published(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on a published comparison, and on what each change of the set-up was worth."""
    found = material.analysis
    if not found.replications and not found.setup_effects:
        return None
    ratios = []
    for p in found.replications:
        own = [_by_epoch(p.ratios, "\N{MULTIPLICATION SIGN}"), interval(p.measured), interval(p.equal)]
        if p.name == found.reference:
            own = [cell("1 (reference)")] * len(own)
        ratios.append((p.title, _by_epoch(p.images_per_s), *own, p.bytes_per_image, p.stored_bytes))
    effects = []
    for e in found.setup_effects:
        speed, verdict = interval(e.comparison), verdicts.tested(e.comparison)
        effects.append([e.what, e.before, e.after, speed, verdict, e.bytes_before, e.bytes_after])
    reference = next((s.title for s in found.summaries if s.name == found.reference), found.reference)
    source = (material.campaign["published"] or {}).get("source")
    contradicted = list(publication.contradicted(found))
    return {
        "ratios": ratios,
        "contradicted": contradicted,
        "effects": effects,
        "source": source,
        "reference": reference,
    }


def _by_epoch(figures: Iterable[float], unit: str = "") -> Markup:
    return verbatim(" / ".join(f"{cell(figure)}{unit}" for figure in figures)) or cell(None)


def tuning(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on what tuning gains."""
    found = material.analysis
    if not found.tuned:
        return None
    search = material.campaign["tuning"]
    heading, places = verdicts.places([b.tuned for b in found.tuned])
    gains = []
    for b in found.tuned:
        speeds = [b.shared.medians.get("images_per_s"), speed_range(b.tuned)]
        gain = [interval(b.gain), verdicts.tested(b.gain), _changed(b)]
        memory_mib = _budgeted(b, search["memory_mib"])
        gains.append([places[b.tuned.name], b.tuned.title, *speeds, *gain, memory_mib, limit_share(b.tuned)])
    return {
        "place": heading,
        "gains": gains,
        "tried": [(b.tuned.title, _tried(b)) for b in found.tuned],
        "search": search,
        "margin_pct": f"{100 * MARGIN:g}",
        "cores": f"{material.cores:g}",
    }


def _budgeted(b: TunedSummary, budget_mib: float | None) -> object:
    used_mib = b.tuned.medians.get("anon_memory_mib")
    over = budget_mib and used_mib and used_mib > budget_mib
    return formatted("{} (over the budget)", used_mib) if over else used_mib


def _changed(b: TunedSummary) -> str:
    if b.search.gains:
        return "; ".join(map(str, b.search.gains))
    return "none: its own were the best found" if b.search.settings else "none keeps to the memory budget"


def _tried(b: TunedSummary) -> str:
    steps = "; ".join(map(str, b.search.steps)) or "nothing yet"
    disturbed = f", of which {b.search.disturbed} disturbed" if b.search.disturbed else ""
    return f"{steps}; {b.search.ended or 'unfinished'} ({verdicts.counted(len(b.search.rows), 'trial')}{disturbed})."


def accelerator(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on feeding an emulated accelerator."""
    paced = [f.summary for f in material.analysis.by_consumer if f.consumer == "paced"]
    demands = [(s.title, s.medians.get("fed_images_per_s") or s.trouble, *medians(s, "images_per_s")) for s in paced]
    return {"demands": demands} if demands else None


def training(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on training."""
    trained = [f for f in material.analysis.by_consumer if f.consumer in {"train", "lightning"}]
    if not trained:
        return None
    noun = material.process_noun
    slowest = ["slowest_rank_images_per_s"] if noun else []
    steps = ("warm_cached_images_per_s", "stall_vs_warm_cached_pct", "starved_pct", "step_p50_ms")
    speeds = []
    for f in trained:
        own = [f.summary.medians.get("images_per_s") or f.summary.trouble, *medians(f.summary, *slowest, *steps)]
        waits = medians(f.summary, "wait_p50_ms", "wait_p95_ms", "wait_p99_ms")
        speeds.append([_trained_title(f), *own, *waits, _loss(f, "loss_first"), _loss(f, "loss_last")])
    copied = [f for f in trained if "copy_p50_ms" in f.summary.medians]
    blocks = {_CONSUMERS[f.consumer]: f.loss_blocks for f in trained}
    return {
        "speeds": speeds,
        "noun": noun,
        "copies": [(_trained_title(f), *medians(f.summary, "copy_p50_ms", "copy_overlap_pct")) for f in copied],
        "losses": [(consumer, verdicts.losses(compared)) for consumer, compared in blocks.items()],
        "lightning": [_lightning_row(one, trained) for one in material.analysis.lightning],
        "gpu": bool(material.env["gpu"]),
    }


_CONSUMERS = {"train": "In plain PyTorch", "lightning": "Under Lightning"}


def _trained_title(f: ConsumerSummary) -> str:
    return f"{f.summary.title}, under Lightning" if f.consumer == "lightning" else f.summary.title


def _loss(f: ConsumerSummary, column: str) -> object:
    value = f.summary.medians.get(column)
    return formatted("{} (**outlier**)", value) if column in f.outlier_losses else value


def _lightning_row(one: UnderLightning, trained: Iterable[ConsumerSummary]) -> tuple[object, ...]:
    of = {f.consumer: f.summary for f in trained if f.summary.name == one.contestant}
    mean, low, high = one.added_ms
    added_ms = mean if low is None else formatted("{} [{} to {}]", mean, low, high)
    return of["train"].title, of["train"].median, of["lightning"].median, interval(one.ratio), added_ms


def bucket(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on data in S3."""
    found, stream = material.analysis, material.campaign.get("stream")
    if not found.by_transport or not stream:
        return None
    return {
        "times": [_transport_row(f, stream["cache_mib"]) for f in found.by_transport],
        "crossovers": [_crossover_row(c) for c in found.crossovers],
        "stream": stream,
        "bucket": material.env["data"].get("bucket"),
    }


def _transport_row(f: TransportSummary, bound_mib: float) -> list[object]:
    download_s, epoch2_s, most, end = medians(f.summary, "download_s", "epoch2_s", "cache_peak_mib", "cache_end_mib")
    first_batch = f.first_batch_s if f.curves else f.summary.trouble
    received = medians(f.summary, "network_bytes", "network_epoch1_bytes", "network_epoch2_bytes")
    received_mb = [None if size is None else size / _MB for size in received]
    state = "within" if f.bound_held else "over"
    kept = most if f.bound_held is None else formatted("{} ({} its {})", most, state, bound_mib)
    times = [download_s, first_batch, f.epoch1_end_s, epoch2_s, f.later_images_per_s]
    return [f.title, *times, *received_mb, kept, end]


def _crossover_row(c: Crossover) -> tuple[object, ...]:
    blocks = f"{c.blocks} of {c.of_blocks}"
    if not (point := c.point):
        return c.first, f"never by {c.second}", None, None, None, "the speeds after epoch 1", blocks
    known = point.certainty + ("" if point.lasting else ", until the measured end")
    return c.first, c.second, point.seconds, point.images, point.epoch, known, blocks
