"""`lipschitz_power`: power iterations, from which the spectral norm of a layer is estimated."""

from __future__ import annotations

import torch
from torch import Tensor

from fastbound import backends
from fastbound.ops.autocast import kept_from_autocast
from fastbound.primitives.convolution import Sizes, room


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
    window = (tuple(stride), tuple(padding), tuple(dilation), groups)
    _check(iterate, weight, iterations, *window)
    code = backends.find("lipschitz_power", iterate, weight)
    return code.lipschitz_power_fwd(iterate, weight, iterations, *window)


def _check(
    iterate: Tensor, weight: Tensor, iterations: int, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> None:
    if not 2 <= weight.dim() <= 5:
        raise ValueError(
            "lipschitz_power: weight: wanted [O, I] of a linear layer, or [O, C / groups, *K] of a convolution of 1 to "
            f"3 dimensions, got {tuple(weight.shape)}."
        )
    if iterations < 1:
        raise ValueError(f"lipschitz_power: iterations: wanted at least 1, got {iterations}.")
    dims = weight.dim() - 2
    for name, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        if len(value) != dims or any(number < least for number in value):
            raise ValueError(
                f"lipschitz_power: {name}: wanted {dims} numbers from {least} on for weight {tuple(weight.shape)}, one "
                f"for each dimension of the maps, got {value}."
            )
    if groups < 1 or weight.shape[0] % groups or (dims == 0 and groups > 1):
        raise ValueError(
            f"lipschitz_power: groups: wanted a number that divides the {weight.shape[0]} outputs of weight "
            f"{tuple(weight.shape)}, and 1 for a linear layer, got {groups}."
        )
    shape, channels = tuple(iterate.shape), weight.shape[1] * groups
    if len(shape) != dims + 2 or shape[:2] != (1, channels):
        wanted = ", ".join(map(str, (1, channels, *("size",) * dims)))
        raise ValueError(
            f"lipschitz_power: iterate: wanted one input [{wanted}] of weight {tuple(weight.shape)} with "
            f"groups={groups}, got shape {shape}."
        )
    if min(room(shape[2:], tuple(weight.shape[2:]), padding, dilation), default=0) < 0:
        raise ValueError(
            f"lipschitz_power: iterate: maps of {shape[2:]} pixels with padding {padding} are smaller than the window "
            f"of weight {tuple(weight.shape)} with dilation {dilation}."
        )
