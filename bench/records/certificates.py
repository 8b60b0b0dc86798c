"""Certificates: what work each contestant was seen to do, and how it differs from the requested work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from loaderbench.machine.files import open_plain, write_whole
from loaderbench.records.record import Record

_FILE = "certificates.json"
_MOST_BYTES = 64 << 20
State = Literal["as requested", "different work", "unknown", "unavailable"]
UNAVAILABLE = "unavailable"
"""How a failure begins if the contestant cannot run here: a library is missing, or it does not support the work."""

WHOLE_SET = "whole_set_"
"""How figures on the order of all images begin, in contrast to those on the probe."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The work of one contestant."""

    faults: tuple[str, ...] = ()
    """How its work differs from the requested work, in words."""
    failure: str = ""
    """The status, as in `Record`, and reason if its work could not be observed, otherwise an empty string."""
    of_originals: bool = False
    """Whether it crops the original files instead of canonical images."""
    traits: Mapping[str, str] = field(default_factory=dict)
    """How it does the work, by name, as far as its output shows."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Measurements of its output, see `shuffle`, `augmentation` and `pixels` in `loaderbench.certify`."""
    seen_on: str = ""
    """The images on which it was observed."""

    @property
    def state(self) -> State:
        """Whether it does the requested work."""
        if self.failure:
            return "unavailable" if self.failure.startswith(UNAVAILABLE) else "unknown"
        return "different work" if self.faults else "as requested"

    @property
    def digest(self) -> str:
        """SHA-256 of the whole certificate."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        first = self.failure if self.state == "unavailable" else ": ".join(filter(None, [self.state, self.failure]))
        wrong = [f"  NOT AS REQUESTED: {text}" for text in self.faults]
        how = [f"  {name}: {trait}" for name, trait in self.traits.items()]
        return "\n".join([first, *wrong, *how])

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Certificate:
        """Return a certificate from the dictionary that `dataclasses.asdict` made."""
        return cls(**{**stored, "faults": tuple(stored["faults"])})


def load(folder: Path) -> dict[str, Certificate]:
    """Return the certificates in a campaign's folder, by contestant; empty without a file."""
    try:
        with open_plain(folder / _FILE, _MOST_BYTES) as file:
            stored = json.load(file)
    except FileNotFoundError:
        return {}
    return {name: Certificate.from_dict(certificate) for name, certificate in stored.items()}


def save(certificates: Mapping[str, Certificate], folder: Path) -> None:
    """Write the certificates to a campaign's folder."""
    stored = {name: asdict(certificate) for name, certificate in certificates.items()}
    write_whole(folder / _FILE, json.dumps(stored, indent=1) + "\n")


def tuned(contestant: str) -> str:
    """Return the name of a contestant's certificate at the best settings that the search found."""
    return f"{contestant}/best"


def of(contestant: str, track: str, certificates: Mapping[str, Certificate]) -> Certificate | None:
    """Return the certificate of a contestant's rows, by their track.

    Earlier versions certified contestants at their own settings only.
    """
    own = certificates.get(contestant)
    return certificates.get(tuned(contestant), own) if track == "best" else own


def digest(row: Record, certificates: Mapping[str, Certificate]) -> str:
    """Return the digest of a row's certificate; empty without one, and for a search, whose settings have none."""
    own = of(row.contestant or "", row.track, certificates) if row.kind == "load" else None
    return own.digest if own else ""


def unranked_reason(
    contestant: str, reference: str, certificates: Mapping[str, Certificate], track: str = "same"
) -> str:
    """Return why a contestant's rows of one track cannot be ranked with the reference's.

    Empty if they can, or if the campaign has no certificates.
    """
    if not certificates:
        return ""
    own = of(contestant, track, certificates) or Certificate(failure="it has no certificate")
    if own.failure:
        return f"not certified: {own.failure}"
    if own.faults:
        return "; ".join(own.faults)
    others = of(reference, track, certificates) or Certificate()
    if own.of_originals and not others.of_originals:
        return "it crops the original files, which is more work"
    if others.of_originals and not own.of_originals:
        return "it crops images that were resized beforehand, which is less work"
    return ""
