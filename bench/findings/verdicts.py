"""State in sentences what a campaign found: what is fastest, how sure that is, its price, its limit, its caveats.

All sentences are plain text; the report escapes and prints them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from loaderbench.findings.comparison import RANKING_BLOCKS, Comparison
from loaderbench.findings.findings import Analysis, ContestantSummary, few_blocks, shown

EN_DASH = "\N{EN DASH}"


class Headline(NamedTuple):
    """The answer of a campaign: a claim, and the rest of its sentence."""

    claim: str
    detail: str = "."


def headline(analysis: Analysis) -> Headline:
    """Return which contestant leads; it "is fastest" only if a test of a finished campaign says so of every pair."""
    if not analysis.recorded:
        return Headline("Nothing has been compared yet", ": no trial of a block has been recorded.")
    if not analysis.ranked:
        apart = "all that have a speed do different work or exceed the machine limit"
        return Headline("No contestant can be ranked", f": {apart if analysis.measured else 'none has a speed'}.")
    first, *others = analysis.ranked
    speed = f"{shown(first.median)} images/s"
    if not others:
        return Headline(f"{first.title} delivers {speed}", ". There is no other contestant to rank it with.")
    return Headline(f"{first.title} {_leads(analysis, analysis.ranked)}: {speed}", _against_reference(analysis))


def _leads(analysis: Analysis, ranked: Sequence[ContestantSummary]) -> str:
    if analysis.recorded < analysis.planned:
        return "has the highest median so far"
    return "has the highest median" if rivals(ranked) else "is fastest"


def rivals(ranked: Sequence[ContestantSummary]) -> tuple[ContestantSummary, ...]:
    """Return the contestants that no test separates from the first, also for want of blocks."""
    return tuple(s for s in ranked[1:] if s.name not in ranked[0].faster_than)


def _against_reference(analysis: Analysis) -> str:
    first, second, *_ = analysis.ranked
    if first.name == analysis.reference:
        return f", and is the reference. Next is {second.title} with {shown(second.median)} images/s."
    title = next(s.title for s in analysis.summaries if s.name == analysis.reference)
    if not first.reference:
        return f". There is no ratio to the reference, {title}, which has no speed in the same block."
    ratio = first.reference.ratio
    interval = "from one block" if ratio.low is None else f"95% CI {shown(ratio.low)}{EN_DASH}{shown(ratio.high or 0)}"
    return f", {shown(ratio.mean)} times the reference, {title} ({interval})."


def progress(analysis: Analysis) -> str:
    """Return how far an unfinished campaign is, or an empty string."""
    if analysis.recorded >= analysis.planned:
        return ""
    done = analysis.recorded * analysis.blocks // analysis.planned
    return f"after {done} of {counted(analysis.blocks, 'block')}, {analysis.recorded:,} of {analysis.planned:,} trials"


def preliminary(analysis: Analysis) -> str:
    """Return a warning of an unfinished campaign, or an empty string."""
    return f"{said}. Every figure can still change." if (said := progress(analysis)) else ""


def confidence(analysis: Analysis) -> str:
    """Return how sure the lead of the first contestant is, or an empty string without a comparison."""
    if len(analysis.ranked) < 2:  # noqa: PLR2004 - a comparison takes two
        return ""
    first, *others = analysis.ranked
    if analysis.descriptive:
        most = counted(max(len(s.speeds) for s in analysis.ranked), "block")
        few = f"No contestant has a speed in more than {most}; ranking needs at least {RANKING_BLOCKS}"
        return f"descriptive only. {few}. The order is what was observed."
    limit = f" Differences up to {shown(100 * analysis.least_difference)}% cannot be distinguished here."
    open_pairs = rivals(analysis.ranked)
    if not open_pairs:
        rest = (
            "the other ranked contestant" if len(others) == 1 else f"each of the other {len(others)} ranked contestants"
        )
        return f"tested. A sign-flip test over blocks, corrected for all pairs, finds it faster than {rest}.{limit}"
    return f"no test separates it from {'; '.join(_with_blocks(first, s) for s in open_pairs)}.{limit}"


def _with_blocks(first: ContestantSummary, rival: ContestantSummary) -> str:
    few = min(len(first.speeds), len(rival.speeds))
    return rival.title + (f" (only {counted(few, 'block')})" if few < RANKING_BLOCKS else "")


_PRICES = {
    "bytes_per_image": "bytes per image on disk",
    "start_s": "s to the first batch",
    "cpu_s_per_1k_images": "CPU-seconds per 1,000 images",
    "anon_memory_mib": "MiB of anonymous and shared memory",
}
"""What a contestant costs: columns and their words."""


def price(analysis: Analysis) -> str:
    """Return what the first contestant costs, beside the reference, or an empty string."""
    if not analysis.ranked:
        return ""
    first = analysis.ranked[0]
    reference = next((s for s in analysis.measured if s.name == analysis.reference and s != first), None)
    costs = []
    for column, words in _PRICES.items():
        if (value := first.medians.get(column)) is not None:
            other = reference.medians.get(column) if reference else None
            costs.append(f"{shown(value)} {words}" + ("" if other is None else f" (reference: {shown(other)})"))
    return f"{'; '.join(costs)}." if costs else ""


def machine_limit(analysis: Analysis) -> str:
    """Return how close the first contestant comes to what the machine can do, or an empty string."""
    if not analysis.ranked or "pct_of_bound" not in analysis.ranked[0].medians:
        return ""
    first = analysis.ranked[0]
    share, speed = shown(first.medians["pct_of_bound"]), shown(first.medians["bound_ips"])
    step = f" ({first.bound_by})" if first.bound_by else ""
    return f"it reaches {share}% of the {speed} images/s that this machine can do of its slowest required step{step}."


def beyond_limit(analysis: Analysis) -> str:
    """Return which contestants are faster than the machine limit, and what that means, or an empty string."""
    found = [
        f"{s.title} reaches {shown(s.medians['pct_of_bound'])}%" + (f" ({s.bound_by})" if s.bound_by else "")
        for s in analysis.beyond_limit
    ]
    cause = "Above 100%, either the loader did less work than requested or the measured limit is too low"
    return f"{'; '.join(found)}. {cause}." if found else ""


def unranked(analysis: Analysis) -> str:
    """Return which measured contestants are not ranked, by reason, or an empty string."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for s in analysis.measured:
        if s.unranked_reason:
            by_reason[s.unranked_reason].append(s.title)
    return _sentence(f"{'; '.join(titles)} ({reason})" for reason, titles in by_reason.items())


