"""Scale and shift of a BatchNorm as the backward walk needs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.domains.records import Norm
from fastbound.domains.tape import Node


def norm_affine(node: Node) -> tuple[Tensor, Tensor]:  # [C], [C]
    """Scale and shift of a BatchNorm node; batch statistics propagate gradients to the nominal stream."""
    record = node.record_as(Norm)
    nominal = node.inputs[0].nominal if record.batch_statistics and torch.is_grad_enabled() else None
    if nominal is not None and nominal.requires_grad:
        mean, var = _Statistics.apply(nominal, record.mean, record.var)
        record = record._replace(mean=mean, var=var)
    return record.affine(None)


class _Statistics(torch.autograd.Function):
    """Returns a known mean and variance, with the gradient that computing them would have had."""

    @staticmethod
    def forward(ctx: Any, nominal: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(nominal, mean)
        return mean.clone(), var.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_var: Tensor) -> tuple[Tensor, None, None]:
        nominal, mean = ctx.saved_tensors
        count = nominal.numel() // max(nominal.shape[1], 1)
        slope = 2 * grad_var / count
        shape = (-1, *(1,) * (nominal.dim() - 2))
        offset = (grad_mean / count - slope * mean).view(shape)
        return torch.addcmul(offset, nominal, slope.view(shape)), None, None
