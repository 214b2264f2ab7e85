"""What every backend and every caller of a primitive must agree on: dtypes, names of variants, formulas they share.

The floor below the backends: it imports torch alone. A stem has a file here if there is more to say of it than that it
is a function of tensors; `fastbound.reference` says what it computes.
"""

import torch
from torch import Tensor

# Products are defined in half precision too: autocast lowers their operands.
PRODUCT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

Pair = tuple[int, int]  # height and width

# What a backward returns: one gradient for each argument that has one, None where `needs` does not ask for it.
Gradients = tuple[Tensor | None, ...]
