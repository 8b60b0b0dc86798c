"""Reach the loader that the user names: a function that makes it, the loader itself, or a command that trains."""

import inspect
import os
import runpy
import shlex
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from loaderbench.doctor import changes
from loaderbench.machine import child
from loaderbench.machine.text import one_line

_HOW = (
    "write module:function, for example my_project.data:make_loader, or the command that trains, in quotes, for "
    "example 'python main.py /data'"
)
_ONE_PROCESS = "Processes that it starts are not followed: let it train in its own process."
_STDERR, _LAST_BYTES, _LAST_CHARACTERS = 2, 4096, 200

Make = Callable[[], Any]
Report = dict[str, Any]


class TargetError(Exception):
    """What the user named cannot be used. The message says why, and what to do."""


def command_of(target: str) -> list[str]:
    """Return the words of a command that trains, without Python's own name; an empty list if it is none."""
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise TargetError(f"{target}: {error}; {_HOW}") from None
    if words and Path(words[0]).name.startswith("python") and words[1:]:
        words = words[1:]
    return words if words and (words[0] == "-m" or words[0].endswith(".py")) else []


def reach(target: str, folder: str, use: Callable[[Any, Make], Report]) -> Report:
    """Call `use` with the loader that `target` names, and return its report, or one that says why there is no loader.

    `target`: `module:callable`, `module:loader`, or a command. `folder`: where the module or script is looked for
    first. `use`: also receives what makes the loader again. A command runs until it asks for its first batch; this
    process ends after `use`.
    """

    def reached() -> Report:
        if words := command_of(target):
            run_command(words, folder, lambda loader: child.end(lambda: plainly(lambda: use(loader, lambda: loader))))
        sys.path.insert(0, folder)
        sys.argv = [target.partition(":")[0]]
        make = maker(target, folder)
        return use(opened(make), make)

    return plainly(reached)


def plainly(work: Callable[[], Report]) -> Report:
    """Return a report, or one with the plain words of a TargetError or of code that calls `sys.exit`."""
    try:
        return work()
    except TargetError as error:
        return {"status": "failed", "reason": str(error)}
    except SystemExit as error:
        return {"status": "failed", "reason": f"the code called sys.exit({error.code!r}){_last_output()}"}


def maker(target: str, folder: str) -> Make:
    """Return the function that makes the loader. Raises TargetError."""
    found = named(target, folder)
    if not callable(found):
        if not hasattr(found, "__iter__"):
            raise TargetError(f"{target} is no loader and no function that returns one, but {type(found).__name__}")
        return lambda: found
    if needed := _arguments(found):
        raise TargetError(f"{target} needs arguments ({', '.join(needed)}); name a function without any that calls it")
    made: Make = found
    return made


def named(target: str, folder: str) -> Any:
    """Return what `module:name` stands for. Raises TargetError."""
    module, _, name = target.partition(":")
    if not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
        raise TargetError(f"'{target}' names no loader; {_HOW}")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # the user's module imports one that is missing
        raise TargetError(
            f"Python finds no module {error.name}, also not in {folder}; if it lies in another folder, such as src, "
            f"put PYTHONPATH=src before the command"
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise TargetError(f"module {module} has no {name}")
        found = getattr(found, part)
    return found


def opened(make: Make) -> Any:
    """Return the iterable that the user's function makes, of a Lightning DataModule that for training."""
    made = make()
    if hasattr(made, "train_dataloader"):
        made.prepare_data()
        made.setup("fit")
        made = made.train_dataloader()
    parts = list(made.values()) if isinstance(made, Mapping) else made if isinstance(made, list | tuple) else []
    if any(changes.is_torch(part) for part in parts):
        raise TargetError(f"the function returned {len(parts)} loaders; name a function that returns one of them")
    if not hasattr(made, "__iter__"):
        raise TargetError(f"the function returned no iterable of batches, but {type(made).__name__}")
    return made


def run_command(words: Sequence[str], folder: str, reached: Callable[[Any], Iterator[Any]]) -> NoReturn:
    """Run a command that trains in this process; let it iterate over what `reached` makes of its loader.

    That is the first loader of a known class that is iterated with gradients enabled: not one for validation. Raises
    TargetError if the command ends by itself.
    """
    with changes.when_imported(_Hook(reached).put):
        _execute(words, folder)
    raise TargetError(f"{shlex.join(words)} ended before it trained on a batch of a torch DataLoader. {_ONE_PROCESS}")


def _execute(words: Sequence[str], folder: str) -> None:
    module = words[0] == "-m"
    script = Path(folder, words[0])
    if module and len(words) == 1:
        raise TargetError(f"-m needs a module; {_HOW}")
    if not module and not script.is_file():
        raise TargetError(f"there is no script {script}")
    try:
        sys.path.insert(0, folder if module else str(script.resolve().parent))
        if module:
            sys.argv = list(words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as error:
        if error.code:
            raise


@dataclass
class _Hook:
    """Replaces what training iterates over."""

    reached: Callable[[Any], Iterator[Any]]
    busy: bool = False
    """Whether `reached` is at work, which iterates over the loader itself."""

    def put(self, kind: Any) -> None:
        """Let loaders of a class iterate over what `reached` returns, if their batches are asked for in training."""
        original = kind.__iter__

        def iterate(loader: Any) -> Iterator[Any]:
            torch = sys.modules.get("torch")
            if self.busy or (torch and not torch.is_grad_enabled()):
                batches: Iterator[Any] = original(loader)
                return batches
            self.busy = True
            try:
                return self.reached(loader)
            finally:
                self.busy = False

        kind.__iter__ = iterate


def _arguments(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a function must be given."""
    with suppress(ValueError, TypeError):  # of a function in C
        return [
            each.name
            for each in inspect.signature(function).parameters.values()
            if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
    return []


def _last_output() -> str:
    """Return a clause with the last line that this process wrote to its log; empty if there is none."""
    sys.stderr.flush()
    if not stat.S_ISREG(os.fstat(_STDERR).st_mode):
        return ""
    with Path(f"/proc/self/fd/{_STDERR}").open("rb") as file:
        file.seek(max(0, os.fstat(_STDERR).st_size - _LAST_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"; its last output: {one_line(last, _LAST_CHARACTERS)}" if last else ""
