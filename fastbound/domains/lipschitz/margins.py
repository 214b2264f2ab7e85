"""Lipschitz constants of margins, the bottom logit, certified margins.

The last linear layer is merged into the margins: z_j - z_i has the constant k ||w_j - w_i||, with k the constant before
that layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound.domains.lipschitz.certificate import UNIT, gamma
from fastbound.domains.lipschitz.constants import certified, estimate
from fastbound.domains.lipschitz.graph import Layer, LipschitzNode
from fastbound.domains.lipschitz.operators import DenseOperator
from fastbound.primitives.interval_margin import other_classes


def margin_constants(node: LipschitzNode) -> Tensor:  # [K, K]
    """Estimates of the Lipschitz constants of z_j - z_i, differentiable; 0 on the diagonal."""
    before_last, rows = _last_layer(node)
    return estimate(before_last) * _distances(rows)


def certified_margin_constants(node: LipschitzNode) -> Tensor:  # [K, K]
    """Upper bounds of the Lipschitz constants of z_j - z_i in float64."""
    before_last, rows = _last_layer(node)
    distances = _distances(rows.detach().double())
    return certified(before_last) * distances * (1 + gamma(rows.shape[1] + 8))


def bottom_logit(node: LipschitzNode, eps: float | Tensor) -> Tensor:  # [B]
    """``max_{i != j} z_i + eps K_ij`` with j the predicted class, from the estimates; it exceeds z_j if another class
    may win within eps."""
    logits = node.nominal
    predicted = logits.argmax(1, keepdim=True)  # [B, 1]
    reached = logits + eps * margin_constants(node)[predicted.squeeze(1)]
    return reached.scatter(1, predicted, -torch.inf).amax(1)


def certified_margins(node: LipschitzNode, labels: Tensor, eps: float) -> Tensor:  # [B] -> [B, K - 1]
    """Lower bounds in float64 of z_y - z_i in the l2 ball of radius eps."""
    own, others = labels.unsqueeze(1), other_classes(labels, node.shape[1])
    logits = node.nominal.double()
    falls = certified_margin_constants(node).to(logits)[own, others] * (eps * (1 + 4 * UNIT))
    margins = logits.gather(1, own) - logits.gather(1, others)
    return margins - falls - (margins.abs() + falls) * (4 * UNIT)


def _last_layer(node: LipschitzNode) -> tuple[LipschitzNode, Tensor]:
    """The value before the last layer and the rows [K, D] of that layer, if it is linear; else the output itself and
    unit vectors."""
    gain = node.gain
    if isinstance(gain, Layer) and isinstance(gain.operator, DenseOperator) and node.inputs[0].nominal.dim() == 2:
        return node.inputs[0], gain.operator.weight
    return node, torch.eye(node.shape[1], dtype=node.dtype, device=node.device)


def _distances(rows: Tensor) -> Tensor:  # [K, D] -> [K, K]
    # By differences: a Gram matrix would cancel for classes with similar rows.
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
