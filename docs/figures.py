"""Tables of figures in README.md and docs/, computed from the files of the reference campaigns.

Each function returns Markdown. A page names it in a comment, `[[[cog ... ]]]`; `make docs` writes the result below
the comment, and `make lint` fails if a page shows anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from loaderbench.findings.analysis import analyse
from loaderbench.findings.comparison import Ratio
from loaderbench.findings.crossover import Course
from loaderbench.findings.findings import Analysis, Fetched, Standing, shown
from loaderbench.records import certificates, record
from loaderbench.records.timeline import Timeline

ROOT = Path(__file__).parent.parent
QUICK, TRAIN, JOBS = "reference-2-cores", "reference-2-cores-train", "reference-2-cores-jobs"
TIMES, EN_DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
STREAM, PR572 = "reference-2-cores-stream", "reference-2-cores-litdata-pr572"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 99) -> str:
    """Return a Markdown table; the columns from `numbers_from` on are aligned to the right."""
    rules = ["--:" if column >= numbers_from else "---" for column in range(len(head))]
    return "\n".join(["", *(f"| {' | '.join(cells)} |" for cells in (head, rules, *rows)), ""])


@cache
def env(name: str) -> dict[str, Any]:
    """Return the description of a reference campaign: its settings, the machine and the versions."""
    return json.loads((ROOT / "results" / name / "env.json").read_text())


@cache
def analysis(name: str) -> Analysis:
    """Return the analysis of a reference campaign, from its files alone."""
    folder = ROOT / "results" / name
    rows = record.read(folder / "trials.csv")
    courses = {
        row.trial: Course.of(Timeline.load(folder / "times" / row.times), row.until_asked_s)
        for row in rows
        if row.until_asked_s is not None and row.status == "ok"
    }
    return analyse(rows, env(name)["campaign"], certificates.load(folder), courses)


def machine() -> str:
    """Return on what the reference campaigns ran, as a sentence."""
    host, data = env(QUICK)["host"], env(QUICK)["data"]
    gpu = "" if env(QUICK)["gpu"] else " and no GPU"
    tested = [name for name in (QUICK, TRAIN, JOBS, STREAM) if not analysis(name).descriptive]
    assert not tested, f"these campaigns have enough blocks for a ranking: {tested}; say so in docs/figures.py"
    blocks = " or ".join(sorted({str(analysis(name).blocks) for name in (QUICK, TRAIN, JOBS, STREAM)}))
    return (
        f"\nMedians on an {host['cpu']} virtual machine with {host['cores_allowed']} cores{gpu}; "
        f"{data['samples']:,} synthetic images. Each loader and format takes part with the faster of its settings.\n"
        f"All rows but the last have {blocks} blocks: they show what was observed, not a tested ranking. "
        f"The last has {analysis(PR572).blocks} blocks.\n"
        "Measure your own machine: another one can turn the order around.\n"
    )


def who_wins() -> str:
    """Return the table of who wins where, and at what price."""
    quick, train, jobs = analysis(QUICK), analysis(TRAIN), analysis(JOBS)
    formats = _best_of_each_format(quick)
    fed = [f.standing for f in train.fed if f.consumer == "paced"]
    trained = [f.standing for f in train.fed if f.consumer == "train"]
    rows = [
        _contest("Throughput, warm page cache", formats, "images_per_s", "images/s", _start_disk_ram, QUICK),
        _contest("Start-up, to the first batch", formats, "start_s", "s", _speed, QUICK, least=True),
        _contest("Disk per image", formats, "bytes_per_image", "bytes", _speed, QUICK, least=True),
        _contest("Memory without the page cache", formats, "peak_anon_memory_mib", "MiB", _speed, QUICK, least=True),
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
    standings: Iterable[Standing],
    column: str,
    unit: str,
    price: Callable[[Standing], str],
    campaign: str,
    *,
    least: bool = False,
) -> list[str]:
    """Return one row of `who_wins`: the contestants in the order of a column, the best first."""
    first, *others = sorted(standings, key=lambda s: s.medians[column], reverse=not least)
    ahead = f"**{_short(first.title)}: {shown(first.medians[column])} {unit}**"
    said = [f"{_short(s.title)} {shown(s.medians[column])}" for s in others]
    return [question, ahead, "; ".join(said), price(first), _link(campaign)]


def _short(title: str) -> str:
    """Return a title without the setting of FFCV's page cache and the size that all formats share."""
    return re.sub(r", os_cache (on|off)|(?<=ImageFolder) 256 px,", "", title)


