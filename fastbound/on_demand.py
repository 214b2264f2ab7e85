"""Names whose objects are imported on first use.

This keeps ``import fastbound`` nearly free, and lets ``--help`` list methods and networks without loading torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from threading import RLock
from types import ModuleType
from typing import Any, TypeVar

Value = TypeVar("Value")

# Threads that use a name for the first time wait for each other: a package that is half imported has half of its rules.
_importing = RLock()


class Table(Mapping[str, Value]):
    """Objects by name, each written as ``"module:attribute"`` and imported when it is looked up."""

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
        with _importing:
            if name in self._submodules:
                return import_module(f"{self.__name__}.{name}")
            if name not in self._homes:
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
            value = getattr(import_module(self._homes[name]), name)
            setattr(self, name, value)
            return value

    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds a submodule to its package, even over a function of that name: fastbound.certify.
        if not (isinstance(value, ModuleType) and name in self._homes):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes, *self._submodules})


def load_on_demand(package: str, names: Mapping[str, Iterable[str]], submodules: Iterable[str] = ()) -> None:
    """Makes a package import its public names on first use; type checkers read its block under ``TYPE_CHECKING``.

    Args:
        package: its ``__name__``.
        names: for each module, the public names that it defines.
        submodules: modules of the package that users can reach as its attributes without importing them.
    """
    module = sys.modules[package]
    vars(module)["_homes"] = {name: home for home, defined in names.items() for name in defined}
    vars(module)["_submodules"] = frozenset(submodules)
    module.__class__ = Package
