"""Tightness of a relaxation: the area under certified accuracy over eps, on a fixed network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from fastbound.certify import certify

# Radii are eps (i / RESOLUTION)^2: finer near 0, where networks that were not trained for certificates lose theirs.
RESOLUTION = 5


class Curve(NamedTuple):
    """Certified accuracy, a fraction in [0, 1], at increasing radii that begin at 0."""

    radii: list[float]
    accuracies: list[float]

    @property
    def area(self) -> float:
        """The area under the curve by the trapezoidal rule, in units of the input."""
        strips = zip(self.radii, self.radii[1:], self.accuracies, self.accuracies[1:])
        return sum((right - left) * (low + high) / 2 for left, right, low, high in strips)

    def at(self, radius: float) -> float:
        """The accuracy at a radius of `radius_at`; 0 beyond the end, where nothing is certified any more."""
        return dict(zip(self.radii, self.accuracies)).get(radius, 0.0)


def radius_at(index: int, eps: float) -> float:
    """The radius of a curve's point: eps is the one of index `RESOLUTION`, and no radius is above 1."""
    return min(1.0, eps * (index / RESOLUTION) ** 2)


def certified_curve(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], eps: float, method: str) -> Curve:
    """Certified accuracy by ``method`` from radius 0 to the first one at which no sample is certified.

    The last radius is at most 1, where the box contains all images. `Curve.area` is then the area over all radii; if no
    sample is certified again at a larger radius, it is the mean certified radius.

    Args:
        model: the network, the same for all relaxations that are compared.
        loader: x [B, ...] in [0, 1] and labels [B], readable several times.
        eps: the radius of interest, > 0, in units of the input; it sets the spacing.
        method: see `fastbound.certify`.

    Raises:
        ValueError: as `fastbound.certify`.

    Soundness: certificates are `fastbound.certify`'s; the trapezoidal rule between radii is not a bound.
    Source: the certified-robustness AUC of Jovanovic et al., 2022, arXiv 2102.06700; radii and networks are ours.
    """
    radii: list[float] = []
    accuracies: list[float] = []
    while not radii or (accuracies[-1] > 0 and radii[-1] < 1):
        radii.append(radius_at(len(radii), eps))
        accuracies.append(1 - certify(model, loader, radii[-1], method, attack=None).verified_error)
    return Curve(radii, accuracies)
