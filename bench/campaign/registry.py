"""The adapters that there are, and whether they can run here; found without importing their libraries."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points, metadata, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

from loaderbench.api import Loader, Writer
from loaderbench.machine import libraries
from loaderbench.machine.code_digest import code_digest

Kind = Literal["loader", "writer"]
_PACKAGES: dict[Kind, str] = {"loader": "loaderbench.loaders", "writer": "loaderbench.writers"}


@dataclass(frozen=True)
class Adapter:
    """A loader or writer: its module, and how to install its libraries."""

    name: str
    module: str
    install: str
    """The command that installs its libraries."""

    def load(self) -> Loader | Writer:
        """Import the adapter. Its libraries are imported only when it is used."""
        return cast("Loader | Writer", importlib.import_module(self.module))

    def code_digest(self) -> str:
        """Return the digest of the adapter's code, with the code that the project's own adapters share."""
        spec = find_spec(self.module)
        assert spec
        assert spec.origin
        own = self.module.rpartition(".")[0] in _PACKAGES.values()
        shared = sorted(Path(spec.origin).parent.glob("shared/*.py")) if own else []
        return code_digest([Path(spec.origin), *shared])

    def missing(self) -> tuple[str, ...]:
        """Return the import names of required libraries that are not installed."""
        return tuple(name for name in self.load().requires if find_spec(name) is None)

    def why_unavailable(self) -> str:
        """Return what is missing and the command that installs it; an empty string if the adapter can run."""
        missing = self.missing()
        return f"not installed: {', '.join(missing)}; install with: {self.install}" if missing else ""

    def versions(self) -> str:
        """Return `name version` of each required library that is installed, separated by `; `."""
        return "; ".join(f"{name} {version(name)}" for name in libraries.distributions(self.load().requires))


@cache
def adapters(kind: Kind) -> Mapping[str, Adapter]:
    """Return all adapters of one kind by name: the files of the project's own package, then the entry points
    `loaderbench.loaders` and `loaderbench.writers` of other packages.
    """
    package = importlib.import_module(_PACKAGES[kind])
    extras = metadata("loaderbench").get_all("Provides-Extra") or ()
    own = {
        module.name: Adapter(
            module.name,
            f"{package.__name__}.{module.name}",
            f"make setup, or pip install '.[{module.name if module.name in extras else 'all'}]' in the checkout",
        )
        for module in pkgutil.iter_modules(package.__path__)
        if not module.ispkg
    }
    others = {
        point.name: Adapter(point.name, point.value, f"pip install {point.dist.name if point.dist else point.name}")
        for point in entry_points(group=f"loaderbench.{kind}s")
    }
    if both := own.keys() & others.keys():
        raise RuntimeError(f"another package has a {kind} with the name of one of loaderbench: {sorted(both)}")
    return own | others


def loader(name: str) -> Loader:
    """Import the loader adapter of this name. Raises KeyError."""
    return cast("Loader", adapters("loader")[name].load())


def writer(name: str) -> Writer:
    """Import the writer adapter of this name. Raises KeyError."""
    return cast("Writer", adapters("writer")[name].load())
