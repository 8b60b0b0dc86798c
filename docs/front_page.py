"""What README.md shows of the reference campaigns: the machine, and who wins where at what price.

A page names a function in a comment, `[[[cog ... ]]]`; `make docs` writes the Markdown that it returns below the
comment, and `make lint` fails if the page shows anything else. So it is with `figures.py` and `lists.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from reference import JOBS, PR572, QUICK, STREAM, TIMES, TRAIN, analysis, env, table

from loaderbench.findings.findings import Analysis, ContestantSummary, TransportSummary, shown


def machine() -> str:
    """Return on what the reference campaigns ran, as a sentence."""
    host, data = env(QUICK)["host"], env(QUICK)["data"]
    gpu = "" if env(QUICK)["gpu"] else " and no GPU"
    return (
        f"\nMedians on an {host['cpu']} virtual machine with {host['cores_allowed']} cores{gpu}; "
        f"{data['samples']:,} synthetic images.\n"
    )


def caution() -> str:
    """Return how far to trust the rows of `who_wins`, as sentences."""
    tested = [name for name in (QUICK, TRAIN, JOBS, STREAM) if not analysis(name).descriptive]
    assert not tested, f"these campaigns have enough blocks for a ranking: {tested}; say so in docs/figures.py"
    blocks = " or ".join(sorted({str(analysis(name).blocks) for name in (QUICK, TRAIN, JOBS, STREAM)}))
    return (
        "\nEach loader and format takes part with the faster of its settings. "
        f"All rows but the last have {blocks} blocks:\nthey show what was observed, not a tested ranking. "
        f"The last has {analysis(PR572).blocks} blocks. Another machine can turn the order around: measure yours.\n"
    )


def who_wins() -> str:
    """Return the table of who wins where, and at what price."""
    quick, train, jobs = analysis(QUICK), analysis(TRAIN), analysis(JOBS)
    formats = _best_of_each_format(quick)
    fed, trained = (
        [f.summary for f in train.by_consumer if f.consumer == consumer and f.summary.name not in train.unranked]
        for consumer in ("paced", "train")
    )
    rows = [
        _contest("Throughput, warm page cache", formats, "images_per_s", "images/s", _start_disk_ram, QUICK),
        _contest("Start-up, to the first batch", formats, "start_s", "s", _speed, QUICK, least=True),
        _contest("Disk per image", formats, "bytes_per_image", "bytes", _speed, QUICK, least=True),
        _contest("Memory without the page cache", formats, "anon_memory_mib", "MiB", _speed, QUICK, least=True),
        _contest("CPU time per 1,000 images", formats, "cpu_s_per_1k_images", "s", _start_disk_ram, QUICK, least=True),
        _contest(
            f"Feeding an accelerator, busy 90% of the time, {_size(TRAIN)} px",
            fed, "fed_images_per_s", "images/s", _disk, TRAIN,
        ),
        _training(trained),
        _contest("Two jobs on one data set", _best_of_each_format(jobs), "images_per_s", "images/s", _memory, JOBS),
        _first_batch_from_a_bucket(),
        _published_row(),
    ]  # fmt: skip
    return table(["Question", "Ahead here", "Others", "Price of the one ahead", "Report"], rows)


def _contest(  # noqa: PLR0913, PLR0917 - one argument per part of a row
    question: str,
    summaries: Iterable[ContestantSummary],
    column: str,
    unit: str,
    price: Callable[[ContestantSummary], str],
    campaign: str,
    *,
    least: bool = False,
) -> list[str]:
    """Return one row of `who_wins`: the contestants in the order of a column, the best first."""
    first, *others = sorted(summaries, key=lambda s: s.medians[column], reverse=not least)
    ahead = f"**{_short(first.title)}: {shown(first.medians[column])} {unit}**"
    said = [f"{_short(s.title)} {shown(s.medians[column])}" for s in others]
    return [question, ahead, "; ".join(said), price(first), _link(campaign)]


def _short(title: str) -> str:
    """Return a title without the setting of FFCV's page cache and the size that all formats share."""
    return re.sub(r", os_cache (on|off)|(?<=ImageFolder) 256 px,", "", title)


def _best_of_each_format(found: Analysis) -> list[ContestantSummary]:
    """Return the fastest ranked contestant of each loader and format."""
    best: dict[tuple[str, str], ContestantSummary] = {}
    for summary in found.ranked:  # the fastest comes first
        best.setdefault((summary.adapter, summary.format), summary)
    return list(best.values())


def _start_disk_ram(s: ContestantSummary) -> str:
    return f"{shown(s.medians['start_s'])} s to the first batch, {_disk(s)}, {_memory(s)}"


def _disk(s: ContestantSummary) -> str:
    return f"{s.medians['bytes_per_image'] / 1000:.0f} kB of disk per image"


def _memory(s: ContestantSummary) -> str:
    return f"{s.medians['anon_memory_mib'] / 1024:.1f} GiB of memory"


def _speed(s: ContestantSummary) -> str:
    return f"delivers {shown(s.median)} images/s"


def _size(campaign: str) -> int:
    return int(env(campaign)["campaign"]["work"]["image_size"])


def _link(campaign: str) -> str:
    return f"[{env(campaign)['campaign']['name']}](reports/{campaign}/report.md)"


def _training(trained: Sequence[ContestantSummary]) -> list[str]:
    """Return the row on training: nobody is ahead if the blocks of the first two overlap."""
    first, second, *_ = trained
    range_ = f"{shown(trained[-1].median)} to {shown(first.median)} images/s"
    apart = min(first.speeds) > max(second.speeds)
    stalls = [s.medians["stall_vs_warm_cached_pct"] for s in trained]
    price = f"{min(stalls):.0f} to {max(stalls):.0f}% slower than training on one cached batch"
    ahead = f"**{_short(first.title)}: {shown(first.median)} images/s**" if apart else f"nobody clearly: {range_}"
    said = "; ".join(f"{_short(s.title)} {shown(s.median)}" for s in trained[apart:])
    return ["Training ResNet-18 on these cores", ahead, said, price, _link(TRAIN)]


def _first_batch_from_a_bucket() -> list[str]:
    found = analysis(STREAM)
    racing = [f for f in found.by_transport if f.curves and f.summary.name not in found.unranked]
    first, *others = sorted(racing, key=lambda f: f.first_batch_s or 0)
    last = min(racing, key=lambda f: f.end_s or 0)
    limit = env(STREAM)["campaign"]["stream"]["rate_mib_per_s"]
    return [
        f"Data in S3 at {limit:.0f} MiB/s, to the first batch",
        f"**{_short(first.title)}: {shown(first.first_batch_s or 0)} s**",
        "; ".join(f"{_short(f.title)} {shown(f.first_batch_s or 0)}" for f in others),
        f"{_later(first)} images/s after epoch 1; {_short(last.title)}: {_later(last)}",
        _link(STREAM),
    ]


def _later(f: TransportSummary) -> str:
    return shown(f.later_images_per_s or 0)


def _published_row() -> list[str]:
    found = [p for p in analysis(PR572).replications if p.adapter == "ffcv"]
    said = _span([p.ratio for p in found])
    seen, equal = (
        _span([r.mean for r in ratios if r]) for ratios in zip(*((p.measured, p.equal) for p in found), strict=True)
    )
    return [
        f"FFCV against LitData JPEG, published as {said}",
        f"**FFCV: {seen}** set up as published, **{equal}** with equal settings",
        "",
        "see the first row",
        _link(PR572),
    ]


def _span(ratios: Sequence[float]) -> str:
    return f"{shown(min(ratios))} to {shown(max(ratios))}{TIMES}"
