"""What did somebody publish that a campaign repeats, and what does it change of it? Two tables of a campaign file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


class PublishedFigures(_Table):
    """What somebody published of one contestant."""

    images_per_s: tuple[float, ...] = Field(min_length=1)
    """Of each epoch."""
    size_gib: float | None = Field(None, gt=0)
    """Of the whole data set, in units of 2^30 bytes."""


class PublishedTable(_Table):
    """A comparison that somebody published, which the campaign repeats."""

    source: str
    """Where, on what."""
    images: int = Field(ge=1)
    """In the data set that was measured."""
    contestants: dict[str, PublishedFigures]
    """By the names that the campaign gives them; the reference is one of them."""


class ChangeTable(_Table):
    """Two contestants between which one thing differs."""

    from_: str = Field(alias="from")
    to: str
    what: str
    """What differs, in a few words."""


def agree(
    published: PublishedTable | None, changes: Sequence[ChangeTable], competing: Sequence[str], reference: str
) -> None:
    """Raise ValueError unless both name contestants that compete, and the changes are chains."""
    named = list(published.contestants) if published else []
    ends = [name for change in changes for name in (change.from_, change.to)]
    for what, names in (("published", named), ("changes", ends)):
        if unknown := sorted(set(names) - set(competing)):
            message = f"{what} names no contestant: {', '.join(unknown)}; there are: {', '.join(competing)}"
            raise ValueError(message)
    if published and reference not in named:
        message = f"published has no figures of the reference, {reference}, to compare the others with"
        raise ValueError(message)
    after: dict[str, str] = {}
    for change in changes:
        if change.from_ in after:
            message = f"more than one of the changes starts from {change.from_}"
            raise ValueError(message)
        after[change.from_] = name = change.to
        while name in after and name != change.from_:
            name = after[name]
        if name == change.from_:
            message = f"the changes from {change.from_} come round to it"
            raise ValueError(message)
