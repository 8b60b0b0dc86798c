"""What work does each contestant do? What was seen of it, in words and figures, and what of it was not asked for.

`loaderbench.certify.certify` makes the certificates.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from loaderbench.machine.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FILE = "certificates.json"
"""In a campaign's folder: the certificates by contestant."""
State = Literal["as asked", "other work", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What one contestant delivers."""

    faults: tuple[str, ...] = ()
    """What is not as the work asks for, in words."""
    failure: str = ""
    """Why nothing could be seen, or nothing."""
    of_originals: bool = False
    """Whether its crops were seen to be made of the original files, and not of canonical images."""
    traits: Mapping[str, str] = field(default_factory=dict)
    """How it does the work, as far as is seen from what it delivers."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What was measured of it: see `loaderbench.certify.certify`'s `shuffle`, `augmentation` and `pixels`."""
    seen_on: str = ""
    """What it was seen on."""

    @property
    def state(self) -> State:
        """Whether it is known to do the work."""
        return "unknown" if self.failure else "other work" if self.faults else "as asked"

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        """Say it in a few lines."""
        wrong = [f"  NOT AS ASKED: {text}" for text in (*self.faults, self.failure) if text]
        how = [f"  {name}: {trait}" for name, trait in self.traits.items()]
        return "\n".join([self.state, *wrong, *how])

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Certificate:
        """Return what `dataclasses.asdict` was made of."""
        return cls(**{**stored, "faults": tuple(stored["faults"])})


def load(folder: Path) -> dict[str, Certificate]:
    """Return the certificates in a campaign's folder by contestant; none if there are none."""
    try:
        stored = json.loads((folder / _FILE).read_text())
    except FileNotFoundError:
        return {}
    return {name: Certificate.from_dict(certificate) for name, certificate in stored.items()}


def save(certificates: Mapping[str, Certificate], folder: Path) -> None:
    """Write what `load` reads."""
    stored = {name: asdict(certificate) for name, certificate in certificates.items()}
    write_whole(folder / _FILE, json.dumps(stored, indent=1) + "\n")


def unranked_reason(contestant: str, reference: str, certificates: Mapping[str, Certificate]) -> str:
    """Return why a contestant's speed cannot be ranked with the reference's, in words; nothing if it can, or if the
    campaign has no certificates.
    """
    if not certificates:
        return ""
    own = certificates.get(contestant, Certificate(failure="it has no certificate"))
    if own.failure:
        return f"not certified: {own.failure}"
    if own.faults:
        return "; ".join(own.faults)
    others = certificates.get(reference, Certificate())
    if own.of_originals and not others.of_originals:
        return "crops are made of the original files, which is more work"
    if others.of_originals and not own.of_originals:
        return "crops are made of images shrunk beforehand, which is less work"
    return ""
