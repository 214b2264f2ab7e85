"""Certification at several radii, and its picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor, nn

from fastbound.certify.evaluate import certify
from fastbound.certify.report import Report


def sweep(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    radii: Sequence[float],
    method: str = "ibp",
    **options: object,
) -> list[Report]:
    """`certify` at every radius; the loader must be readable several times. `options` go to `certify`."""
    if not radii:
        raise ValueError("radii: wanted at least one radius.")
    return [certify(model, loader, eps, method, **options) for eps in radii]  # type: ignore[arg-type]


def plot_sweep(reports: Sequence[Report], path: str | Path, title: str = "") -> None:
    """Plots verified, attacked and clean error over eps into the file `path`."""
    from matplotlib.figure import Figure

    reports = sorted(reports, key=lambda report: report.eps)
    radii = [report.eps for report in reports]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="eps", ylabel="error", title=title, ylim=(0, 1.02))
    axes.plot(radii, [report.verified_error for report in reports], marker="o", label=f"verified ({reports[0].method})")
    attacked = [report.pgd_error for report in reports if report.pgd_error is not None]
    if len(attacked) == len(radii):
        axes.plot(radii, attacked, marker="s", label="attacked (PGD)")
    axes.plot(radii, [report.clean_error for report in reports], linestyle="--", color="gray", label="clean")
    axes.legend()
    figure.savefig(path, dpi=150)
