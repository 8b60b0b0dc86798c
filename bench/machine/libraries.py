"""Versions of installed libraries, and of all that they need in turn."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, requires, version


def distributions(names: Iterable[str]) -> list[str]:
    """Return the installed distributions that provide these import names, in their order."""
    return [d for name in names for d in sorted(set(_distributions().get(name, [])))]


def with_dependencies(roots: Iterable[str]) -> dict[str, str]:
    """Return the version of each distribution, and of each installed one that these need, directly or not.

    What only an extra needs is left out.
    """
    found: dict[str, str] = {}
    left = list(roots)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name not in found:
            try:
                found[name] = version(name)
            except PackageNotFoundError:  # not needed on this platform, or not installed
                continue
            needed = (line for line in requires(name) or () if "extra ==" not in line)
            left += [match[0] for line in needed if (match := re.match(r"[\w.-]+", line))]
    return dict(sorted(found.items()))


def wheel_sha256s(names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the wheel of each of these distributions that was installed from a file, if it is known."""
    origins = {name: distribution(name).read_text("direct_url.json") or "" for name in names}
    found = {name: re.search(r"sha256\W+([0-9a-f]{64})", origin) for name, origin in origins.items()}
    return {name: match[1] for name, match in found.items() if match}


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the distributions of each import name; cached, because it reads the metadata of all of them."""
    return packages_distributions()