def _best_of_each_format(found: Analysis) -> list[Standing]:
    """Return the fastest ranked contestant of each loader and format."""
    best: dict[tuple[str, str], Standing] = {}
    for standing in found.ranked:  # the fastest comes first
        best.setdefault((standing.adapter, standing.format), standing)
    return list(best.values())


def _start_disk_ram(s: Standing) -> str:
    return f"{shown(s.medians['start_s'])} s to the first batch, {_disk(s)}, {_memory(s)}"


def _disk(s: Standing) -> str:
    return f"{s.medians['bytes_per_image'] / 1000:.0f} kB of disk per image"


def _memory(s: Standing) -> str:
    return f"{s.medians['peak_anon_memory_mib'] / 1024:.1f} GiB of memory"


def _speed(s: Standing) -> str:
    return f"delivers {shown(s.median)} images/s"


def _size(campaign: str) -> int:
    return int(env(campaign)["campaign"]["work"]["image_size"])


def _link(campaign: str) -> str:
    return f"[{env(campaign)['campaign']['name']}](reports/{campaign}/report.md)"


def _training(trained: Sequence[Standing]) -> list[str]:
    """Return the row on training: nobody is ahead if the blocks of the first two overlap."""
    first, second, *_ = trained
    range_ = f"{shown(trained[-1].median)} to {shown(first.median)} images/s"
    apart = min(first.speeds) > max(second.speeds)
    stalls = [s.medians["stall_vs_cached_pct"] for s in trained]
    price = f"{min(stalls):.0f} to {max(stalls):.0f}% slower than training on one cached batch"
    ahead = f"**{_short(first.title)}: {shown(first.median)} images/s**" if apart else f"nobody clearly: {range_}"
    said = "; ".join(f"{_short(s.title)} {shown(s.median)}" for s in trained[apart:])
    return ["Training ResNet-18 on these cores", ahead, said, price, _link(TRAIN)]


def _first_batch_from_a_bucket() -> list[str]:
    found = analysis(STREAM)
    first, *others = sorted((f for f in found.fetched if f.first_batch_s), key=lambda f: f.first_batch_s or 0)
    last = min(found.fetched, key=lambda f: f.end_s or 0)
    limit = env(STREAM)["campaign"]["stream"]["rate_mib_per_s"]
    return [
        f"Data in S3 at {limit:.0f} MiB/s, to the first batch",
        f"**{_short(first.title)}: {shown(first.first_batch_s or 0)} s**",
        "; ".join(f"{_short(f.title)} {shown(f.first_batch_s or 0)}" for f in others),
        f"{_later(first)} images/s after epoch 1; {_short(last.title)}: {_later(last)}",
        _link(STREAM),
    ]


def _later(f: Fetched) -> str:
    return shown(f.later_images_per_s or 0)


def _published_row() -> list[str]:
    found = [p for p in analysis(PR572).published if p.adapter == "ffcv"]
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


def interval(ratio: Ratio | None) -> str:
    """Return a ratio with its 95 % interval, or a dash."""
    if ratio is None:
        return EN_DASH
    ends = f" [{shown(ratio.low)}{EN_DASH}{shown(ratio.high)}]" if ratio.low and ratio.high else ""
    return f"{shown(ratio.mean)}{TIMES}{ends}"


