"""Find what holds a data loader back, and measure what would help: experiments on the user's own loader."""

from loaderbench.doctor.case import Cure, Diagnosis
from loaderbench.doctor.examination import examine, step_time
from loaderbench.doctor.watching import watch

__all__ = ["Cure", "Diagnosis", "examine", "step_time", "watch"]
