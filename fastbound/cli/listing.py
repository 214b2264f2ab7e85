"""fastbound train --list: the names that options take, in lines that neither a terminal nor a pipe cuts."""

from __future__ import annotations

import textwrap
from itertools import groupby

from fastbound.train.configs import CONFIGS, Config
from fastbound.train.recipes import METHODS
from fastbound.train.recipes.relaxation import RELAXATIONS


def print_listing() -> None:
    """Prints the training methods and the published configurations, with their sources."""
    print("training methods (--method):\n")
    width = max(map(len, METHODS)) + 2
    for name, method in METHODS.items():
        print(f"{name:{width}}{method.summary}\n{'':{width}}{method.source}")
    print(f"{'FILE.py:CLASS':{width}}a recipe of your own, see docs/methods/README.md")
    print("\nrelaxations (--method relaxation --relaxation NAME; certify --method NAME, crown-ibp is IBP there):\n")
    lines = textwrap.wrap(", ".join(RELAXATIONS), 110, break_on_hyphens=False)
    print(textwrap.indent("\n".join(lines), "  "))
    print("\npublished configurations (--config):")
    for source, entries in groupby(CONFIGS.items(), lambda entry: entry[1].source):
        print(f"\n{source}")
        _print_columns([_columns(name, config) for name, config in entries])


def _columns(name: str, config: Config) -> tuple[str, ...]:
    recipe = config.recipe
    return name, config.dataset, config.model, recipe.method, f"eps {config.eps:.4g}", f"{recipe.epochs} epochs"


def _print_columns(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip())
