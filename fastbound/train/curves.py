"""Plots of the metrics of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def plot_curves(metrics: Sequence[dict], path: str | Path, title: str = "") -> None:
    """Plots losses, errors and eps over the epochs of `metrics` (the lines of metrics.jsonl) into the file `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    losses, errors = figure.subplots(1, 2)
    for name in ("loss", "natural_loss", "robust_loss"):
        _line(losses, metrics, name)
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend()
    for name in ("clean_error", "verified_error"):
        _line(errors, metrics, name)
    errors.set(xlabel="epoch", ylabel="error", ylim=(0, 1.02))
    errors.legend(loc="upper right")
    radius = errors.twinx()
    _line(radius, metrics, "eps", color="gray", linestyle=":")
    radius.set(ylabel="training eps", ylim=(0, None))
    figure.savefig(path, dpi=150)


def _line(axes, metrics: Sequence[dict], name: str, **style: object) -> None:
    points = [(record["epoch"], record[name]) for record in metrics if name in record]
    if points:
        axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), **style)
