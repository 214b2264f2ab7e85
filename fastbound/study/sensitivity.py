"""Sensitivity of a relaxation: how far its bounds are from linear in the weights of a unit, and how that grows with
depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastbound import models
from fastbound.study.probe import Probe

UNITS = 24
# How far a unit's weights move, each by a random share of itself.
STEP = 0.01
DEPTHS = (1, 2, 3, 4, 5, 6)
WIDTH = 50


def sensitivity(probe: Probe, method: str, units: int = UNITS, seed: int = 0) -> float | None:
    """The share of a bound's change that linear extrapolation misses when a unit of the first layer moves by 1%.

    The incoming weights w of a random unit move to w (1 + `STEP` t g) with Gaussian shares g. With margin bounds m_j(t)
    of an image it is ``sum_j |m_j(1) - 2 m_j(0) + m_j(-1)|`` over ``sum_j |m_j(1) - m_j(-1)| / 2``; the result is the
    median over images and ``units`` units, so the few steps that meet a jump or the edge of a piece do not count. The
    same seed gives the same steps for every method. None if no unit moves a bound, as in a network of dead ReLUs.

    Why this measure: within a piece, bounds of Box and hBox are linear along such a line. Box has few pieces, so this
    is 0 up to rounding; the absolute sums of hBox have many, whose edges add a little. The slopes u / (u - l) of the
    others are rational. CROWN-IBP (R) takes them from interval bounds, so each layer multiplies by one more; in DeepZ
    and CROWN l and u depend on such slopes themselves, and the degree compounds layer by layer. A degree cannot be read
    off values, but the distance from degree 1 can. All weights of a unit move, because one weight of hundreds hardly
    changes it.

    Soundness: a measurement, not a bound.
    Source: the property and the argument by degrees are those of Jovanovic et al., 2022, arXiv 2102.06700; the measure
    is ours.
    """
    name, layer = next((name, weight) for name, weight in probe.weights.items() if weight.dim() > 1)
    generator = torch.Generator().manual_seed(seed)
    here = probe.margins(method, {})  # [B, K - 1]
    shares = []
    for _ in range(units):
        unit = int(torch.randint(len(layer), (1,), generator=generator))
        step = STEP * torch.randn(layer.shape[1:], generator=generator, dtype=layer.dtype).to(layer.device)
        below, above = (probe.margins(method, {name: _moved(layer, unit, sign * step)}) for sign in (-1.0, 1.0))
        missed = (above - 2 * here + below).abs().sum(1)  # [B]
        change = (above - below).abs().sum(1) / 2
        shares.append((missed / change)[change > 0])
    found = torch.cat(shares)
    return float(found.median()) if len(found) else None


def _moved(layer: Tensor, unit: int, shares: Tensor) -> Tensor:
    moved = layer.clone()
    moved[unit] *= 1 + shares
    return moved


def growing_networks(input_shape: tuple[int, ...], num_classes: int, seed: int = 0) -> list[nn.Module]:
    """Untrained fully connected networks of `DEPTHS` hidden layers of `WIDTH` units: each has one more ReLU after the
    first layer, whose units `sensitivity` moves."""
    networks: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        for depth in DEPTHS:
            torch.manual_seed(seed)
            networks.append(models.build("mlp", input_shape, num_classes, hidden=[WIDTH] * depth))
    return networks
