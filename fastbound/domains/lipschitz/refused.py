"""Functions without a useful Lipschitz constant: errors that say what to use instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.nn.functional as F

from fastbound.domains.lipschitz.value import Lipschitz
from fastbound.domains.location import module_path
from fastbound.domains.rules import function_name, rule

_NORMALISATION = (
    "it divides by the deviation of its input, which has no Lipschitz constant in training and multiplies the constant "
    "in evaluation; leave it out, and initialise with orthogonal weights (fastbound train --init orthogonal)"
)
_INDICES = "which element is largest has no Lipschitz constant; leave return_indices=True out"
_COPIES = "it copies elements and so changes the norm; give all sides one shape"
_SOFTMAX = "return the logits; fastbound.losses.gloro_cross_entropy takes them"

ADVICE: dict[Callable[..., Any], str] = {
    F.batch_norm: _NORMALISATION,
    F.layer_norm: _NORMALISATION,
    F.group_norm: _NORMALISATION,
    F.instance_norm: _NORMALISATION,
    F.softmax: _SOFTMAX,
    torch.Tensor.expand: _COPIES,
    F.log_softmax: _SOFTMAX,
    F.max_pool1d_with_indices: _INDICES,
    F.max_pool2d_with_indices: _INDICES,
    F.max_pool3d_with_indices: _INDICES,
    F.scaled_dot_product_attention: "attention has no global Lipschitz constant; use convolutions and MinMax or ReLU",
}


def _refusal(function: Callable[..., Any], advice: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"{function_name(function)}{module_path()} in a Lipschitz network: {advice}.")

    return refuse


for _function, _advice in ADVICE.items():
    rule(Lipschitz, _function)(_refusal(_function, _advice))


def _dropout(function: Callable[..., Any]) -> Callable[..., Lipschitz]:
    def dropout(input: Lipschitz, p: float = 0.5, training: bool = True) -> Lipschitz:
        if training and p > 0:
            raise NotImplementedError(
                f"{function_name(function)}{module_path()} in a Lipschitz network: the masked network has another "
                "constant than the certified one; leave dropout out, or set p=0."
            )
        return input

    return dropout


for _function in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout):
    rule(Lipschitz, _function)(_dropout(_function))

# torch.softmax and Tensor.softmax are other objects than F.softmax.
for _function in (torch.softmax, torch.Tensor.softmax, torch.log_softmax, torch.Tensor.log_softmax):
    rule(Lipschitz, _function)(_refusal(_function, _SOFTMAX))
