"""At which settings may a contestant be tried? What a campaign file says of the search for the best, and its checks."""

from __future__ import annotations

import operator
import os
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_OF_CORES = {"-": operator.sub, "+": operator.add, "*": operator.mul, "/": operator.floordiv}


class Best(BaseModel):
    """What the search may change of one contestant, to bring it to its best."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    """The contestant's name where it is at its best: without the settings that may change."""
    settings: dict[str, tuple[Any, ...]] = Field(min_length=1)
    """Values to try of the loader's options and of `workers`, in this order; the contestant's own is put first.
    `workers` may be relative to the allowed cores: `cores`, `cores-1`, `cores+1`, `cores*2`, `cores/2`."""

    def beginning_with(self, own: dict[str, Any]) -> Best:
        """Return the same with the workers numbered and, of each setting, the contestant's own value first."""
        settings = {
            name: _distinct([own[name], *(map(count_workers, values) if name == "workers" else values)])
            for name, values in self.settings.items()
        }
        return self.model_copy(update={"settings": settings})


class Tuning(BaseModel):
    """How long to search for a contestant's best settings, and what they may use beside the allowed cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(24, ge=4)
    """At most this many for each contestant; 4 suffice to try one value."""
    memory_mib: int | None = Field(None, ge=1)
    """Settings whose anonymous and shared memory exceeds this are out; null: any amount will do."""
    warmup_s: float = Field(1.5, ge=0)
    window_s: float = Field(3.0, gt=0)


def count_workers(workers: int | str) -> int:
    """Return a number of workers, which may be relative to the allowed cores, as one that is not. Raises ValueError."""
    if isinstance(workers, int):
        return workers
    if not (relative := re.fullmatch(r"cores(?:([-+*/])([1-9]\d*))?", str(workers))):
        message = f"workers {workers} is no number, and none like cores, cores-1, cores+1, cores*2 or cores/2"
        raise ValueError(message)
    cores, (sign, by) = len(os.sched_getaffinity(0)), relative.groups()
    return max(1, _OF_CORES[sign](cores, int(by))) if sign else cores


def _distinct(values: list[Any]) -> tuple[Any, ...]:
    """Return the values without repetitions; a list among them has no hash."""
    return tuple(value for place, value in enumerate(values) if value not in values[:place])
