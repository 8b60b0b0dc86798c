"""The table of a campaign file that says which contestants run with several numbers of workers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from loaderbench.campaign.schema import Consumers, Table, count_workers
from loaderbench.machine.cores import core_count


class Scaling(Table):
    """Contestants that also run with other numbers of workers, each once in every block."""

    contestants: tuple[str, ...] = Field(min_length=1)
    workers: tuple[Annotated[int, Field(ge=1)], ...] = Field((), validate_default=True)
    """Numbers of workers, which may be relative to the usable cores as in `best`. Default: 1, 2, 4 and so on up to the
    cores, the cores, and twice the cores. The campaign's own number is left out, because every contestant runs with
    it."""
    consumer: Literal["hungry", "train"] = "hungry"
    """What takes the batches: the default consumer (drain), or training. What trains with several numbers of workers
    must be in `consumers.train` too."""

    @field_validator("workers", mode="before")
    @classmethod
    def _as_numbers(cls, given: Any) -> tuple[int, ...]:
        cores = core_count()
        doubling = [1 << power for power in range(cores.bit_length()) if 1 << power <= cores]
        return tuple(sorted(set(map(count_workers, given or [*doubling, cores, 2 * cores]))))

    def checked(self, consumers: Consumers) -> Scaling:
        """Return the table. Raises ValueError if a contestant shall train that is not in `consumers.train`."""
        trained = consumers.train.contestants if consumers.train else ()
        if self.consumer == "train" and (lacking := [name for name in self.contestants if name not in trained]):
            raise ValueError(f'scaling with consumer = "train": add to consumers.train: {", ".join(lacking)}')
        return self

    def without(self, workers: int) -> Scaling:
        """Return the table without the campaign's own number of workers."""
        return self.model_copy(update={"workers": tuple(n for n in self.workers if n != workers)})
