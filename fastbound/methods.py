"""Bounding methods by name: the three general ones, and the relaxations that `fastbound.study` compares."""

from __future__ import annotations

from typing import NamedTuple

from fastbound.choices import BOUNDS
from fastbound.domains.singleprop import NOT_A_BOUND
from fastbound.domains.zonotope.relaxations import RELAXATIONS as ZONOTOPES


class Method(NamedTuple):
    """A bounding method: its kind, and its relaxation if the name says one."""

    kind: str  # "ibp", "zonotope", "crown-ibp" or "crown"
    relaxation: str | None = None


# Pairs of lines around a ReLU by their names in Jovanovic et al., 2022, arXiv 2102.06700; "" is the adaptive choice of
# DeepPoly and CROWN.
_LINES = {
    "": "adaptive",
    "-0": "zero",
    "-0-c": "zero-c",
    "-1": "one",
    "-1-c": "one-c",
    "-0-tria": "zero-tria",
    "-0-tria-c": "zero-tria-c",
    "-1-tria": "one-tria",
    "-1-tria-c": "one-tria-c",
    "-soft": "soft",
}

GENERAL: dict[str, Method] = {name: Method(name) for name in BOUNDS}
STUDIED: dict[str, Method] = {
    **{name: Method("zonotope", name) for name in ZONOTOPES},
    "box": Method("ibp"),  # as a zonotope it gives the same bounds at a higher cost
    **{f"crown{suffix}": Method("crown", lines) for suffix, lines in _LINES.items() if suffix},
    **{f"crown-ibp-r{suffix}": Method("crown-ibp", lines) for suffix, lines in _LINES.items()},
    "crown-ibp-r-soft": Method("crown-ibp", "soft-10"),
}
METHODS: dict[str, Method] = {**GENERAL, **STUDIED}


def check_method(argument: str, name: str, *others: str) -> None:
    """Raise ValueError unless ``argument`` names a bounding method, or one of ``others``."""
    if name == "singleprop":
        raise ValueError(f"{argument}: {NOT_A_BOUND}.")
    if name not in METHODS and name not in others:
        raise ValueError(f"{argument}: wanted one of {', '.join((*METHODS, *others))}, got {name!r}.")
