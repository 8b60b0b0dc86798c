"""Run one trial in one process or in its ranks or jobs. Only this room times batches."""

from loaderbench.trial.processes import measure
from loaderbench.trial.spec import TrialSpec, Window

__all__ = ["TrialSpec", "Window", "measure"]
