"""Dropout: the identity in evaluation, multiplication by the same mask for all streams in training."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.records import Scale
from fastbound.domains.rules import rule
from fastbound.domains.streams import Streams, emit


def _dropout(function: Callable[..., Tensor]) -> Callable[..., Streams]:
    def dropout(input: Streams, p: float = 0.5, training: bool = True) -> Streams:
        """The identity in evaluation, one mask for all streams in training."""
        if not training or p == 0:
            return input
        mask = function(torch.ones_like(input.node.radius.detach()), p, True)
        stack, radius = input.node.streams
        return emit(Scale(mask), (input,), stack * mask, radius * mask)

    return dropout


for _function in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d):
    rule(Streams, _function)(_dropout(_function))
