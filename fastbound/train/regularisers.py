"""The two regularisers of short warm-up, from moments that are summed up in the passes over the ReLUs.

    out = model(with_moments(fb.linf_box(x, eps, 0.0, 1.0)))
    tightness, balance = warmup_regularisers(out)

Source: Shi et al., 2021, arXiv 2103.17268.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound.domains.interval import Interval
from fastbound.domains.records import Convolution, Linear
from fastbound.domains.tape import Node, topological


def with_moments(box: Interval) -> Interval:
    """`box` itself; every ReLU now stores the moments of its input bounds, for `warmup_regularisers`."""
    box.node.tape.keeps_relu_moments = True
    return box


def warmup_regularisers(out: Interval, tolerance: float = 0.5) -> tuple[Tensor, Tensor]:
    """Losses for bounds that become wider in the network, and for ReLUs that are unevenly active and inactive.

    With D_i the mean radius before ReLU i of m, D_0 that of the normalised input, and rho(q) = min(q, 1 / q):

        tightness = mean_i relu(tolerance - D_0 / D_i) / tolerance
        balance   = mean_i (relu(tolerance - rho(alpha_i)) + relu(tolerance - rho(beta_i))) / tolerance

    where alpha is the sum of the centers of active units over that of inactive ones, negated, and beta the sum of
    their squared distances from the mean center over the same of inactive ones. A layer without active or without
    inactive units adds nothing to the balance, because it would have no gradient.

    Args:
        out: what the model returned for a box from `with_moments`.
        tolerance: ratios of at least this value add no loss; > 0.

    Returns:
        Two scalar tensors, >= 0, in the dtype of the network. The batch is that of this process.

    Raises:
        ValueError: a tolerance that is not positive; no moments (no `with_moments`, or no ReLU).
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance: wanted a number greater than 0, got {tolerance}.")
    nodes = topological(out.node)
    means = [node.relu_moments / node.shape.numel() for node in nodes if node.relu_moments is not None]
    if not means:
        raise ValueError(
            "out: its tape has no moments; pass the box through with_moments before the model, and the output before "
            "backward(). The model must have ReLUs."
        )
    width, _, active, inactive, *rest = torch.stack(means).unbind(1)  # [m] each
    tightness = (tolerance - _input_width(nodes) / width.clamp(min=1e-12)).relu()
    center_active, center_inactive, spread_active, spread_inactive = rest
    both = (active > 0) & (inactive > 0) & (spread_inactive > 0)
    ratios = (_ratio(center_active, -center_inactive, both), _ratio(spread_active, spread_inactive, both))
    balance = torch.stack([(tolerance - torch.minimum(q, 1 / q.clamp(min=1e-12))).relu() for q in ratios]).sum(0)
    return tightness.mean() / tolerance, (balance * both).mean() / tolerance


def _ratio(active: Tensor, inactive: Tensor, both: Tensor) -> Tensor:  # [m] each
    """Quotients; 1 without a gradient for a layer that lacks one kind of units."""
    return torch.where(both, active, 1.0) / torch.where(both, inactive, 1.0)


def _input_width(nodes: list[Node]) -> Tensor:  # []
    """The mean radius of the input of the first layer with weights."""
    first = next((node for node in reversed(nodes) if isinstance(node.record, Linear | Convolution)), None)
    return (nodes[-1] if first is None else first.inputs[0]).radius.mean()