def published() -> str:
    """Return the published comparison beside what was measured here."""
    head = ["Contestant", "Published, by epoch", "Measured, set up as published", "Measured, equal settings"]
    return table(
        head,
        (
            [p.title, " / ".join(f"{shown(r)}{TIMES}" for r in p.ratios), *(interval(r) for r in (p.measured, p.equal))]
            for p in analysis(PR572).published
        ),
        numbers_from=1,
    )


def setup_effects() -> str:
    """Return what each difference in the set-up of the published comparison was worth."""
    head = ["Change of the set-up", "Speed after the change", "Verdict", "Bytes per image"]
    rows = []
    for change in analysis(PR572).changes:
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


def feeding() -> str:
    """Return the highest demand that each loader meets, beside what it delivers to the drain consumer."""
    found = analysis(TRAIN)
    rows = (
        [
            f.standing.title,
            shown(f.standing.medians["fed_images_per_s"]),
            shown(f.standing.median),
        ]
        for f in found.fed
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
            f.standing.title,
            shown(f.standing.median),
            f"{f.standing.medians['stall_vs_cached_pct']:.0f}%",
            interval(added[f.standing.name].ratio) if f.standing.name in added else EN_DASH,
        ]
        for f in found.fed
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
            shown(s.medians["peak_anon_memory_mib"]),
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
            shown(f.standing.medians["network_bytes"] / 1e6),
        ]
        for f in analysis(STREAM).fetched
    )
    return table(head, rows, numbers_from=1)


def _times(f: Fetched) -> tuple[float, ...]:
    return tuple(v or 0 for v in (f.first_batch_s, f.epoch1_end_s, f.end_s, f.later_images_per_s))


class _Crossing(NamedTuple):
    ahead: str
    overtaken: str
    seconds: str
    epoch: str


def crossovers() -> str:
    """Return who is ahead first and who overtakes, with the data in a bucket."""
    rows = [
        _Crossing(pair.first, pair.second, shown(pair.overtaking.seconds), str(pair.overtaking.epoch))
        for pair in analysis(STREAM).overtakings
        if pair.overtaking and pair.overtaking.certainty == "measured" and pair.blocks == pair.of_blocks
    ]
    return table(["Ahead first", "Overtaken by", "After, s", "In epoch"], rows, numbers_from=2)


def ffcv_pages() -> str:
    """Return what FFCV's pages cost on the disk, as a sentence."""
    write = next(w for w in analysis(QUICK).writes if (w.format, w.status) == ("ffcv-jpeg", "ok"))
    plain = next(w for w in analysis(QUICK).writes if w.format == "jpeg-files")
    assert write.bytes_per_image
    assert plain.bytes_per_image
    return (
        f"In the reference campaign, FFCV's JPEG format takes {shown(write.bytes_per_image)} bytes per image for "
        f"{shown(plain.bytes_per_image)} bytes of JPEG."
    )


def litdata_jpeg() -> str:
    """Return what LitData stored in the published set-up, as a sentence."""
    change = next(c for c in analysis(PR572).changes if c.before == "LitData JPEG")
    assert change.bytes_before
    assert change.bytes_after
    return (
        f"Asked for quality 90, it stored {shown(change.bytes_before)} bytes per image where the canonical JPEGs have "
        f"{shown(change.bytes_after)} ([report](../reports/{PR572}/report.md))."
    )


def litdata_cache() -> str:
    """Return whether LitData kept its cache limit in the reference campaign, as a sentence."""
    found = next(f for f in analysis(STREAM).fetched if f.transport == "bounded")
    limit = env(STREAM)["campaign"]["stream"]["cache_mib"]
    return (
        f"In the reference campaign, LitData kept at most {shown(found.standing.medians['cache_peak_mib'])} MiB on the "
        f"disk with a limit of {limit:g} MiB ([report](../reports/{STREAM}/report.md))."
    )
