"""The options that a loader declares, and what is wrong with the values that a campaign gives them."""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from loaderbench.api import Loader

_BY_DEFAULT = {bool: bool, int: float, float: float, str: str}
"""The type of an option that has a default of this type and no annotation."""
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Option:
    """One keyword argument of a loader's `stream`."""

    default: Any
    """`inspect.Parameter.empty` if a value must be given."""
    annotation: Any
    """The type of its values, with bounds if it is `Annotated`; Any if it is unknown."""

    def misfit(self, value: Any) -> str:
        """Return why a value does not fit, or an empty string."""
        try:
            accepted = TypeAdapter(self.annotation, config=_STRICT)
        except PydanticUserError:  # a type of the loader's own
            accepted = TypeAdapter(Any)
        try:
            accepted.validate_json(json.dumps(value))  # as JSON, because TOML has no tuples either
        except TypeError:
            return f"a {type(value).__name__} is no option; use text, a number, true, false, a list or a table"
        except ValidationError as error:
            return " or ".join(dict.fromkeys(each["msg"] for each in error.errors()))
        return ""


def declared(loader: Loader) -> dict[str, Option]:
    """Return the options of a loader by name: the arguments of `stream` after the artifact and the work."""
    _, _, *parameters = inspect.signature(loader.stream).parameters.values()
    names = getattr(inspect.unwrap(loader.stream), "__globals__", {})
    kinds = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return {p.name: Option(p.default, _annotation(p, names)) for p in parameters if p.kind in kinds}


def _annotation(parameter: inspect.Parameter, names: dict[str, Any]) -> Any:
    """Return a parameter's annotation, or else the type that its default suggests. `names`: its module's."""
    if parameter.annotation is not parameter.empty:
        holder = SimpleNamespace(__annotations__={"it": parameter.annotation})
        try:
            return get_type_hints(holder, names, include_extras=True)["it"]
        except Exception:  # noqa: BLE001, S110 - a name that only type checkers import, or no type at all
            pass
    return _BY_DEFAULT.get(type(parameter.default), Any)


def faults(loader: Loader, given: Mapping[str, Any], tried: Mapping[str, tuple[Any, ...]]) -> Iterator[str]:
    """Yield what is wrong with a contestant's options. `tried`: further values, which the search for the best tries."""
    there = declared(loader)
    if unknown := sorted((given.keys() | tried.keys()) - there.keys()):
        yield f"has no option {', '.join(unknown)}; there are: {', '.join(sorted(there))}"
    for name, option in there.items():
        values = [*([given[name]] if name in given else []), *tried.get(name, ())]
        if name not in given and option.default is inspect.Parameter.empty:
            yield f"needs the option {name}"
        for value in values:
            if misfit := option.misfit(value):
                yield f"cannot take {name} = {value!r}: {misfit}"
