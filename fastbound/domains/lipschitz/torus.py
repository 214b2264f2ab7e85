"""Upper bound of the spectral norm of a convolution: the norm of the same convolution on a torus that contains its map.

The torus is so large that no window wraps from one end of the map to the other. The convolution is then a block of the
one on the torus, so its norm is at most as large. With the pixels of a stride taken as channels, a Fourier transform
splits the convolution on the torus into one small matrix per frequency, and its norm is the largest of theirs.

Source: the Fourier form is that of Sedghi, Gupta & Long, ICLR 2019, arXiv 1805.10408; embedding and strides derived
here.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from fastbound.domains.lipschitz.certificate import UNIT, gamma, gram_norm
from fastbound.domains.lipschitz.operators import ConvolutionOperator

# Entries of the matrices of frequencies that are processed together.
CHUNK = 2**24


def torus_norm(operator: ConvolutionOperator) -> float:
    """Upper bound of the spectral norm of a convolution with weights in float64 and of about 1.

    It is loose for small maps, and a tenth of a percent above the norm at 28 pixels and a kernel of 3.
    """
    return max(_norm(operator, group) for group in operator.weight.chunk(operator.groups))


def _norm(operator: ConvolutionOperator, weight: Tensor) -> float:  # [O, C, *K], one group
    sizes = _torus_sizes(operator)
    taps = _taps(operator, weight)
    frequencies = torch.tensor(list(itertools.product(*map(range, sizes))))  # [F, D]
    numbers = math.prod(weight.shape[:2]) * math.prod(operator.stride)
    bounds = [gram_norm(_matrices(taps, part, sizes)) for part in frequencies.split(max(1, CHUNK // numbers))]
    # Phases have an error of at most 32 u: an angle of at most 2 pi, its cosine and sine.
    rounding = (32 * UNIT + gamma(weight[0, 0].numel() + 8)) * float(
        weight.abs().flatten(2).sum(2).square().sum().sqrt()
    )
    return (max(bounds) + 2 * rounding) * (1 + 4 * UNIT)


def _torus_sizes(operator: ConvolutionOperator) -> list[int]:
    """Sizes of the torus in strides: room for the map and the padding on one side of it, and for every output."""
    sides = zip(operator.size, operator.padding, operator.stride, operator.output_shape[1:], strict=True)
    return [max(-(-(n + p) // s), out) for n, p, s, out in sides]


Tap = tuple[tuple[int, ...], int, Tensor]


def _taps(operator: ConvolutionOperator, weight: Tensor) -> list[Tap]:
    """Each pixel of the kernel as (shift in strides, place within the stride, [O, C])."""
    found = []
    for pixel, place in enumerate(itertools.product(*map(range, weight.shape[2:]))):
        reached = [t * d - p for t, d, p in zip(place, operator.dilation, operator.padding, strict=True)]
        shift = tuple(r // s for r, s in zip(reached, operator.stride, strict=True))
        phase = 0
        for r, s in zip(reached, operator.stride, strict=True):
            phase = phase * s + r % s
        found.append((shift, phase, weight.flatten(2)[..., pixel]))
    return found


def _matrices(taps: list[Tap], frequencies: Tensor, sizes: list[int]) -> Tensor:
    """The matrix of the torus convolution at each frequency [F, D], transposed to be wide: [F, M, N], M <= N."""
    out, channels = taps[0][2].shape
    phases = max(phase for _, phase, _ in taps) + 1
    matrices = torch.zeros(len(frequencies), out, phases, channels, dtype=torch.complex128)
    period = math.lcm(*sizes)
    weights = torch.tensor([period // size for size in sizes])
    for shift, phase, weight in taps:
        turns = (frequencies * torch.tensor(shift) * weights).sum(1) % period  # exact, so that the angle stays small
        factor = torch.polar(torch.ones(len(turns), dtype=torch.float64), turns.double() * (2 * math.pi / period))
        matrices[:, :, phase] += factor[:, None, None] * weight
    matrices = matrices.flatten(2)
    return matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
