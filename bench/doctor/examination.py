"""Run the experiments on a user's loader, each in a fresh process, and diagnose."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaderbench.doctor.case import AS_IS, IN_COLLATE, Case, Diagnosis, Trial
from loaderbench.doctor.changes import Change
from loaderbench.doctor.experiment import Experiment, Observation
from loaderbench.doctor.steps import COLLATE, READER, SAMPLE
from loaderbench.doctor.targets import command_of
from loaderbench.doctor.verdict import decide, diagnose
from loaderbench.machine.cores import core_count
from loaderbench.machine.errors import FixableError
from loaderbench.machine.process import run_child

_LIMIT_S, _STEP_S = 120.0, 2.0
_MOST_REPETITIONS = 8
"""How often the first two cures are tried again at most: the best of many experiments is also the luckiest."""
_WORTH_REPLAYING = 0.2
"""Share of the work from which a step is worth an experiment of its own."""
_BLOCKED, _HANDED_OVER_MIB = 0.2, 1.0


class DoctorError(FixableError):
    """The user's loader could not be run as it is."""


@dataclass(frozen=True)
class _Doctor:
    """What all experiments of one examination have in common."""

    target: str
    folder: Path
    seconds: float
    say: Callable[[str], None]

    def trial(self, name: str, change: Change) -> Trial:
        """Run one experiment."""
        spec = Experiment(self.target, str(self.folder), self.seconds, change)
        report = _report("run", spec)
        observation = report.get("observation")
        told = f"{observation.samples_per_s:,.0f} samples/s" if observation else report["reason"]
        self.say(f"{name}: {told}")
        return Trial(name, change, observation, report["reason"])

    def step_s(self) -> float | None:
        """Return the seconds that the command's training step takes; None if it cannot be timed."""
        report = _report("time_step", (Experiment(self.target, str(self.folder), _STEP_S), None))
        step_s: float | None = report.get("step_s")
        self.say(f"a training step: {step_s * 1000:,.1f} ms" if step_s else f"no step timed: {report['reason']}")
        return step_s


def _report(task: str, spec: Any) -> dict[str, Any]:
    """Run a function of `experiment` in a child process, with all of the user's variables, and return its report."""
    with tempfile.TemporaryDirectory() as scratch:
        name = f"loaderbench.doctor.experiment.{task}"
        return run_child(name, spec, Path(scratch, "log"), _LIMIT_S, environment=os.environ)


def _is_torch(seen: Observation) -> bool:
    return "prefetch_factor" in seen.settings


def _nothing(_: str) -> None:
    """Say nothing."""


def examine(
    target: str,
    *,
    folder: Path | None = None,
    seconds: float = 4.0,
    step_s: float | None = None,
    say: Callable[[str], None] = _nothing,
) -> Diagnosis:
    """Find what holds back the loader that `target` makes, and measure what would help.

    `target`: `module:callable`; the callable returns an iterable of batches, or a Lightning DataModule. Or the command
    that trains, such as `main.py /data`; it is stopped when it asks a torch DataLoader for the first batch to train on.
    It runs in child processes of this Python, once for each experiment. `folder`: where the module or script is looked
    for first; by default the current one. `seconds`: length of each experiment's window. `step_s`: time that a training
    step takes; the doctor times that of a command itself.

    Raises DoctorError if the loader does not run as it is.
    """
    doctor = _Doctor(target, folder or Path.cwd(), seconds, say)
    first = doctor.trial(AS_IS, Change())
    if first.observation is None:
        raise DoctorError(f"{target} does not run as it is: {first.reason}")
    if step_s is None and command_of(target):
        step_s = doctor.step_s()
    trials = [first, *(doctor.trial(name, change) for name, change in _settings(first.observation))]
    trials.append(doctor.trial(AS_IS, Change()))
    if _is_torch(first.observation):
        alone = doctor.trial("without workers, each step timed", _without_workers())
        if first.observation.settings["num_workers"]:
            trials.append(doctor.trial("each step timed", Change(timed=True)))
        trials += [alone, *(doctor.trial(name, change) for name, change in _replacements(first.observation, alone))]
        trials.append(doctor.trial(AS_IS, Change()))
    for _ in range(_MOST_REPETITIONS):
        case = Case(trials, core_count(), step_s)
        unsettled = [
            (cure.what, cure.change) for cure in decide(case).cures[:2] if cure.change and not case.settled(cure)
        ]
        if not unsettled:
            break
        trials += [doctor.trial(*unsettled[0]), doctor.trial(AS_IS, Change())]
    return diagnose(trials, core_count(), step_s)


def step_time(target: str, step: str, folder: Path | None = None) -> float:
    """Return the median time in seconds that the user's training step takes on one batch of the loader.

    `step`: `module:callable` that takes a batch. Raises DoctorError.
    """
    experiment = Experiment(target, str(folder or Path.cwd()), _STEP_S)
    report = _report("time_step", (experiment, step))
    if report["status"] != "ok":
        raise DoctorError(f"the training step {step} does not run: {report['reason']}")
    return float(report["step_s"])


def _without_workers() -> Change:
    return Change(settings=(("num_workers", 0),), timed=True)


def _settings(seen: Observation) -> Iterator[tuple[str, Change]]:
    """Yield experiments with other settings."""
    workers = seen.settings.get("num_workers")
    if workers is None:
        return
    cores = core_count()
    for number in sorted({1, workers // 2, cores, 2 * workers} - {workers, 0}):
        if number <= max(2 * cores, workers):
            yield f"{number} worker{'s' if number > 1 else ''}", Change(settings=(("num_workers", number),))
    if not workers or not _is_torch(seen):
        return
    if not seen.settings["persistent_workers"] and seen.epochs:
        yield "persistent workers", Change(settings=(("persistent_workers", True),))
    yield "tensors shared as files", Change(sharing="file_system")
    yield "one library thread in each worker", Change(library_threads=1)
    deeper = 4 * (seen.settings["prefetch_factor"] or 2)
    yield f"{deeper} batches prefetched by each worker", Change(settings=(("prefetch_factor", deeper),))
    if seen.batch.float_bytes >= _HANDED_OVER_MIB * 2**20:
        yield "batches handed over as bytes", Change(as_bytes=True)


def _replacements(seen: Observation, alone: Trial) -> Iterator[tuple[str, Change]]:
    """Yield experiments in which a step costs nothing, or reads and decodes in another way."""
    if seen.inside_s is not None and seen.inside_s < (1 - _WORTH_REPLAYING) * seen.window_s:
        yield "the DataLoader without what the main process adds", Change(without_wrapper=True)
        if workers := seen.settings["num_workers"]:
            yield IN_COLLATE, Change(by_workers=workers)
    if alone.observation is None:
        return
    steps = alone.observation.steps
    total_s = sum(step.own_s for step in steps.values())
    yield "the same sample again and again", Change(replayed=(SAMPLE,))
    for name, step in steps.items():
        if (name == COLLATE or name.startswith("transform")) and step.own_s > _WORTH_REPLAYING * total_s:
            yield f"{name} at no cost", Change(replayed=(name,))
    sample = steps.get(SAMPLE)
    if READER in steps and sample:
        if sample.blocked_s > _BLOCKED * sample.wall_s:
            yield "local copies of the files", Change(reader="local copies")
        if steps[READER].wall_s > _WORTH_REPLAYING * total_s:
            yield "256 px copies of the files", Change(reader="256 px copies")
            yield "files decoded by torchvision.io", Change(reader="torchvision.io")
