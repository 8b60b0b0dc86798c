"""Read the folder of one campaign: conditions, rows, raw times, certificates."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from loaderbench.machine.files import open_plain
from loaderbench.records import certificates, trials_csv
from loaderbench.records.certificates import Certificate
from loaderbench.records.record import Record
from loaderbench.records.timeline import Timeline

_ENV_SCHEMA = 1
_MOST_BYTES = 16 << 20
_LATER: dict[str, Any] = {
    "cold": [],
    "best": {},
    "tuning": {},
    "consumers": {},
    "stream": None,
    "published": None,
    "changes": [],
}
"""What campaigns of earlier versions lack, and so did not have."""
_NEEDED = ("git_commit", "git_dirty", "host", "gpu", "gpu_reason", "versions", "campaign", "data")


class CampaignFolder:
    """A campaign's folder. It reads each file on first use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def env(self) -> Mapping[str, Any]:
        """The conditions, from `env.json`. An earlier version's campaign gets the keys that it lacks.

        Raises FileNotFoundError, or ValueError if they have another schema or lack keys.
        """
        with open_plain(self.path / "env.json", _MOST_BYTES) as file:
            env: Mapping[str, Any] = json.load(file)
        if env.get("schema") != _ENV_SCHEMA:
            raise ValueError(
                f"{self.path / 'env.json'} has schema {env.get('schema')} instead of {_ENV_SCHEMA}; "
                f"use loaderbench {env.get('loaderbench', 'of the version that wrote it')}"
            )
        if missing := [key for key in _NEEDED if key not in env]:
            raise ValueError(f"{self.path / 'env.json'} lacks {', '.join(missing)}; restore it, or measure again")
        return {**env, "campaign": {**_LATER, **env["campaign"]}}

    @cached_property
    def rows(self) -> list[Record]:
        """The complete rows of `trials.csv`. Raises ValueError for columns that this version does not know."""
        return trials_csv.read(self.path / "trials.csv")

    @cached_property
    def header(self) -> tuple[str, ...]:
        """The columns with which its rows were sealed."""
        return trials_csv.header_of(self.path / "trials.csv")

    @cached_property
    def certificates(self) -> Mapping[str, Certificate]:
        """The certificates by contestant; none if there are none."""
        return certificates.load(self.path)

    def seal(self, row: Record) -> str:
        """Return the seal that a row must have. Raises FileNotFoundError without its raw times."""
        return trials_csv.seal(row, self.path, self.header)

    def has_times(self, row: Record) -> bool:
        """Return whether the raw times of a row are there. Raises ValueError for a name that leads elsewhere."""
        return bool(row.times) and trials_csv.times_path(row, self.path).is_file()

    def timeline(self, row: Record) -> Timeline | None:
        """Return the raw times of a row; None if it has none, or if their file is missing."""
        return Timeline.load(trials_csv.times_path(row, self.path)) if self.has_times(row) else None
