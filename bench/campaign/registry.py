"""The adapters that there are, and whether they can run here; found without importing their libraries."""

import importlib
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points, metadata, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Literal, cast

from loaderbench.api import Loader, Writer
from loaderbench.machine import libraries
from loaderbench.machine.code_digest import code_digest
from loaderbench.machine.errors import FixableError
from loaderbench.machine.process import run_child
from loaderbench.machine.reasons import reason

Kind = Literal["loader", "writer"]
_PACKAGES: dict[Kind, str] = {"loader": "loaderbench.loaders", "writer": "loaderbench.writers"}
_PARTS: dict[Kind, tuple[str, ...]] = {
    "loader": ("requires", "reads", "streams", "stream"),
    "writer": ("requires", "modes", "resumes", "write", "payloads"),
}
"""What a module of each kind must have, see `loaderbench.api`."""
_IMPORT_LIMIT_S = 60
"""Time that the module of another package may take to import."""


class AdapterError(FixableError):
    """An adapter that cannot be used. The message names it and its package, and says why."""


@dataclass(frozen=True)
class Adapter:
    """A loader or writer: its module, and how to install its libraries."""

    name: str
    module: str
    install: str
    """The command that installs its libraries."""
    kind: Kind = "loader"
    package: str = "loaderbench"
    """The package that it belongs to."""
    refusal: str = ""
    """Why it cannot be used whatever its module holds, or an empty string."""

    @cached_property
    def _imported(self) -> ModuleType | str:
        """The module, or what is wrong with it."""
        if self.refusal:
            return self.refusal
        try:
            module = importlib.import_module(self.module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a module of another package may raise anything
            return f"{self._where} cannot be imported: {reason(error)}"
        fault = _fault(module, self.kind)
        return f"{self._where} {fault}" if fault else module

    @cached_property
    def fault(self) -> str:
        """What is wrong with the adapter itself, in one line with its module and package; or an empty string.

        A module of another package is first imported in a child process, because it may end the process that imports
        it, or hang.
        """
        if not (self._is_own or self.refusal) and (why := _import_elsewhere(self.module)):
            return f"{self._where} cannot be imported: {why}"
        return self._imported if isinstance(self._imported, str) else ""

    @property
    def _is_own(self) -> bool:
        return self.module.rpartition(".")[0] in _PACKAGES.values()

    @property
    def _where(self) -> str:
        return f"the module {self.module} of {self.package}"

    def load(self) -> Loader | Writer:
        """Import the adapter; a process that must survive asks for its `fault` before. Raises AdapterError.

        Its libraries are imported only when it is used.
        """
        if isinstance(self._imported, str):
            raise AdapterError(f"{self.kind} {self.name} cannot be used: {self._imported}")
        return cast("Loader | Writer", self._imported)

    @property
    def requires(self) -> tuple[str, ...]:
        """Import names of the required libraries; empty if the adapter has a fault."""
        return () if self.fault else tuple(self.load().requires)

    def code_digest(self) -> str:
        """Return the digest of the adapter's code, with the code that the project's own adapters share.

        An adapter of another package counts with all code of that package. The digest is empty if there is no code.
        """
        spec = _spec(self.module)
        if not spec or not spec.origin:
            return ""
        around = None if self._is_own else _spec(self.module.partition(".")[0])
        if around and around.submodule_search_locations:
            folders = map(Path, around.submodule_search_locations)
            return code_digest(file for folder in folders for file in sorted(folder.rglob("*.py")))
        shared = sorted(Path(spec.origin).parent.glob("shared/*.py")) if self._is_own else []
        return code_digest([Path(spec.origin), *shared])

    def missing(self) -> tuple[str, ...]:
        """Return the import names of required libraries that are not installed."""
        return tuple(name for name in self.requires if _spec(name) is None)

    def why_unavailable(self) -> str:
        """Return the adapter's fault, or what is missing and the command that installs it.

        An empty string if the adapter can run.
        """
        missing = self.missing()
        return self.fault or (f"not installed: {', '.join(missing)}; install with: {self.install}" if missing else "")

    def versions(self) -> str:
        """Return `name version` of each required library that is installed, separated by `; `."""
        return "; ".join(f"{name} {version(name)}" for name in libraries.distributions(self.requires))


def _import_elsewhere(module: str) -> str:
    """Import a module in a child process. Return why that failed, or an empty string."""
    try:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            log, task = Path(folder, "log"), f"{__name__}.import_here"
            return str(run_child(task, (module, sys.path), log, _IMPORT_LIMIT_S)["reason"])
    except OSError as error:  # for example no folder for temporary files
        return reason(error)


def import_here(spec: tuple[str, list[str]]) -> dict[str, Any]:
    """Import a module, as a task for a child process. `spec`: its name, and the folders that hold modules."""
    module, sys.path[:] = spec
    importlib.import_module(module)
    return {"status": "ok", "reason": ""}


def _fault(module: Any, kind: Kind) -> str:
    """Return what a module lacks, or has in another form than `loaderbench.api` describes; or an empty string."""
    for name in _PARTS[kind]:
        if not hasattr(module, name):
            return f"has no {name}"
        value = getattr(module, name)
        if name in {"requires", "reads", "modes"}:
            right = isinstance(value, tuple | list) and all(isinstance(each, str) for each in value)
            wanted = f'a tuple of names, like ("{value}",)' if isinstance(value, str) else "a tuple of names"
        elif name in {"streams", "resumes"}:
            right, wanted = isinstance(value, bool), "True or False"
        else:
            right, wanted = callable(value), "a function"
        if not right:
            return f"has {name} = {value!r:.60} instead of {wanted}"
    return ""


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return the specification of a module, or None; unlike `find_spec`, without importing the packages around it."""
    first, *inner = name.split(".")
    try:
        spec = find_spec(first)
    except ValueError:  # no name of a module, or one that was put into sys.modules
        return None
    for end in range(len(inner)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([first, *inner[: end + 1]]), spec.submodule_search_locations)
    return spec


@cache
def adapters(kind: Kind) -> Mapping[str, Adapter]:
    """Return all adapters of one kind by name: the files of the project's own package, then the entry points
    `loaderbench.loaders` and `loaderbench.writers` of other packages.

    One whose name is taken by an own adapter is listed as `name (package)`.
    """
    package = importlib.import_module(_PACKAGES[kind])
    extras = metadata("loaderbench").get_all("Provides-Extra") or ()
    found = {
        module.name: Adapter(
            module.name,
            f"{package.__name__}.{module.name}",
            f"make setup, or pip install '.[{module.name if module.name in extras else 'all'}]' in the checkout",
            kind,
        )
        for module in pkgutil.iter_modules(package.__path__)
        if not module.ispkg
    }
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=f"loaderbench.{kind}s"):
        points.setdefault(point.name, []).append(point)
    for name, named in points.items():
        if name in found:
            for point in named:
                taken = f"loaderbench has a {kind} {name} of its own; {_package(point)} must give it another name"
                found[f"{name} ({_package(point)})"] = _adapter(kind, point, taken)
        elif len(named) > 1:
            packages = " and ".join(sorted(map(_package, named)))
            found[name] = _adapter(kind, named[0], f"{packages} each have a {kind} {name}; uninstall all but one")
        else:
            found[name] = _adapter(kind, named[0])
    return found


def _adapter(kind: Kind, point: EntryPoint, refusal: str = "") -> Adapter:
    """Return another package's adapter."""
    package, module = _package(point), point.value.partition("[")[0].strip()
    if ":" in module and not refusal:
        refusal = f"{package} names the object {module}; an entry point must be a module, {module.partition(':')[0]}"
    return Adapter(point.name, module, f"pip install {package}", kind, package, refusal)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.name


def loader(name: str) -> Loader:
    """Import the loader adapter of this name. Raises KeyError or AdapterError."""
    return cast("Loader", adapters("loader")[name].load())


def writer(name: str) -> Writer:
    """Import the writer adapter of this name. Raises KeyError or AdapterError."""
    return cast("Writer", adapters("writer")[name].load())
