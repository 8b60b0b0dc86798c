"""Find what holds training back, and measure what would help: on the user's images, or in the user's own loader."""

from typing import TYPE_CHECKING, Any

from loaderbench.doctor.case import Cure, Diagnosis
from loaderbench.doctor.examination import examine, step_time
from loaderbench.doctor.watching import watch

if TYPE_CHECKING:
    from loaderbench.doctor.on_data import examine_data

__all__ = ["Cure", "Diagnosis", "examine", "examine_data", "step_time", "watch"]


def __getattr__(name: str) -> Any:
    """Import on first use what a running training, which `watch` is for, does not need."""
    if name == "examine_data":
        from loaderbench.doctor.on_data import examine_data

        return examine_data
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
