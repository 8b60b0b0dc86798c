"""The experiments of an examination, what follows from them, and the diagnosis that they lead to."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log, sqrt
from statistics import geometric_mean, mean, median, stdev
from typing import Any, Literal

from loaderbench.doctor.changes import Change
from loaderbench.doctor.experiment import Observation
from loaderbench.doctor.steps import SAMPLE, Step

AS_IS = "as it is"
IN_COLLATE = "the main process's work moved into the collate function, which the workers run"
Bottleneck = Literal[
    "none", "model", "cannot tell", "storage", "large images", "decoder", "transform", "hand-over", "too few workers",
    "too many workers", "library threads", "start of epochs", "prefetching", "collate", "main process",
    "shared lock", "memory leak", "data set's own code",
]  # fmt: skip
_FEWEST_RATIOS, _STANDARD_ERROR = 3, 0.04


@dataclass(frozen=True)
class Trial:
    """One experiment: what it changed, in words, and what was seen."""

    name: str
    change: Change
    observation: Observation | None
    """None: it failed."""
    reason: str
    """Why it failed."""

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that it changed."""
        return dict(self.change.settings)


@dataclass(frozen=True)
class Cure:
    """What helps."""

    what: str
    gain: float | None
    """Speed with it over speed as it is; None if it does not change the speed."""
    change: Change | None = None
    """What the experiments changed that measured the gain; None: it is worked out."""

    @property
    def measured(self) -> bool:
        """Return whether an experiment did it; otherwise the gain is worked out."""
        return self.change is not None


@dataclass(frozen=True)
class Diagnosis:
    """What holds the loader back."""

    bottleneck: Bottleneck
    sentence: str
    evidence: tuple[str, ...]
    """Three numbers, each with what it is."""
    cures: tuple[Cure, ...]
    """Best first."""
    samples_per_s: float
    waiting: float | None
    """Share of training time spent waiting for data, 0 to 1; None if the time of a step is unknown."""
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Case:
    """The experiments of one loader, and what follows from them."""

    trials: Sequence[Trial]
    cores: int
    step_s: float | None

    @property
    def plain(self) -> list[Observation]:
        """Return what was seen as it is, in the order of time."""
        return [trial.observation for trial in self.trials if trial.name == AS_IS and trial.observation]

    @property
    def speed(self) -> float:
        """Return the speed as it is, samples/s."""
        return median(o.samples_per_s for o in self.plain)

    def ratios(self, change: Change) -> list[float]:
        """Return the speed of each run with a change over that of the runs as it is just before and just after it."""
        alike = [(at, trial.observation) for at, trial in enumerate(self.trials) if trial.change == change]
        return [seen.samples_per_s / self._speed_around(at) for at, seen in alike if seen]

    def _speed_around(self, at: int) -> float:
        earlier, later = (Case(part, self.cores, None).plain for part in (self.trials[:at], self.trials[at:]))
        return mean(o.samples_per_s for o in (*earlier[-1:], *later[:1]))

    def gains(self) -> Iterator[tuple[float, Trial]]:
        """Yield the changes that ran, with their gain: the geometric mean of the ratios."""
        for trial in {trial.change: trial for trial in self.trials}.values():
            if trial.change != Change() and not trial.change.timed and (ratios := self.ratios(trial.change)):
                yield geometric_mean(ratios), trial

    def gain(self, fits: Callable[[Change], Any]) -> float | None:
        """Return the gain of the first change that fits and ran; None if there is none."""
        return next((gain for gain, trial in self.gains() if fits(trial.change)), None)

    def settled(self, cure: Cure) -> bool:
        """Return whether experiments measured the gain of a cure, and know it well."""
        return cure.change is not None and settled(self.ratios(cure.change))

    def steps(self, *, workers: bool) -> dict[str, Step]:
        """Return the timed steps, in worker processes or in the main process alone."""
        for trial in self.trials:
            if trial.change.timed and trial.observation and workers is not bool(trial.change.settings):
                return trial.observation.steps
        return {}

    def blocked(self, *, workers: bool) -> float:
        """Return the share of the time for a sample in which its process waits for something other than a core."""
        sample = self.steps(workers=workers).get(SAMPLE)
        return sample.blocked_s / sample.wall_s if sample and sample.wall_s else 0.0

    def waiting(self) -> list[float]:
        """Return the share of training time spent waiting for data, by run; none if the time of a step is unknown."""
        return [_waiting(o, self.step_s) for o in self.plain] if self.step_s is not None else []


def settled(ratios: Sequence[float]) -> bool:
    """Return whether the geometric mean of ratios of speeds is known to 4 % (standard error)."""
    if len(ratios) < _FEWEST_RATIOS:
        return False
    return stdev(log(ratio) for ratio in ratios) / sqrt(len(ratios)) <= _STANDARD_ERROR


def _waiting(seen: Observation, step_s: float) -> float:
    """Return the share of training time spent waiting, if every batch is followed by a step of `step_s`.

    Prefetching hides all of a batch's time but what exceeds the step.
    """
    steady_s = mean(seen.waits_s) if seen.waits_s else seen.batch_s
    per_epoch = seen.batches / max(seen.epochs, 1)
    begins_s = mean(seen.epoch_waits_s) if seen.epoch_waits_s else 0.0
    waits_s = begins_s + (per_epoch - 1) * max(steady_s - step_s, 0.0)
    return waits_s / (waits_s + per_epoch * step_s)
