"""Plots of the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastbound.study.networks import StudiedRun
from fastbound.study.results import Study
from fastbound.study.sensitivity import DEPTHS

# The labels of the first row of plots, and the attribute of `RelaxationResult` that each one shows.
PROPERTIES = {
    "tightness: area under certified accuracy": "area",
    "discontinuity: share of the variation that is jumps": "jump_share",
    "sensitivity: share that linear extrapolation misses": "sensitivity",
}
# Sensitivities span decades; below this threshold they are rounding errors, drawn as 0.
SENSITIVE = {"value": "symlog", "linthresh": 1e-6}


def plot_study(found: Study, path: str | Path) -> None:
    """Plots certified accuracy of the trained networks over each of the three properties, and below each one the curves
    from which it is computed, into the file ``path``."""
    from matplotlib.figure import Figure

    names = dict.fromkeys((*found.relaxations, *(run.trained_by for run in found.runs)))
    colors = {name: f"C{number}" for number, name in enumerate(names)}
    figure = Figure(figsize=(15, 9), layout="constrained")
    settings = found.runs[0].settings
    figure.suptitle(f"{settings.dataset}, {settings.model}, eps {settings.eps:.4g}, {found.samples} images")
    above, below = figure.subplots(2, 3)
    above[2].set_xscale(**SENSITIVE)
    for axes, (label, attribute) in zip(above, PROPERTIES.items()):
        axes.set(xlabel=label, ylabel="certified accuracy (hollow: by the best)")
        _plot_runs(axes, found, attribute, colors)
        axes.axvline(0, color="gray", linewidth=0.5)
    for draw, axes in zip((_plot_curves, _plot_changes, _plot_growth), below):
        draw(axes, found, colors)
    above[0].legend(title="trained by")
    below[0].legend(title="bounded by")
    figure.savefig(path, dpi=150)


def _plot_runs(axes: Any, found: Study, attribute: str, colors: dict[str, str]) -> None:
    for run in found.runs:
        properties = found.properties_of(run)
        place = None if properties is None else getattr(properties, attribute)
        if place is not None:
            ends, color = (run.certified_accuracy, run.by_method[run.best_method]), colors[run.trained_by]
            axes.plot((place, place), ends, "o-", color=color, fillstyle="none", linewidth=1)
            axes.plot(place, ends[0], "o", color=color, label=run.trained_by)


def _plot_curves(axes: Any, found: Study, colors: dict[str, str]) -> None:
    axes.set(xlabel="eps", ylabel="certified accuracy, mean of the fixed networks", ylim=(0, 1.02))
    for name, one in found.relaxations.items():
        radii = one.radii(found.eps)
        axes.plot(radii, [one.mean_accuracy(radius) for radius in radii], ".-", color=colors[name], label=name)
    axes.axvline(found.eps, color="gray", linestyle=":")


def _plot_changes(axes: Any, found: Study, colors: dict[str, str]) -> None:
    axes.set(xlabel="length of a suspected step", ylabel="change of the loss, share of its variation")
    axes.set(xscale="log", yscale="log")
    for name, one in found.relaxations.items():
        axes.plot([2.0**-k for k in range(len(one.changes))], one.changes, ".-", color=colors[name])


def _plot_growth(axes: Any, found: Study, colors: dict[str, str]) -> None:
    axes.set(xlabel="hidden layers of an untrained network", ylabel="sensitivity")
    axes.set_yscale(**SENSITIVE)
    for name, one in found.relaxations.items():
        points = [(depth, value) for depth, value in zip(DEPTHS, one.growth) if value is not None]
        if points:
            axes.plot(*zip(*points), ".-", color=colors[name])


def plot_controlled(runs: Sequence[StudiedRun], path: str | Path) -> None:
    """Plots certified accuracy over the looseness of the training intervals, a line for each number of jumps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="looseness w", ylabel="certified accuracy (box)")
    for jumps, points in controlled_series(runs).items():
        axes.plot(*zip(*points), "o-", label=f"{jumps:g} jumps in a unit" if jumps else "continuous")
    axes.legend()
    figure.savefig(path, dpi=150)


def controlled_series(runs: Sequence[StudiedRun]) -> dict[float, list[tuple[float, float]]]:
    """For each number of jumps, pairs of looseness and certified accuracy; runs of the plain box begin every line."""
    entries = [(run.recipe, run.certified_accuracy) for run in runs if run.recipe is not None]
    plain = [(0.0, accuracy) for recipe, accuracy in entries if recipe.relaxation == "box" and recipe.looseness == 0]
    loosened = [(recipe, accuracy) for recipe, accuracy in entries if recipe.looseness > 0]
    return {
        jumps: sorted(plain + [(recipe.looseness, accuracy) for recipe, accuracy in loosened if recipe.jumps == jumps])
        for jumps in sorted({recipe.jumps for recipe, _ in loosened})
    }
