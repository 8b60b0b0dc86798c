"""Bar charts of images/s: steady, tuned, in training, compared with the machine limit, and as published."""

from statistics import geometric_mean

from matplotlib.figure import Figure

from loaderbench.findings import verdicts
from loaderbench.findings.comparison import Comparison
from loaderbench.findings.findings import Analysis, ContestantSummary, TunedSummary, shown
from loaderbench.findings.replication import Replication
from loaderbench.report.plots.bars import Bar, Label, Row, bars
from loaderbench.report.plots.style import ALARM, GREY, HOLLOW, INK, Look, Palette, wrapped

_TIMES = "\N{MULTIPLICATION SIGN}"


def headline(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images/s, fastest first, below them unranked contestants, and those without a speed with the reason."""
    if not analysis.recorded:
        return None
    summaries = analysis.summaries
    rows = [_steady_row(s, analysis, palette) for s in summaries]
    figure = bars(rows, f"images/s, median; dots: single blocks (repeats); {_TIMES}: relative to the reference")
    [ax] = figure.axes
    ax.xaxis.set_visible(bool(analysis.measured))
    if first_unranked := next((row for row, s in enumerate(summaries) if s.speeds and s.unranked_reason), 0):
        ax.axhline(first_unranked - 0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    return figure


def _steady_row(s: ContestantSummary, analysis: Analysis, palette: Palette) -> Row:
    title = s.title + (" (reference)" if s.name == analysis.reference else "")
    if not s.speeds:
        return Row(title, [Bar(excuse=s.trouble or "not run yet")])
    parts = [(s.median, 0.45 if s.unranked_reason or s.beyond_limit else 1.0)]
    bar = Bar(look=palette.look(s), parts=parts, alarm=s.beyond_limit, dots=s.speeds)
    return Row(title, [bar], Label(shown(s.median), _steady_note(s, analysis), ALARM if s.beyond_limit else GREY))


def _steady_note(s: ContestantSummary, analysis: Analysis) -> str:
    """Return the ratio to the reference, why it is not ranked, and how many blocks are missing."""
    notes = []
    if s.beyond_limit:
        notes.append("faster than the machine limit:\ndifferent work, or a wrong limit")
    elif s.reference:
        notes.append(_ratio(s.reference))
    if s.unranked_reason and not s.beyond_limit:
        notes.append(wrapped(f"not ranked: {s.unranked_reason}", 46))
    if s.trouble:
        notes.append(f"{len(s.speeds)} of {analysis.blocks} blocks")
    return "   ".join(notes)


def _ratio(compared: Comparison) -> str:
    mean = compared.ratio.mean
    decimals = 2 if mean < 1.1 else 1 if mean < 10 else 0  # noqa: PLR2004 - 0.56, 1.01, 4.4, 12
    return f"{mean:.{decimals}f}{_TIMES}{_doubt(compared)}"


def _doubt(compared: Comparison | None) -> str:
    """Return the verdict of a test that does not separate two contestants, or an empty string."""
    if not compared or compared.p is None or compared.verdict not in {"tie", "unresolved"}:
        return ""
    return f" ({compared.verdict})"


def machine_limit(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images/s inside the limit of the slowest required step, highest share first."""
    summaries = [s for s in analysis.measured if s.medians.keys() >= {"bound_ips", "pct_of_bound"}]
    summaries.sort(key=lambda s: -s.medians["pct_of_bound"])
    rows = []
    for s in summaries:
        bar = Bar(look=palette.look(s), parts=[(s.median, 1.0)], outline=s.medians["bound_ips"], alarm=s.beyond_limit)
        share = f"{s.medians['pct_of_bound']:.{1 if s.beyond_limit else 0}f}%"  # 100.4% must not read as 100%
        beyond = ": faster than the machine limit, different work, or a wrong limit" if s.beyond_limit else ""
        note = wrapped(f"of {s.bound_by or 'the limit'}{beyond}", 36, lines=3)
        rows.append(Row(s.title, [bar], Label(share, note, ALARM if s.beyond_limit else GREY)))
    return bars(rows, "images/s; outline: machine limit of the slowest required step") if rows else None


def tuned(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images/s with shared and with tuned settings, fastest when tuned first."""
    bests = [b for b in analysis.tuned if b.shared.speeds or b.tuned.speeds]
    if not any(b.tuned.speeds for b in bests):
        return None
    rows = [_tuned_row(b, palette) for b in bests]
    return bars(rows, "images/s, median of the blocks", [("shared settings", 0.35), ("tuned settings", 1.0)])


def _tuned_row(b: TunedSummary, palette: Palette) -> Row:
    shared = Bar(look=palette.look(b.tuned), parts=[(b.shared.median if b.shared.speeds else 0, 0.35)])
    if not b.tuned.speeds:
        return Row(b.tuned.title, [shared, Bar(excuse=f"tuned: {b.tuned.trouble or 'not run yet'}")])
    figure = f"{b.gain.ratio.mean:.2f}{_TIMES}" if b.gain else shown(b.tuned.median)
    note = ", ".join(f"{name} = {value}" for name, value in b.changes.items())
    note = note + _doubt(b.gain) if note else "its own settings were the best"
    label = Label(figure, wrapped(note, 36))
    return Row(b.tuned.title, [shared, Bar(look=palette.look(b.tuned), parts=[(b.tuned.median, 1.0)])], label)


def training(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images/s in training, and a mark at the speed of the same training on one cached batch."""
    rows = []
    for fed in analysis.by_consumer:
        s = fed.summary
        if fed.consumer != "paced" and s.speeds:
            bar = Bar(look=palette.look(s), parts=[(s.median, 1.0)], mark=s.medians.get("warm_cached_images_per_s"))
            title = s.title + (", Lightning" if fed.consumer == "lightning" else "")
            rows.append(Row(title, [bar], Label(shown(s.median), verdicts.against_cached(s))))
    return bars(rows, "images/s in training, median of the blocks; line: one cached batch, no loader") if rows else None


def published(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw the ratio to the reference as published, as measured here, and as measured with equal set-ups."""
    contestants = [p for p in analysis.replications if p.name != analysis.reference and p.ratios]
    if not any(p.measured or p.equal for p in contestants):
        return None
    reference = next(p.title for p in analysis.replications if p.name == analysis.reference)
    legend: list[tuple[str, float | Look]] = [
        ("published", HOLLOW),
        ("measured here, set up as published", 0.4),
        ("measured here, equal set-up", 1.0),
    ]
    rows = [Row(p.title, _published_bars(p, palette)) for p in contestants]
    xlabel = (
        f"speed relative to {reference} in the same set-up\nthin lines: 95% CI; of published ratios: range over epochs"
    )
    figure = bars(rows, xlabel, legend)
    figure.axes[0].axvline(1, color=INK, linewidth=1.2, zorder=0.9)
    return figure


def _published_bars(p: Replication, palette: Palette) -> list[Bar]:
    span, told = (min(p.ratios), max(p.ratios)), geometric_mean(p.ratios)
    found = [Bar(look=HOLLOW, parts=[(told, 1.0)], interval=span, text=_times(told))]
    for ratio, opacity in ((p.measured, 0.4), (p.equal, 1.0)):
        if ratio is None:
            found.append(Bar(excuse="not measured"))
        else:
            interval = (ratio.low or ratio.mean, ratio.high or ratio.mean)
            look = Look(palette.colours[p.adapter])
            found.append(Bar(look=look, parts=[(ratio.mean, opacity)], interval=interval, text=_times(ratio.mean)))
    return found


def _times(ratio: float) -> str:
    return f"{ratio:.2f}{_TIMES}"
