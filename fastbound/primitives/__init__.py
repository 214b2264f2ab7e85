"""Definitions that every backend and every caller of a primitive share: dtypes, names of variants, formulas.

This is the floor below the backends; it imports only torch. A primitive has a file here if they share more than its
signature. `fastbound.reference` defines what it computes.
"""

import torch
from torch import Tensor

# Products are defined in half precision too, because autocast lowers their operands.
PRODUCT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

Pair = tuple[int, int]  # height and width

# The result of a backward: one gradient for each differentiable argument, None if `needs` does not ask for it.
Gradients = tuple[Tensor | None, ...]


def as_rows(x: Tensor) -> Tensor:  # [*, N] -> [M, N]
    """All vectors of ``x`` as one matrix, also if they have no elements, for which -1 as a size means nothing."""
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])
