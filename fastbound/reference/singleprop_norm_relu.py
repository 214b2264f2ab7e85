"""Per-channel affine map (BatchNorm), then ReLU, on the clean activations z and the radius v of SingleProp.

With ``s = weight / sqrt(var + eps)`` and ``t = bias - mean s``: ``z -> s z + t``, ``v -> |s| v``. ReLU maps z to
relu(z) and v to e(z, v): v if z - v >= 0, else 0 if z + v <= 0, else by variant

* ``"zero"``: (z + v) / 2, the radius of relu([z - v, z + v]);
* ``"fast-lin"``: 3 v / 4 + z / 2 - z^2 / q with q = 4 v + 1e-4, the half-width of the parallelogram around ReLU.

Variant None is the affine map alone. The radius back-propagates into z: with g_v the gradient of e(z, v), an unstable
z gets g_v / 2 (zero) or g_v (1/2 - 2 z / q) (fast-lin), v gets g_v / 2 or g_v (3/4 + 4 z^2 / q^2). At a kink the
gradient is that of the first case that holds, and of torch's relu.

Batch statistics are those of z; the gradient passes through them as in `interval_norm_relu`.
Source: Boopathy et al., 2021, arXiv 2102.01208, and its released code (the 1e-4 is theirs).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbound.primitives import Gradients, batch_norm
from fastbound.reference.interval_norm_relu import affine

# The arguments that `singleprop_norm_relu_bwd` differentiates; the statistics are not among them.
GRADIENTS = ("nominal", "radius", "weight", "bias")


def singleprop_norm_relu_fwd(
    nominal: Tensor,  # [B, C, *], without norm any shape
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C], None: no affine map
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    variant: str | None,
) -> tuple[Tensor, Tensor]:  # [B, C, *], [B, C, *]
    if mean is not None and var is not None:
        scale, shift = affine(mean, var, weight, bias, eps, radius.dim())
        nominal, radius = nominal * scale + shift, radius * scale.abs()
    if variant is None:
        return nominal, radius
    mixed = (nominal + radius) / 2 if variant == "zero" else _fast_lin(nominal, radius)
    stable = torch.where(nominal - radius >= 0, radius, torch.zeros_like(radius))
    return nominal.relu(), torch.where(_unstable(nominal, radius), mixed, stable)


def singleprop_norm_relu_bwd(
    grad_nominal: Tensor | None,  # [B, C, *]
    grad_radius: Tensor | None,  # [B, C, *]
    nominal: Tensor,  # [B, C, *]
    radius: Tensor,  # [B, C, *]
    mean: Tensor | None,  # [C]
    var: Tensor | None,  # [C]
    weight: Tensor | None,  # [C]
    bias: Tensor | None,  # [C]
    eps: float,
    variant: str | None,
    batch_statistics: bool,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    g_nominal = torch.zeros_like(nominal) if grad_nominal is None else grad_nominal
    g_radius = torch.zeros_like(radius) if grad_radius is None else grad_radius
    if mean is None or var is None:
        return (*_gate(g_nominal, g_radius, nominal, radius, variant), None, None)
    scale, shift = affine(mean, var, weight, bias, eps, radius.dim())
    g_nominal, g_radius = _gate(g_nominal, g_radius, nominal * scale + shift, radius * scale.abs(), variant)
    dims = [d for d in range(radius.dim()) if d != 1]
    total = g_nominal.sum(dims)
    moment = (g_nominal * nominal).sum(dims) + scale.flatten().sign() * (g_radius * radius).sum(dims)
    inverse = batch_norm.inverse_deviation(var, eps)
    covariance = moment - mean * total
    d_nominal, d_radius = g_nominal * scale, g_radius * scale.abs()
    if batch_statistics:
        count = radius.numel() // max(radius.shape[1], 1)
        slope = -scale.flatten() * covariance * inverse**2 / count
        offset = -scale.flatten() * total / count - mean * slope
        d_nominal = d_nominal + nominal * slope.view(scale.shape) + offset.view(scale.shape)
    return d_nominal, d_radius, covariance * inverse if needs[2] else None, total if needs[3] else None


def _unstable(nominal: Tensor, radius: Tensor) -> Tensor:
    return (nominal - radius < 0) & (nominal + radius > 0)


def _fast_lin(nominal: Tensor, radius: Tensor) -> Tensor:
    return 0.75 * radius + 0.5 * nominal - nominal.square() / (4 * radius + 1e-4)


def _gate(
    g_nominal: Tensor, g_radius: Tensor, nominal: Tensor, radius: Tensor, variant: str | None
) -> tuple[Tensor, Tensor]:  # gradients of the activation's inputs, from those of its outputs
    if variant is None:
        return g_nominal, g_radius
    in_nominal, in_radius = torch.full_like(nominal, 0.5), torch.full_like(radius, 0.5)
    if variant == "fast-lin":
        ratio = nominal / (4 * radius + 1e-4)
        in_nominal, in_radius = 0.5 - 2 * ratio, 0.75 + 4 * ratio.square()
    unstable, active = _unstable(nominal, radius), nominal - radius >= 0
    from_radius = torch.where(unstable, g_radius * in_nominal, torch.zeros_like(g_radius))
    kept = torch.where(active, g_radius, torch.zeros_like(g_radius))
    return g_nominal * (nominal > 0) + from_radius, torch.where(unstable, g_radius * in_radius, kept)


def rounding(
    nominal: Tensor,
    radius: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    variant: str | None,
) -> tuple[int, tuple[Tensor, Tensor]]:
    """The number of rounded operations in an output, and a bound on the magnitudes of its terms: |z| + v for e."""
    nominal = nominal.abs()
    if mean is not None and var is not None:
        scale, shift = affine(-mean.abs(), var, _abs(weight), _abs(bias), eps, radius.dim())
        nominal, radius = nominal * scale + shift, radius * scale
    return 24, (nominal, nominal + radius)


def rounding_bwd(grads: tuple[Tensor, Tensor], args: tuple[Any, ...]) -> tuple[int, Gradients]:
    """The same for the gradients. The slopes of e are at most 1, and their derivatives in z / q at most 4 for any v.

    The rounding of z and v moves z / q by its magnitude over q, so `steep` grows with that quotient.
    """
    nominal, radius, mean, var, weight, bias, eps, variant = args
    steep = torch.ones_like(radius)
    if variant == "fast-lin":
        value, width = singleprop_norm_relu_fwd(nominal, radius, mean, var, weight, bias, eps, None)
        magnitude = rounding(nominal, radius, mean, var, weight, bias, eps, None)[1][1]
        steep = torch.where(_unstable(value, width), 1 + 4 * magnitude / (4 * width + 1e-4), steep)
    both = grads[0].abs() + grads[1].abs() * steep
    negative_mean = None if mean is None else -mean.abs()  # the formula subtracts the mean's term: here it adds
    magnitudes = singleprop_norm_relu_bwd(
        *(both, grads[1].abs() * steep, nominal.abs(), radius, negative_mean, var, _abs(weight), _abs(bias), eps),
        *(None, False, (True,) * 4),
    )
    return 32 + nominal.numel() // max(radius.shape[1] if radius.dim() > 1 else 1, 1), magnitudes


def _abs(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.abs()


def samples(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> list[tuple[str, tuple[Any, ...]]]:
    """Named argument lists of ``singleprop_norm_relu_fwd``, with weights of both signs."""

    def make(
        shape: tuple[int, ...],
        variant: str | None,
        norm: bool = True,
        affine: bool = True,
        channels_last: bool = False,
    ) -> tuple[Any, ...]:
        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).to(device)

        nominal, radius = normal(*shape), normal(*shape).abs()
        if channels_last:
            nominal, radius = (x.contiguous(memory_format=torch.channels_last) for x in (nominal, radius))
        if not norm:
            return nominal, radius, None, None, None, None, 0.0, variant
        channels = shape[1]
        weight, bias = (normal(channels), normal(channels)) if affine else (None, None)
        return nominal, radius, normal(channels), normal(channels).abs() + 0.1, weight, bias, 1e-5, variant

    return [
        ("zero", make((3, 5), "zero", norm=False)),
        ("fast-lin", make((3, 5, 4), "fast-lin", norm=False)),
        ("zero of a map", make((2, 3, 5, 4), "zero", norm=False, channels_last=True)),
        ("norm, zero", make((2, 6, 5, 3), "zero")),
        ("norm, fast-lin", make((2, 6, 5, 3), "fast-lin")),
        ("norm, zero, channels last", make((2, 19, 5, 3), "zero", channels_last=True)),
        ("norm, fast-lin, channels last", make((2, 19, 5, 3), "fast-lin", channels_last=True)),
        ("norm of features", make((9, 17), "fast-lin")),
        ("norm alone", make((4, 3, 7), None)),
        ("norm without weight", make((4, 3, 7), "zero", affine=False)),
        ("single", make((1, 1, 1, 1), "fast-lin")),
        ("empty batch", make((0, 3, 4, 4), "zero")),
        ("no channels", make((2, 0, 4), "zero")),
        ("no pixels", make((2, 3, 4, 0), "fast-lin")),
        ("volume", make((2, 3, 2, 3, 2), "fast-lin")),
        ("one vector", make((5,), "zero", norm=False)),
    ]
