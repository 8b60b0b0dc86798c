"""Decide which bottleneck a loader has, and which cures help."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from loaderbench.doctor.case import IN_COLLATE, Bottleneck, Case, Cure, Diagnosis, Trial
from loaderbench.doctor.experiment import Observation
from loaderbench.doctor.steps import COLLATE, READER, SAMPLE

_STEADY = 1.25
"""Fastest over slowest run as it is. Above, a gain counts if it exceeds the fastest of them, or is known well."""
_ELSEWHERE = 0.2
"""If other programs take a larger share of the cores, too: more workers would gain by taking cores from them."""
_GAIN = 1.15
"""Gain from which a setting counts as a cure."""
_MET = 0.05
"""Share of training time spent waiting, below which the demand is met."""
_AS_GOOD = 0.9
"""Share of the largest gain, from which another setting explains it."""
_CAUSES = (("start of epochs", "too many workers"), ("too many workers", "library threads"))
"""Bottlenecks, each with its possible cause, which is named if its cure helps about as much."""
_MAIN, _BLOCKED, _UNBLOCKED = 0.5, 0.5, 0.2
_LEAK_MIB, _EVEN = 24.0, 0.5
_LARGE = 2.5
"""Decoded pixels over those of a 256 px copy, from which images are larger than needed."""
_COPY_PIXELS = 256 * 192


@dataclass(frozen=True)
class Decision:
    """What the experiments show, if the machine was steady enough."""

    bottleneck: Bottleneck
    sentence: str
    evidence: Sequence[str]
    cures: Sequence[Cure]
    """Best first."""
    gain: float
    """The gain of speed that shows the bottleneck; infinite if something else shows it, such as memory that grows."""


def diagnose(trials: Sequence[Trial], cores: int, step_s: float | None = None) -> Diagnosis:
    """Return the diagnosis. `trials`: those of one examination, in the order of time."""
    case = Case(trials, cores, step_s)
    found = decide(case)
    if doubt := _doubt(case, found):
        sentence = "The machine is too unsteady to tell: run again while it is idle."
        found = Decision("cannot tell", sentence, [doubt], [], inf)
    waiting = median(case.waiting()) if case.waiting() else None
    return Diagnosis(
        found.bottleneck, found.sentence, tuple(found.evidence), tuple(found.cures), case.speed, waiting, tuple(trials)
    )  # fmt: skip


def decide(case: Case) -> Decision:
    """Return what the experiments show, whether or not the machine was steady."""
    looks = (_leak, _met, _storage, _main_process, _setting, _lock, _largest_step)
    return next((found for look in looks if (found := look(case))), None) or _none(case)


def _doubt(case: Case, found: Decision) -> str | None:
    """Return the evidence that nothing can be said; None if something can."""
    speeds, cure = [o.samples_per_s for o in case.plain], next(iter(found.cures), None)
    known = cure and case.settled(cure)
    if max(speeds) > _STEADY * min(speeds) and found.gain < _GAIN * (1.0 if known else max(speeds) / case.speed):
        shown = ", ".join(f"{speed:,.0f}" for speed in speeds)
        return f"{shown} samples/s in {len(speeds)} runs without a change"
    if (elsewhere := median(o.elsewhere for o in case.plain)) > _ELSEWHERE:
        return f"other programs took {elsewhere:.0%} of the cores in the runs without a change"
    return None


def _none(case: Case) -> Decision:
    return Decision("none", "No change that was tried makes this loader faster.", _general(case), [], 0.0)


def _general(case: Case) -> list[str]:
    last = case.plain[-1]
    return [
        f"{case.speed:,.0f} samples/s as it is",
        f"{last.cpu_s / last.window_s:.1f} of {case.cores} cores busy",
        f"{last.batch.bytes / 2**20:,.1f} MiB in a batch",
    ]


def _leak(case: Case) -> Decision | None:
    growths = [_growth(o) for o in case.plain]
    if not all(growths):
        return None
    per_batch = median(growth for growth in growths if growth)
    return Decision(
        "memory leak",
        "The memory of the loader's processes grows with every batch, until none is left.",
        [f"{per_batch:,.1f} MiB more after each batch", *_general(case)[:2]],
        [Cure("keep nothing of earlier samples in the data set, transforms or collate function", None)],
        inf,
    )


def _growth(seen: Observation) -> float | None:
    """Return the MiB by which memory grows per batch; None unless it grows evenly over the window."""
    if len(seen.memory) < 4:  # noqa: PLR2004 - two for each half
        return None
    (first, start), (middle, half), (last, end) = seen.memory[0], seen.memory[len(seen.memory) // 2], seen.memory[-1]
    if end - start < _LEAK_MIB or end - half < _EVEN * (half - start) * (last - middle) / max(middle - first, 1):
        return None
    return (end - start) / max(last - first, 1)


def _met(case: Case) -> Decision | None:
    waiting = case.waiting()
    if not waiting or not case.step_s or median(waiting) >= _MET:
        return None
    batch = case.plain[-1].samples / case.plain[-1].batches
    return Decision(
        "model",
        "Training does not wait for this loader: what bounds it is the model, not the data.",
        [
            f"{case.speed:,.0f} samples/s delivered",
            f"{batch / case.step_s:,.0f} samples/s taken by a step of {case.step_s * 1000:,.0f} ms",
            f"{median(waiting):.0%} of the training time spent waiting",
        ],
        [],
        inf if max(waiting) < _MET else 0.0,
    )


def _storage(case: Case) -> Decision | None:
    alone = case.steps(workers=False)
    if case.blocked(workers=False) < _BLOCKED:
        return None
    sample = alone[SAMPLE]
    cures = _cures(case, lambda trial: trial.change.reader == "local copies" or "num_workers" in trial.settings)
    return Decision(
        "storage",
        "Reading the files takes most of the time: the storage answers slowly.",
        [
            f"{sample.blocked_s / sample.calls * 1000:,.1f} ms for a sample are spent waiting for storage",
            *_general(case)[:2],
        ],
        cures or [Cure("files on a faster or local disk, or in fewer and larger files", None)],
        inf,
    )


def _main_process(case: Case) -> Decision | None:
    last = case.plain[-1]
    workers = last.settings.get("num_workers")
    if last.inside_s is None or not workers or last.window_s - last.inside_s < _MAIN * last.window_s:
        return None
    only = case.gain(lambda change: change.without_wrapper)
    if only is not None and only < _GAIN:
        return None  # the DataLoader itself is no faster: what takes the time outside it is letting go of batches
    if case.gain(lambda change: change.by_workers) is None:
        cures = [Cure(IN_COLLATE, None)]
    else:
        cures = _cures(case, lambda trial: bool(trial.change.by_workers))
    outside = last.window_s - last.inside_s
    return Decision(
        "main process",
        "The main process works on batches itself, one after the other, while the workers wait.",
        [
            f"{outside / last.window_s:.0%} of the time is spent outside the DataLoader",
            f"{outside / last.batches * 1000:,.1f} ms for each batch there",
            _general(case)[1],
        ],
        cures,
        only or 0.0,
    )


def _setting(case: Case) -> Decision | None:
    """Return the setting that gains most, if it gains enough."""
    found = sorted(
        ((gain, trial, kind) for gain, trial in case.gains() if gain >= _GAIN and (kind := _kind(case, trial))),
        key=lambda one: -one[0],
    )
    if not found:
        return None
    best = found[0]
    for relieved, cause in _CAUSES:
        other = next((one for one in found if one[2][0] == cause), None)
        if other and other[0] > _AS_GOOD * best[0] and best[2][0] == relieved:
            best = other
    gain, trial, (bottleneck, sentence) = best
    cures = [
        Cure(trial.name, gain, trial.change) for gain, trial, _ in (best, *(one for one in found if one is not best))
    ]
    evidence = [f"{gain:.2f} times as fast with {trial.name}", *_general(case)[:2]]
    return Decision(bottleneck, sentence, evidence, cures, gain)


def _kind(case: Case, trial: Trial) -> tuple[Bottleneck, str] | None:  # noqa: PLR0911 - one for each setting
    """Return which bottleneck a changed setting relieves."""
    settings, workers = trial.settings, case.plain[0].settings.get("num_workers") or 0
    if trial.change.library_threads:
        return "library threads", "Each worker's libraries start threads of their own, and all compete for the cores."
    if trial.change.as_bytes or trial.change.sharing:
        return "hand-over", "Handing batches of floats from the workers to the main process takes most of the time."
    if "persistent_workers" in settings:
        return "start of epochs", "Every epoch starts new workers, and training waits for their first batches."
    if "prefetch_factor" in settings:
        return "prefetching", "Batches take unequal times, and too few are prefetched to even that out."
    if "num_workers" in settings:
        if settings["num_workers"] > workers:
            return "too few workers", "The loader has too few workers for the cores of this machine."
        return "too many workers", "The loader has more workers than the cores can serve."
    return None


def _lock(case: Case) -> Decision | None:
    shared, alone = case.blocked(workers=True), case.blocked(workers=False)
    if shared < _UNBLOCKED + alone or alone > _UNBLOCKED:
        return None
    sample = case.steps(workers=False)[SAMPLE]
    gain = min(case.plain[0].settings["num_workers"], case.cores) * sample.calls / sample.wall_s / case.speed
    return Decision(
        "shared lock",
        "The workers wait for each other: only one of them works at a time.",
        [
            f"{shared:.0%} of a worker's time for a sample is spent waiting for something that is no core",
            f"{alone:.0%} without workers",
            _general(case)[1],
        ],
        [
            Cure(
                "give each worker a file handle, connection or cache of its own instead of the one behind the lock",
                gain,
            )
        ],
        gain,
    )


def _largest_step(case: Case) -> Decision | None:
    steps = case.steps(workers=False)
    if not steps:
        return None
    total_s, calls = sum(step.own_s for step in steps.values()), steps[SAMPLE].calls
    shares = {name: step.own_s / total_s for name, step in steps.items()}
    reading = sum(share for name, share in shares.items() if name.startswith(("read", "decode", "convert", READER)))
    others = {name: share for name, share in shares.items() if name == COLLATE or name.startswith("transform")}
    largest = max(others, key=lambda name: others[name], default="")
    decoding = _decoding(case, reading, total_s / calls)
    if shares[SAMPLE] > max(reading, others.get(largest, 0.0)):
        where: Bottleneck = "data set's own code"
        share = shares[SAMPLE]
        sentence = "The data set's own code, apart from reading, decoding and transforms, takes most of the time."
        cures: list[Cure] = []
    elif largest and others[largest] > reading:
        where = "collate" if largest == COLLATE else "transform"
        share, sentence = others[largest], f"{largest.capitalize()} takes most of the time."
        cures = _cures(case, lambda trial: trial.change.replayed == (largest,))
        if decoding.gain >= max(_GAIN, _AS_GOOD * _first(cures)):
            return decoding  # a step at no cost is a bound, and another decoder can be had
        cures += decoding.cures
    else:
        return decoding
    evidence = [
        f"{share:.0%} of the work is {largest if cures else where}",
        f"{share * total_s / calls * 1000:,.2f} ms of {total_s / calls * 1000:,.2f} ms for a sample",
        _general(case)[1],
    ]
    return Decision(where, sentence, evidence, cures, _first(cures))


def _decoding(case: Case, share: float, sample_s: float) -> Decision:
    decoded = (t.observation.decoded_pixels for t in case.trials if t.observation)
    pixels = next(filter(None, decoded), None)
    large = pixels is not None and pixels > _LARGE * _COPY_PIXELS
    cures = _cures(case, lambda trial: trial.change.reader in ("256 px copies", "torchvision.io"))
    if large:
        sentence = "Decoding takes much of the time, and the images are larger than training needs."
    else:
        sentence = "Decoding takes much of the time."
    size = [f"{pixels:,.0f} pixels in a decoded image"] if pixels else []
    evidence = [f"{share:.0%} of the work is reading and decoding", f"{share * sample_s * 1000:,.2f} ms for a sample"]
    bottleneck: Bottleneck = "large images" if large else "decoder"
    return Decision(bottleneck, sentence, [*evidence, *size, _general(case)[1]][:3], cures, _first(cures))


def _cures(case: Case, fits: Callable[[Trial], bool]) -> list[Cure]:
    found = [Cure(trial.name, gain, trial.change) for gain, trial in case.gains() if fits(trial) and gain > 1]
    return sorted(found, key=lambda cure: -(cure.gain or 0))


def _first(cures: Sequence[Cure]) -> float:
    """Return the gain of the first cure; 0 if there is none."""
    return next((cure.gain or 0.0 for cure in cures), 0.0)
