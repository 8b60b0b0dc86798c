"""Tables and sentences in docs/ with figures of the reference campaigns; `front_page.py` says how they get there."""

from __future__ import annotations

from reference import (
    EN_DASH,
    FORMATS,
    JOBS,
    LARGER,
    PR572,
    QUICK,
    SCALING,
    STREAM,
    TIMES,
    TRAIN,
    analysis,
    certificates,
    env,
    interval,
    table,
)

from loaderbench.findings import disk_reads, frontier, publication, verdicts
from loaderbench.findings.findings import ScalingCurve, TransportSummary, shown
from loaderbench.findings.scaling import GROWS


def published() -> str:
    """Return the published comparison beside what was measured here."""
    head = ["Contestant", "Published, by epoch", "Measured, set up as published", "Measured, equal settings"]
    return table(
        head,
        (
            [p.title, " / ".join(f"{shown(r)}{TIMES}" for r in p.ratios), *(interval(r) for r in (p.measured, p.equal))]
            for p in analysis(PR572).replications
        ),
        numbers_from=1,
    )


def setup_effects() -> str:
    """Return what each difference in the set-up of the published comparison was worth."""
    head = ["Change of the set-up", "Speed after the change", "Verdict", "Bytes per image"]
    rows = []
    for change in analysis(PR572).setup_effects:
        worth = change.comparison
        assert worth
        verdict = worth.verdict + (f" (p {worth.p:.2f})" if worth.p is not None else "")
        sizes = {shown(b) for b in (change.bytes_before, change.bytes_after) if b is not None}
        both = (
            f"{shown(change.bytes_before or 0)} → {shown(change.bytes_after or 0)}"
            if len(sizes) > 1
            else "".join(sizes)
        )
        rows.append([change.what, interval(worth.ratio), verdict, both])
    return table(head, rows, numbers_from=3)


def shares_of_limits() -> str:
    """Return how close each ranked loader of `quick` comes to the limit of this machine."""
    found = analysis(QUICK)
    rows = (
        [s.title, shown(s.median), s.bound_by, shown(s.medians["bound_ips"]), f"{s.medians['pct_of_bound']:.0f}%"]
        for s in found.measured
    )
    return table(
        ["Contestant", "Images/s", "Slowest required step", "Its limit, images/s", "Share"], rows, numbers_from=3
    )


def pixels() -> str:
    """Return how the pixels that each contestant of `quick` delivers differ, by its certificate."""
    rows = []
    for s in analysis(QUICK).measured:
        seen = certificates(QUICK)[s.name]
        psnr_db = seen.figures["common_psnr_db"]
        equal = psnr_db == 99
        rows.append([s.title, seen.traits["crops of"], seen.traits["resampling"], "equal" if equal else shown(psnr_db)])
    return table(["Contestant", "Crops of", "Resampling", "PSNR, dB"], rows, numbers_from=3)


def feeding() -> str:
    """Return the highest demand that each loader meets, beside what it delivers to the drain consumer."""
    found = analysis(TRAIN)
    rows = (
        [
            f.summary.title,
            shown(f.summary.medians["fed_images_per_s"]),
            shown(f.summary.median),
        ]
        for f in found.by_consumer
        if f.consumer == "paced"
    )
    head = [
        "Contestant",
        "Highest demand with the accelerator 90% busy, images/s",
        "Delivered to the drain consumer, images/s",
    ]
    return table(head, rows, numbers_from=1)


def training() -> str:
    """Return training with each loader, in plain PyTorch and under Lightning."""
    found = analysis(TRAIN)
    added = {under.contestant: under for under in found.lightning}
    rows = [
        [
            f.summary.title,
            shown(f.summary.median),
            f"{f.summary.medians['stall_vs_warm_cached_pct']:.0f}%",
            interval(added[f.summary.name].ratio) if f.summary.name in added else EN_DASH,
        ]
        for f in found.by_consumer
        if f.consumer == "train"
    ]
    head = [
        "Contestant",
        "ResNet-18, images/s",
        "Slower than on one cached batch",
        "Under Lightning, over plain PyTorch",
    ]
    return table(head, rows, numbers_from=1)


def jobs() -> str:
    """Return two jobs at once on the same data."""
    rows = (
        [
            s.title,
            shown(s.median),
            shown(s.medians["slowest_rank_images_per_s"]),
            shown(s.medians["anon_memory_mib"]),
        ]
        for s in analysis(JOBS).ranked
    )
    head = ["Contestant", "Images/s of both jobs", "Slower job", "Memory of both without the page cache, MiB"]
    return table(head, rows, numbers_from=1)


def streaming() -> str:
    """Return when each contestant has its first batch and its epochs, with the data in a bucket."""
    head = [
        "Contestant",
        "First batch, s",
        "Epoch 1 over, s",
        "All epochs over, s",
        "Images/s after epoch 1",
        "MB received",
    ]
    rows = (
        [
            f.title,
            *(shown(value) for value in _times(f)),
            shown(f.summary.medians["network_bytes"] / 1e6),
        ]
        for f in analysis(STREAM).by_transport
    )
    return table(head, rows, numbers_from=1)


