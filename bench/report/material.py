"""What the sections of a report are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from loaderbench.findings import titles
from loaderbench.findings.findings import Analysis
from loaderbench.records.certificates import Certificate


@dataclass(frozen=True)
class Material:
    """A campaign as its folder keeps it, its findings, and which pictures were drawn."""

    env: Mapping[str, Any]
    """The content of `env.json`."""
    analysis: Analysis
    certified: Mapping[str, Certificate]
    """Certificates by contestant."""
    unreadable: int
    """Number of images that could not be read."""
    examples: Sequence[Mapping[str, str]]
    """The first of them, with `path` and `reason`."""
    pictures: Mapping[str, str]
    """Titles of the drawn pictures by file."""

    @property
    def campaign(self) -> Mapping[str, Any]:
        """The campaign as `env.json` keeps it, with distinct titles."""
        return titles.distinct(self.env["campaign"])

    @property
    def processes(self) -> int:
        """How many ranks or jobs run together."""
        work = self.campaign["work"]
        return int((work.get("ranks") or 1) * (work.get("jobs") or 1))

    @property
    def process_noun(self) -> str:
        """What one of several processes is called: `job` or `rank`; an empty string for a single process."""
        if self.processes == 1:
            return ""
        return "job" if (self.campaign["work"].get("jobs") or 1) > 1 else "rank"

    @property
    def workers(self) -> int:
        """How many workers each loader has, in each rank or job."""
        workers = self.campaign["work"]["workers"]
        return max(1, ceil(self.cores) // self.processes) if workers == "cores" else int(workers)

    @property
    def cores(self) -> float:
        """How many cores' time trials may use: the allowed cores, or a CPU quota that is less."""
        host = self.env["host"]
        return float(min(host["cores_allowed"], host.get("cpu_quota_cores") or host["cores_allowed"]))
