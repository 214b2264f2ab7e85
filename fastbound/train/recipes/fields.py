"""Checks of the fields of a recipe: ``--set`` and config.json accept any value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from fastbound.train.recipes.recipe import Recipe


def check_kinds(recipe: Recipe) -> None:
    """Raises ValueError for a value whose type is not the declared one, and for a number that is not finite."""
    declared = get_type_hints(type(recipe))
    for entry in dataclasses.fields(recipe):
        value, kinds = getattr(recipe, entry.name), _kinds(declared[entry.name])
        if not any(_is(value, kind) for kind in kinds):
            wanted = " or ".join(_name(kind) for kind in kinds)
            raise ValueError(f"{entry.name}: wanted {wanted}, got {value!r}.")
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ValueError(f"{entry.name}: wanted a finite number, got {value!r}.")


def check_declared(recipe: type[Recipe]) -> None:
    """Raises TypeError for a field whose declared type config.json and the command line cannot express."""
    declared = get_type_hints(recipe)
    for entry in dataclasses.fields(recipe):
        for kind in _kinds(declared[entry.name]):
            if (get_origin(kind) or kind) not in (int, float, bool, str, tuple, NoneType):
                raise TypeError(
                    f"{entry.name} is declared as {_name(kind)}, wanted int, float, bool, str, a tuple of them or None."
                )


def with_tuples(recipe: type[Recipe], values: Mapping[str, object]) -> dict[str, object]:
    """`values` with lists as tuples for fields that are declared as tuples: JSON has only lists."""
    declared = get_type_hints(recipe)
    return {
        name: tuple(value) if isinstance(value, list) and _takes_tuple(declared.get(name)) else value
        for name, value in values.items()
    }


def _takes_tuple(declared: Any) -> bool:
    return any((get_origin(kind) or kind) is tuple for kind in _kinds(declared))


def _kinds(declared: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation: (float, NoneType) for ``float | None``."""
    return get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)


def _is(value: object, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else get_origin(kind) or kind)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}


def _name(kind: Any) -> str:
    """A type in the words of JSON and the command line: "a list of numbers" for ``tuple[float, ...]``."""
    if get_origin(kind) is tuple:
        return f"a list of {_name(get_args(kind)[0]).removeprefix('a ')}s"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def check_shares(recipe: Recipe, *names: str) -> None:
    """Raises ValueError for a field outside [0, 1]."""
    for name in names:
        if not 0 <= getattr(recipe, name) <= 1:
            raise ValueError(f"{name}: wanted a number in [0, 1], got {getattr(recipe, name)}.")


def check_positive(recipe: Recipe, *names: str) -> None:
    """Raises ValueError for a field that is not greater than 0."""
    for name in names:
        if not getattr(recipe, name) > 0:
            raise ValueError(f"{name}: wanted a number greater than 0, got {getattr(recipe, name)}.")


def check_length(what: str, end: float, epochs: int) -> None:
    """Raises ValueError if `end`, a time in epochs described by `what`, is after the end of the run."""
    # Scaled times are rounded.
    if end > epochs * (1 + 1e-9):
        raise ValueError(
            f"schedule: {what}, but the run has {epochs} epochs. Train for at least {end:g} epochs, or leave the times "
            "out: the defaults scale with the number of epochs."
        )
