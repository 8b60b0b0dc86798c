"""Checks of the names in a campaign: that they are known, and distinct."""

from collections.abc import Iterable


def known(what: str, names: Iterable[str], there: Iterable[str]) -> None:
    """Raise ValueError unless all names are among those that there are."""
    if unknown := sorted(set(names) - set(there)):
        raise ValueError(f"{what} {', '.join(unknown)}; there are: {', '.join(there)}")


def distinct(what: str, names: Iterable[str]) -> None:
    """Raise ValueError if a name occurs more than once."""
    names = list(names)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} named more than once: {', '.join(repeated)}")