def unchecked(analysis: Analysis) -> str:
    """Return a warning that nothing is known of the contestants' work, or an empty string."""
    if analysis.certified or not analysis.measured:
        return ""
    checked = "did not check" if analysis.recorded >= analysis.planned else "has not yet checked"
    return f"this campaign {checked} whether the contestants do the same work."


def unmeasured(analysis: Analysis) -> str:
    """Return which contestants have no speed, and why, or an empty string."""
    return _sentence(f"{s.title} ({s.trouble or 'not run yet'})" for s in analysis.summaries if not s.speeds)


def controls_failed(analysis: Analysis) -> str:
    """Return which controls failed, or an empty string."""
    titles = dict.fromkeys(verdict.title for verdict in analysis.controls_failed)
    return f"{'; '.join(titles)} failed. Do not trust any figure before the reason is known." if titles else ""


def harness(analysis: Analysis) -> str:
    """Return how many controls passed and how many trials are flagged, or an empty string without trials."""
    said = []
    if analysis.controls:
        passed = sum(verdict.passed is True for verdict in analysis.controls)
        said.append(f"{passed} of {counted(len(analysis.controls), 'control')} passed")
    if absent := sum(verdict.passed is None for verdict in analysis.controls):
        said.append(f"{absent} not read in every block")
    flagged, trials = len(analysis.flagged), len(analysis.flagged) + analysis.quiet
    if trials:
        said.append(f"{flagged:,} of {counted(trials, 'trial')} flagged as possibly disturbed")
    return _sentence(said)


def tuned(analysis: Analysis) -> str:
    """Return which contestant leads with tuned settings, or an empty string."""
    ranked = [b.tuned for b in analysis.tuned if b.tuned.is_ranked]
    if not ranked:
        return ""
    leads = _leads(analysis, ranked) if len(ranked) > 1 else "is the only one that can be ranked"
    return f"with settings tuned for each loader, {ranked[0].title} {leads}: {shown(ranked[0].median)} images/s."


