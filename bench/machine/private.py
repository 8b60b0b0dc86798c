"""Recognise what belongs to the user alone, and leave it out of what is kept or handed on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from loaderbench.machine.text import without_home, without_passwords

_SECRET = re.compile(r"^AWS_|token(?!iz)|secret|passw|credential|(api|access|private)[-_]?key", re.IGNORECASE)
"""Names of variables and options that hold secrets; `tokenizer` is none."""
HIDDEN = "***"


def without_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables without those that hold secrets by their names."""
    return {name: value for name, value in variables.items() if not _SECRET.search(name)}


def masked(value: Any, name: str = "") -> Any:
    """Return a value of JSON without secrets: texts of names like `token`, passwords in URLs, the home folder.

    `name`: that of the value.
    """
    if isinstance(value, str):
        return HIDDEN if value and _SECRET.search(name) else without_home(without_passwords(value))
    if isinstance(value, Mapping):
        return {key: masked(each, str(key)) for key, each in value.items()}
    return [masked(each, name) for each in value] if isinstance(value, list | tuple) else value


def differing(value: Any, other: Any, place: str = "") -> Iterator[str]:
    """Yield the places, such as `data.origin`, at which two values of JSON of one form differ."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from differing(each, other[key], f"{place}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from differing(each, other[number], f"{place}.{number}")
    elif value != other:
        yield place