def _times(f: TransportSummary) -> tuple[float, ...]:
    return tuple(v or 0 for v in (f.first_batch_s, f.epoch1_end_s, f.end_s, f.later_images_per_s))


def crossovers() -> str:
    """Return who is ahead first and who overtakes, with the data in a bucket."""
    rows = [
        [pair.first, pair.second, shown(pair.point.seconds), str(pair.point.epoch)]
        for pair in analysis(STREAM).crossovers
        if pair.point and pair.point.certainty == "measured" and pair.blocks == pair.of_blocks
    ]
    return table(["Ahead first", "Overtaken by", "After, s", "In epoch"], rows, numbers_from=2)


def ffcv_pages() -> str:
    """Return what FFCV's pages cost on the disk, as a sentence."""
    write = next(w for w in analysis(QUICK).writes if (w.format, w.status) == ("ffcv-jpeg", "ok"))
    plain = next(w for w in analysis(QUICK).writes if w.format == "jpeg-files")
    assert write.bytes_per_image
    assert plain.bytes_per_image
    return (
        f"\nIn the reference campaign, FFCV's JPEG format takes {shown(write.bytes_per_image)} bytes per image for "
        f"{shown(plain.bytes_per_image)} bytes of JPEG.\n"
    )


def litdata_jpeg() -> str:
    """Return what LitData stored in the published set-up, as a sentence."""
    change = next(c for c in analysis(PR572).setup_effects if c.before == "LitData JPEG")
    assert change.bytes_before
    assert change.bytes_after
    return (
        f"\nAsked for quality 90, it stored {shown(change.bytes_before)} bytes per image where the canonical JPEGs "
        f"have {shown(change.bytes_after)} ([report](../reports/{PR572}/report.md)).\n"
    )


def litdata_cache() -> str:
    """Return whether LitData kept its cache limit in the reference campaign, as a sentence."""
    found = next(f for f in analysis(STREAM).by_transport if f.transport == "bounded")
    limit = env(STREAM)["campaign"]["stream"]["cache_mib"]
    return (
        f"\nIn the reference campaign, LitData kept at most {shown(found.summary.medians['cache_peak_mib'])} MiB on "
        f"the disk with a limit of {limit:g} MiB ([report](../reports/{STREAM}/report.md)).\n"
    )


def scaling() -> str:
    """Return where each loader stops growing with its workers, and at which limit."""
    curves = analysis(SCALING).scaling
    enough = [
        min(workers for workers, point in curve.points.items() if point.median * GROWS >= _fastest(curve))
        for curve in curves
    ]
    cores = env(SCALING)["host"]["cores_allowed"]
    fewest = EN_DASH.join(map(str, dict.fromkeys((min(enough), max(enough)))))
    conclusion = f"On {cores} cores each loader is within 5 % of its highest speed with {fewest} workers."
    rows = ([curve.main.title, curve.reading] for curve in curves)
    return f"\n{conclusion}\n" + table(["Contestant", "Where it stops growing, and at which limit"], rows)


def _fastest(curve: ScalingCurve) -> float:
    return max(point.median for point in curve.points.values())


def ffcv_formats() -> str:
    """Return the formats of FFCV that are worth their bytes, and the published figures that do not hold."""
    found = analysis(FORMATS)
    sizes, speeds = frontier.bytes_per_image(found), {s.name: s.median for s in found.measured}
    faster, larger = (of["raw-256"] / of["jpeg90-256"] for of in (speeds, sizes))
    conclusion = (
        f"At 256 px, pixels deliver {shown(faster)}{TIMES} the speed of JPEG 90 for {shown(larger)}{TIMES} the bytes."
        " The formats below are worth their bytes: no other one of that size is both faster and smaller."
    )
    rows = (
        [one.images, s.title, shown(sizes[s.name]), shown(s.median)]
        for one in frontier.frontiers(found)
        for s in one.contestants
    )
    worth = table(["Images", "Format", "Bytes per image", "Images/s"], rows, numbers_from=2)
    contradicted = "\n".join(f"- {sentence}" for sentence in publication.contradicted(found))
    return f"\n{conclusion}\n{worth}\nThese published figures do not hold here:\n\n{contradicted}\n"


def larger_than_memory() -> str:
    """Return what each contestant delivers and reads where the data is larger than the memory."""
    analysed = analysis(LARGER)
    found = disk_reads.disk_reads(analysed)
    memory_mib = disk_reads.memory_limit_mib(env(LARGER)["campaign"])
    rows = (
        [one.summary.title, shown(one.summary.median), shown(one.takes_kb or 0), shown(one.read_kb)] for one in found
    )
    head = ["Contestant", "Images/s", "kB that an image takes", "kB read from the disk for an image"]
    lacking = verdicts.unmeasured(analysed)
    rest = f"\nNo speed: {lacking}\n" if lacking else ""
    sure = f"\nConfidence: {verdicts.confidence(analysed)}\n"
    return f"\n{disk_reads.conclusion(found, memory_mib)}\n{table(head, rows, numbers_from=1)}{sure}{rest}"
