"""`interval_margin` against the merged weights [B, K - 1, D] that it avoids, for ten and two hundred classes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fastbound as fb
from bench.passes import forward_backward, leaf
from fastbound.ops import interval_margin
from fastbound.spec import margin_spec

SHAPES = [(128, 256, 10), (128, 512, 200)]  # batch, features, classes


def _merged(radius: Tensor, weight: Tensor, labels: Tensor) -> Tensor:  # [B, D], [K, D], [B]
    merged = margin_spec(labels, weight.shape[0]) @ weight  # [B, K - 1, D]
    return (merged.abs() @ radius.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("variant", ["merged", "reference", "native"])
@pytest.mark.parametrize("batch, features, classes", SHAPES)
def test_interval_margin(measure: Callable[..., None], batch: int, features: int, classes: int, variant: str) -> None:
    group = f"interval_margin {batch}x{features}, {classes} classes"
    radius, weight = leaf(batch, features).detach().abs().requires_grad_(), leaf(classes, features)
    labels = torch.randint(classes, (batch,))
    if variant == "merged":
        return measure(group, forward_backward, _merged, radius, weight, labels)
    with fb.use_backend(variant):
        measure(group, forward_backward, interval_margin, radius, weight, labels)
