"""The specification of one trial, as the harness hands it to a child process."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loaderbench.api import Artifact, Work
from loaderbench.records.record import Consumer


@dataclass(frozen=True)
class Window:
    """When the measurement window opens and closes."""

    warmup_s: float
    """Minimum time from the first batch to the opening."""
    window_s: float
    """Minimum length."""
    window_batches: int
    """Minimum number of batches."""
    pause_s: float | None
    """Pause after the window, in seconds, where the epoch has enough batches left. Batches that are ready when it ends
    were prefetched. None: no pause."""
    whole_epoch_s: float = math.inf
    """Continue until the first epoch is over, so that all of it is checked, if at the speed so far it ends within this
    time of the first request. 0: do not."""
    epochs: int = 0
    """If not 0, the window is instead of whole epochs, in which the data is read, and ends with the last batch of this
    one, counted from 1."""
    epochs_before: int = 0
    """Epochs before that window, which begins with the first batch after them: none, or those that fill the page
    cache."""


@dataclass(frozen=True)
class Peers:
    """The ranks or jobs of one trial, seen from one of them."""

    folder: Path
    """Where they signal each other by files."""
    index: int
    count: int


@dataclass(frozen=True)
class TrialSpec:
    """One contestant to be measured with one consumer."""

    loader: str
    artifact: Artifact
    work: Work
    window: Window
    times: Path
    """File for the raw times."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the loader."""
    consumer: Consumer = "hungry"
    """As stored in `Record`; `consumers.MODULES` names the module."""
    consumer_options: dict[str, Any] = field(default_factory=dict)
    jobs: int = 1
    """Independent processes that each load full epochs of the same data."""
    memory_group: Path | None = None
    """File of a control group that limits memory, into which a process writes its number to enter."""
    peers: Peers | None = None
    """None: the trial has one process only."""


@dataclass(frozen=True)
class ObserveSpec:
    """One contestant to be observed for its certificate."""

    loader: str
    artifact: Artifact
    work: Work
    options: dict[str, Any]
    scratch: Path = Path()
    """Folder in which each rank makes one of its own, copies the artifact to, and leaves its observations."""
    turn: Path = Path()
    """Folder whose lock lets observations, which take much memory, run one after the other."""


@dataclass(frozen=True)
class Several:
    """A task that several processes do together."""

    task: str
    """Dotted name."""
    spec: TrialSpec | ObserveSpec
    folder: Path
    """Where the processes signal each other and leave their raw times."""

    @property
    def jobs(self) -> int:
        """Number of jobs; 1 if the processes are ranks."""
        return self.spec.jobs if isinstance(self.spec, TrialSpec) else 1

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.jobs * self.spec.work.ranks

    def of(self, index: int) -> TrialSpec | ObserveSpec:
        """Return the specification for one rank, or for one job with a seed of its own."""
        spec, work = self.spec, replace(self.spec.work, rank=index)
        if self.jobs > 1:
            work = replace(self.spec.work, seed=work.own_seed)
        if isinstance(spec, ObserveSpec):
            return replace(spec, work=work)
        return replace(spec, work=work, times=self.times(index), peers=Peers(self.folder, index, self.count))

    def times(self, index: int) -> Path:
        """Return the file for the raw times of one process."""
        return self.folder / f"times{index}.npz"
