"""Put paths, lists of names and texts of unknown origin into messages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_NAMED = 10
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path in one line of valid UTF-8: other bytes and control characters as `\x..`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return _CONTROLS.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str, longest: int) -> str:
    r"""Return any text in one printable line of at most `longest` characters; its end is left out first.

    Colours of a terminal are left out. Other control characters, and halves of surrogate pairs, which no file can
    hold, become `\x..` and `\u....`.
    """
    line = " ".join(_COLOURS.sub("", text).split()).encode("utf-8", "backslashreplace").decode()
    line = _CONTROLS.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), line)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def names(paths: Sequence[str]) -> str:
    """Return the first ten paths, printable, and the number of the others."""
    rest = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(printable, paths[:_NAMED])) + rest
