"""Put paths, lists of names and texts of unknown origin into messages."""

import os
import re
import shlex
import sys
from collections.abc import Sequence

_NAMED = 10
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
"""User and password in a URL."""
_OTHERS_HOME = re.compile(r"(?<![\w.~-])(?<!s3:/)/(home|Users)/(?!\*\*\*)[^/\s'\":;,()\[\]]+")
_FORMULA = ("=", "+", "-", "@")
"""How a cell begins that a spreadsheet may take for a formula."""


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path in one line of valid UTF-8.

    Bytes that are not UTF-8 become `\x..`. So do control characters, and `\u....` those without a shape of their own,
    such as the ones that turn the direction of writing.
    """
    try:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which is in no path
        text = os.fspath(path)
    return _escaped(text)


def quoted(path: str | os.PathLike[str]) -> str:
    """Return a path as `printable` does, and as a shell reads it, for a command in a message."""
    return shlex.quote(printable(path))


def printable_lines(text: str) -> str:
    """Return a text of any origin with each line as `printable` returns it."""
    return "\n".join(map(_escaped, text.split("\n")))


def one_line(text: str, longest: int = sys.maxsize) -> str:
    r"""Return any text in one printable line of at most `longest` characters; its end is left out first.

    Colours of a terminal are left out. Other characters that have no shape of their own become `\x..` and `\u....`.
    """
    line = _escaped(" ".join(_COLOURS.sub("", text).split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def cell(text: str) -> str:
    """Return any text as a file keeps it: in one printable line that names no home folder and is no formula."""
    line = without_home(one_line(text))
    return f"'{line}" if line.startswith(_FORMULA) else line


def without_passwords(text: str) -> str:
    """Return a text without the users and passwords of the URLs in it."""
    return _USER.sub("***@", text) if "@" in text else text


def without_home(text: str) -> str:
    """Return a text with `~` for the user's home folder, and `***` for others' names below /home or /Users.

    Other folders may have users' names too; nothing tells which.
    """
    home = os.path.expanduser("~")  # noqa: PTH111 - it is called often
    if len(home) > 1 and home in text:  # / is everywhere
        text = re.sub(rf"(?<![\w/.-]){re.escape(home)}(?![\w.-])", "~", text)
    return _OTHERS_HOME.sub(r"/\1/***", text) if "/home/" in text or "/Users/" in text else text


def names(paths: Sequence[str]) -> str:
    """Return the first ten paths, printable, and the number of the others."""
    rest = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(printable, paths[:_NAMED])) + rest


def _escaped(text: str) -> str:
    text = without_passwords(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
