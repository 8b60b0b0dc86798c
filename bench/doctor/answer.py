"""Write a diagnosis as text that fits a terminal, and as Markdown."""

from collections.abc import Iterator

from loaderbench.doctor.case import Cure, Diagnosis

_CURES = 2


def lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield the answer, line by line: the verdict, its evidence, and the first cures."""
    yield f"{diagnosis.sentence} (bottleneck: {diagnosis.bottleneck})"
    for number in diagnosis.evidence:
        yield f"  - {number}"
    if diagnosis.waiting is not None:
        yield f"Training waits for data {diagnosis.waiting:.0%} of the time."
    if diagnosis.cures:
        yield "What helps:"
    for place, cure in enumerate(diagnosis.cures[:_CURES], 1):
        yield f"  {place}. {cure.what}{_gain(cure)}"


def _gain(cure: Cure) -> str:
    if cure.gain is None:
        return ""
    return f": {cure.gain:.2f} times the speed, {'measured' if cure.measured else 'worked out, not measured'}"


def markdown(diagnosis: Diagnosis, target: str) -> str:
    """Return the answer as Markdown, with all experiments."""
    rows = [
        f"| {trial.name} | {trial.observation.samples_per_s:,.0f} | "
        f"{trial.observation.samples_per_s / diagnosis.samples_per_s:.2f} | |"
        if trial.observation
        else f"| {trial.name} | - | - | {trial.reason} |"
        for trial in diagnosis.trials
    ]
    table = ["| Experiment | Samples/s | Times as it is | Why not |", "|---|--:|--:|---|", *rows]
    return "\n".join([f"# What holds back {target}?", "", *lines(diagnosis), "", *table, ""])
