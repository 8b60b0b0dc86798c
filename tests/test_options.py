"""Every number that a user sets has a lower bound, and an option that does not fit its declaration is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from loaderbench.campaign import campaign as config
from loaderbench.campaign import options, registry
from loaderbench.campaign.options import Option


def numbers(annotation: Any, metadata: Sequence[Any], where: str) -> Iterator[tuple[str, Sequence[Any]]]:
    """Every number below an annotation, with the constraints on it."""
    if annotation in {int, float}:
        yield where, metadata
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from numbers(field.annotation, field.metadata, f"{where}.{name}")
    elif get_origin(annotation) is Annotated:
        inner, *constraints = get_args(annotation)
        own = [each for c in constraints for each in (c.metadata if isinstance(c, FieldInfo) else [c])]
        yield from numbers(inner, own, where)
    else:
        for inner in get_args(annotation):
            yield from numbers(inner, metadata, where)


@pytest.mark.parametrize(
    ("where", "constraints"), [pytest.param(*n, id=n[0]) for n in numbers(config.Campaign, (), "campaign")]
)
def test_every_number_of_a_campaign_file_has_a_lower_bound(where: str, constraints: Sequence[Any]) -> None:
    assert [c for c in constraints if isinstance(c, Ge | Gt)], where


SHIPPED = sorted(name for name, adapter in registry.adapters("loader").items() if adapter.package == "loaderbench")
OPTIONS = [(f"{name}.{option}", o) for name in SHIPPED for option, o in options.declared(registry.loader(name)).items()]


@pytest.mark.parametrize(("where", "option"), [pytest.param(*each, id=each[0]) for each in OPTIONS])
def test_every_number_among_a_shipped_loaders_options_has_a_lower_bound(where: str, option: Option) -> None:
    assert option.annotation is not Any
    for _, constraints in numbers(option.annotation, (), where):
        assert [c for c in constraints if isinstance(c, Ge | Gt)], where


def declares_options(  # noqa: PLR0913 - the options
    artifact: object,
    work: object,
    ahead=3,
    path="",
    hidden: Unknown = None,  # type: ignore[name-defined] # noqa: F821
    *,
    needed: Literal["a", "b"],
    sizes: tuple[int, ...] = (),
    own: Iterator[int] | None = None,
) -> None:
    """A third party's way to declare them: some without a type, or with one that no schema describes."""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"needed": "a"}, ""),
        ({"needed": "a", "ahead": 2.5, "path": "x", "hidden": [1], "sizes": [1, 2]}, ""),
        ({}, "needs the option needed"),
        ({"needed": "c"}, "cannot take needed = 'c': Input should be 'a' or 'b'"),
        ({"needed": "a", "ahead": "2"}, "cannot take ahead = '2': Input should be a valid number"),
        ({"needed": "a", "ahead": True}, "cannot take ahead = True: Input should be a valid number"),
        ({"needed": "a", "ahead": float("inf")}, "cannot take ahead = inf: Input should be a finite number"),
        ({"needed": "a", "path": 1}, "cannot take path = 1: Input should be a valid string"),
        ({"needed": "a", "sizes": ["1"]}, "cannot take sizes = ['1']: Input should be a valid integer"),
        ({"needed": "a", "work": 1}, "has no option work; there are: ahead, hidden, needed, own, path, sizes"),
    ],
)
def test_options_of_any_loader_are_checked_as_far_as_it_declares_them(given: dict[str, Any], said: str) -> None:
    found = list(options.faults(SimpleNamespace(stream=declares_options), given, {}))  # type: ignore[arg-type]
    assert found == ([said] if said else [])