def accelerator(analysis: Analysis) -> str:
    """Return which contestant keeps the fastest accelerator busy, or an empty string."""
    fed = [s for s in _with_consumer(analysis, "paced") if "fed_images_per_s" in s.medians]
    if not fed:
        return ""
    first, last = ((s.title, shown(s.medians["fed_images_per_s"])) for s in (fed[0], fed[-1]))
    rest = f"; the slowest is {last[0]} with {last[1]}" if len(fed) > 1 else ""
    return f"{first[0]} feeds the highest demand with the accelerator 90% busy, {first[1]} images/s{rest}."


def training(analysis: Analysis) -> str:
    """Return which contestant trains fastest in plain PyTorch, and what each costs at least, or an empty string."""
    trained = [s for s in _with_consumer(analysis, "train") if s.speeds]
    if not trained:
        return ""
    first, last = trained[0], trained[-1]
    if first is last:
        return f"{first.title} trains with {_trained(first)}."
    rest = f"the slowest is {last.title} with {_trained(last)}"
    return f"{first.title} has the highest median in training: {_trained(first)}; {rest}."


def _trained(s: ContestantSummary) -> str:
    """Return the speed of training, and how it compares with training on one cached batch."""
    return ", ".join(filter(None, [f"{shown(s.median)} images/s", against_cached(s)]))


def against_cached(s: ContestantSummary) -> str:
    """Return how training compares with the same training on one cached batch, or an empty string."""
    slower_pct = s.medians.get("stall_vs_warm_cached_pct")
    if slower_pct is None:
        return ""
    return f"{shown(abs(slower_pct))}% {'slower' if slower_pct >= 0 else 'faster'} than on one cached batch"


def _with_consumer(analysis: Analysis, consumer: str) -> list[ContestantSummary]:
    """Return the contestants with a consumer that the same work and the machine limit allow to compare."""
    found = [f.summary for f in analysis.by_consumer if f.consumer == consumer]
    return [s for s in found if s.name not in analysis.unranked and not s.beyond_limit]


def bucket(analysis: Analysis, epochs: int) -> str:
    """Return who has the first batch and who finishes all epochs soonest with data in S3, or an empty string."""
    racing = [f for f in analysis.by_transport if f.curves and f.summary.name not in analysis.unranked]
    if not racing:
        return ""
    soonest, done = (min(racing, key=lambda f: getattr(f, column)) for column in ("first_batch_s", "end_s"))
    return (
        f"{soonest.title} has the first batch soonest, after {shown(soonest.first_batch_s or 0)} s; "
        f"{done.title} finishes {counted(epochs, 'epoch')} soonest, after {shown(done.end_s or 0)} s."
    )


def places(summaries: Sequence[ContestantSummary]) -> tuple[str, dict[str, str]]:
    """Return the heading for the places of contestants, and each one's place by name, in the given order.

    With few blocks that is the observed order. Otherwise it is the ranks that the tests leave open: all of them for a
    contestant that was not tested.
    """
    found = {s.name: "not ranked" if s.speeds else "" for s in summaries}
    ranked = [s for s in summaries if s.is_ranked]
    if few_blocks(ranked):
        return "Order", found | {s.name: str(place) for place, s in enumerate(ranked, 1)}
    ends = {s.name: dict.fromkeys(s.rank or (1, len(ranked))) for s in ranked}
    return "Rank", found | {name: EN_DASH.join(map(str, ranks)) for name, ranks in ends.items()}


def tested(compared: Comparison | None) -> str:
    """Return the verdict of a test with its p, or an empty string without a test."""
    return f"{compared.verdict} (p {shown(compared.p)})" if compared and compared.p is not None else ""


def losses(blocks: tuple[int, ...]) -> str:
    """Return over how many blocks the first and the later losses of a consumer were compared."""
    if not any(blocks):
        return "no losses were compared, because that takes two loaders in two blocks"
    first, later = (counted(number, "block") for number in blocks)
    return f"the first losses were compared over {first}, the later ones over {later}"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, which ends in s unless the number is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _sentence(texts: Iterable[str]) -> str:
    found = "; ".join(texts)
    return f"{found}." if found else ""
