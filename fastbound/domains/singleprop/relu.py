"""ReLU, in one pass with the BatchNorm before it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains import functions
from fastbound.domains.linear import layers
from fastbound.domains.records import Elementwise, Norm
from fastbound.domains.rules import rule
from fastbound.domains.singleprop.value import SingleProp
from fastbound.domains.streams import as_stored, emit
from fastbound.domains.tape import Node, PendingNorm
from fastbound.ops import singleprop_norm_relu


@rule(SingleProp, torch.relu)
def relu(input: SingleProp) -> SingleProp:
    node = input.node
    if isinstance(node, PendingNorm) and node.can_fuse:
        streams = _norm_relu(node.source, node.record_as(Norm), input.variant)
    else:
        streams = _norm_relu(node, None, input.variant)
    return emit(Elementwise(functions.relu(), "torch.relu"), (input,), *streams, dtype=input.dtype)


@rule(SingleProp, F.batch_norm)
def batch_norm(input: SingleProp, *args: Any, **kwargs: Any) -> SingleProp:
    """As for all streams, but without a ReLU after it, it is computed by this domain's own pass."""
    source, waiting = input.node, layers.batch_norm(input, *args, **kwargs).node
    norm = waiting.record_as(Norm)
    return input.handle(PendingNorm(norm, source, source.shape, lambda: _norm_relu(source, norm, None)))


def _norm_relu(node: Node, norm: Norm | None, variant: str | None) -> tuple[Tensor, Tensor]:  # [1, B, C, *], [B, C, *]
    stack, radius = as_stored(node, "singleprop_norm_relu")
    settings: tuple[Any, ...] = (None,) * 4 + (0.0, variant)
    if norm is not None:
        settings = (norm.mean, norm.var, norm.weight, norm.bias, norm.eps, variant, norm.batch_statistics)
    nominal, radius = singleprop_norm_relu(stack.squeeze(0), radius, *settings)
    return nominal.unsqueeze(0), radius
