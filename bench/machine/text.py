"""Put paths and lists of names into messages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_NAMED = 10


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path in one line of valid UTF-8: other bytes and control characters as `\x..`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda m: m[0].encode("unicode_escape").decode("ascii"), text)


def names(paths: Sequence[str]) -> str:
    """Return the first ten paths, printable, and the number of the others."""
    rest = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(printable, paths[:_NAMED])) + rest
