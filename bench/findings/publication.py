"""State in sentences how published figures compare with measured ones, and which of them do not hold here."""

from collections.abc import Iterator, Sequence

from loaderbench.findings.findings import Analysis, shown
from loaderbench.findings.replication import Replication

_EN_DASH, _TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
_SAME_SIZE = 0.1
"""A published size holds if the stored one differs by no more than this share."""


def published(analysis: Analysis) -> str:
    """Return the ranges of ratios as published and as measured here, or an empty string."""
    pairs = [p for p in analysis.replications if p.name != analysis.reference]
    told = [p.ratio for p in pairs if p.ratio]
    measured = [p.measured.mean for p in pairs if p.measured and p.ratio]
    equal = [p.equal.mean for p in pairs if p.equal and p.ratio] if analysis.setup_effects else []
    if not measured and not equal:
        return ""
    found = [("published", told), ("measured with that set-up", measured)]
    ranges = [f"{_range(ratios)} {what}" for what, ratios in (*found, ("with an equal set-up", equal)) if ratios]
    return f"times the reference: {', '.join(ranges)}."


def _range(values: Sequence[float]) -> str:
    return _EN_DASH.join(dict.fromkeys(map(shown, (min(values), max(values)))))


def contradicted(analysis: Analysis) -> Iterator[str]:
    """Yield a sentence for each published figure, relative to the reference's, that does not hold here.

    A speed does not hold if it lies outside the 95 % confidence interval for all published epochs.
    """
    for base in (p for p in analysis.replications if p.name == analysis.reference):
        for p in analysis.replications:
            if p is not base:
                yield from filter(None, (_speed(p, base), _size(p, base)))


def _speed(p: Replication, base: Replication) -> str:
    measured = p.measured
    if not p.ratios or not measured or measured.low is None or measured.high is None:
        return ""
    if min(p.ratios) <= measured.high and max(p.ratios) >= measured.low:
        return ""
    return (
        f"{p.title}: {_range(p.ratios)}{_TIMES} the speed of {base.title} was published; here it is "
        f"{shown(measured.mean)}{_TIMES} (95% CI {_range((measured.low, measured.high))})."
    )


def _size(p: Replication, base: Replication) -> str:
    if not (p.bytes_per_image and p.stored_bytes and base.bytes_per_image and base.stored_bytes):
        return ""
    told, stored = p.bytes_per_image / base.bytes_per_image, p.stored_bytes / base.stored_bytes
    if abs(stored / told - 1) <= _SAME_SIZE:
        return ""
    return (
        f"{p.title}: {shown(told)}{_TIMES} the bytes per image of {base.title} were published; here they are "
        f"{shown(stored)}{_TIMES}."
    )
