"""`lipschitz_power`: power iterations, from which the spectral norm of a layer is estimated."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.autocast import kept_from_autocast
from fastbound.ops.checks import refuse, require_convolution
from fastbound.primitives.convolution import Sizes


@kept_from_autocast
@torch.no_grad()
def lipschitz_power(
    iterate: Tensor,  # [1, I] or [1, C, *size]
    weight: Tensor,  # [O, I] or [O, C / groups, *K]
    iterations: int,
    stride: Sizes = (),
    padding: Sizes = (),
    dilation: Sizes = (),
    groups: int = 1,
) -> Tensor:  # [1, I] or [1, C, *size]
    """``v <- W^T W v / ||W^T W v||``, ``iterations`` times, for a layer W without its bias.

    v approaches the right singular vector of the largest singular value, so ``||W v||`` approaches the spectral norm
    from below. A weight of zeros gives zeros. In plain float32 so does a weight whose norm is above 4e9, because its
    fourth power overflows, and below 3e-10 the vector loses digits; the Triton kernels avoid both.

    Args:
        iterate: v, one sample of the layer's inputs, float32 or float64; its length does not matter.
        weight: of a linear layer, or of a convolution of 1 to 3 dimensions on zero-padded maps of ``size`` pixels.
        iterations: at least 1.
        stride, padding, dilation: one number for each dimension of the maps; a linear layer has none.
        groups: of a convolution.

    Returns:
        A unit vector of the shape of ``iterate``, newly allocated. No gradient flows through it, and autocast does not
        lower its products.

    Raises:
        ValueError: shapes or numbers that do not match. TypeError: two dtypes. BackendError: a requested backend
        cannot serve it.

    Soundness: none; an estimate from below is for training, not for certificates. On a GPU products of the library
    follow torch's TF32 flags, and those of Triton are IEEE float32.
    Source: Leino, Wang & Fredrikson, 2021, arXiv 2102.08452.
    """
    _check(iterate, weight, iterations, stride, padding, dilation, groups)
    window = (tuple(stride), tuple(padding), tuple(dilation), groups)
    code = backends.find("lipschitz_power", iterate, weight)
    return code.lipschitz_power_fwd(iterate, weight, iterations, *window)


def _check(
    iterate: Tensor, weight: Tensor, iterations: int, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> None:
    if not 2 <= weight.dim() <= 5:
        wanted = "[O, I] of a linear layer, or [O, C / groups, *K] of a convolution of 1 to 3 dimensions"
        refuse("lipschitz_power", "weight", wanted, tuple(weight.shape), "flatten other layers")
    if iterations < 1:
        refuse("lipschitz_power", "iterations", "at least 1", iterations, "start from a random vector and take one")
    shape, channels = tuple(iterate.shape), weight.shape[1] * groups
    one_input = len(shape) == weight.dim() and shape[0] == 1
    if one_input:
        require_convolution("lipschitz_power", "iterate", shape[2:], weight, None, stride, padding, dilation, groups)
    if not one_input or shape[1] != channels:
        wanted = ", ".join(map(str, (1, channels, *("size",) * (weight.dim() - 2))))
        wanted = f"one input [{wanted}] of weight {tuple(weight.shape)} with groups={groups}"
        refuse("lipschitz_power", "iterate", wanted, f"shape {shape}", "pass one sample of the layer's inputs")
