"""Names that cost nothing until they are used: what they stand for is imported on first use.

This keeps ``import fastbound`` nearly free, and ``--help`` lists methods and networks without loading torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

Value = TypeVar("Value")


class Table(Mapping[str, Value]):
    """What each name stands for, written as ``"module:attribute"`` and imported when it is looked up."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> Value:
        module, _, attribute = self._places[name].partition(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Package(ModuleType):
    """A package whose public names are imported from their modules on first use."""

    _homes: dict[str, str]
    _submodules: frozenset[str]

    def __getattr__(self, name: str) -> Any:
        if name in self._submodules:
            return import_module(f"{self.__name__}.{name}")
        if name not in self._homes:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(self._homes[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds a submodule to its package, also over a function of the same name: fastbound.certify.
        if not (isinstance(value, ModuleType) and name in self._homes):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes, *self._submodules})


def load_on_demand(package: str, names: Mapping[str, Iterable[str]], submodules: Iterable[str] = ()) -> None:
    """Makes a package import its public names on first use; its block under ``TYPE_CHECKING`` is for type checkers.

    Args:
        package: its ``__name__``.
        names: the public names by the module that defines them.
        submodules: modules of the package that are its attributes without an import of their own.
    """
    module = sys.modules[package]
    vars(module)["_homes"] = {name: home for home, defined in names.items() for name in defined}
    vars(module)["_submodules"] = frozenset(submodules)
    module.__class__ = Package
