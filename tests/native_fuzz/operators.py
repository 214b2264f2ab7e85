"""Calls of the public primitives (`fastbound.ops`) on the native backend, against the reference in float64."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from contract import (
    LAYOUTS,
    as_tuple,
    assert_within,
    available,
    cotangents,
    differentiable,
    expected_gradients,
    expected_outputs,
    forward_names,
    gradient_names,
    is_real,
    operator,
    output_dtypes,
    reference,
    rounding,
    rounding_bwd,
    through_op,
)
from torch import Tensor

import fastbound as fb
from fastbound import backends
from fastbound.primitives import batch_norm
from fastbound.primitives.crown_relu import RELAXATIONS
from fastbound.primitives.singleprop_norm_relu import VARIANTS

SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 33)
REFUSALS = (ValueError, TypeError, IndexError, fb.BackendError)  # IndexError: of labels, by plain torch
Args = tuple[Any, ...]


class Numbers:
    """Random tensors, sizes and geometries of one call."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.generator = torch.Generator().manual_seed(rng.getrandbits(60))

    def size(self) -> int:
        return self.rng.choice(SIZES)

    def sizes(self, least: int, most: int) -> tuple[int, ...]:
        return tuple(self.rng.choice(SIZES[:8]) for _ in range(self.rng.randint(least, most)))

    def batch(self) -> int:
        return 0 if self.rng.random() < 0.05 else self.rng.choice(SIZES[:8])

    def normal(self, *shape: int) -> Tensor:
        values = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return torch.where(torch.rand(shape, generator=self.generator) < 0.1, 0.0, values)

    def box(self, *shape: int, streams: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Centers and radii, some of them zero; no center is, because gradients jump where both are."""
        center = torch.randn((*streams, *shape), generator=self.generator, dtype=torch.float64)
        return center, self.normal(*shape).abs()

    def perhaps(self, *shape: int) -> Tensor | None:
        return self.normal(*shape) if self.rng.random() < 0.6 else None

    def slope(self) -> float:
        return self.rng.choice((0.0, 0.1, 0.25, 1.0))

    def norm(self, channels: int) -> tuple[Any, ...]:  # mean, var, weight, bias, eps
        if self.rng.random() < 0.4:
            return None, None, None, None, 0.0
        return self.normal(channels), self.normal(channels).abs() + 0.1, *self.affine(channels), 1e-5

    def affine(self, channels: int) -> tuple[Tensor | None, Tensor | None]:
        return (self.normal(channels), self.normal(channels)) if self.rng.random() < 0.7 else (None, None)

    def convolution(self) -> tuple[int, Tensor, tuple[int, int], tuple[Any, ...]]:
        """Input channels, a weight, sizes of a map, and (stride, padding, dilation, groups) that fit each other."""
        pick = self.rng.choice
        groups, kernel = pick((1, 1, 1, 2, 3)), (pick((1, 2, 3)), pick((1, 2, 3)))
        inputs, outputs = groups * pick((1, 2, 3, 5)), groups * pick((1, 2, 4))
        dilation, stride = (pick((1, 1, 2)), pick((1, 1, 2))), (pick((1, 1, 2, 3)), pick((1, 1, 2, 3)))
        padding = (pick((0, 1)), pick((0, 1, 2)))
        size = tuple(d * (k - 1) + pick((1, 2, 4, 7)) for d, k in zip(dilation, kernel))
        weight = self.normal(outputs, inputs // groups, *kernel)
        return inputs, weight, (size[0], size[1]), (stride, padding, dilation, groups)


def crown_concretize(n: Numbers) -> Args:
    shape = (n.batch(), *n.sizes(1, 3))
    return n.normal(shape[0], n.size(), *shape[1:]), n.normal(*shape), n.normal(*shape).abs()


def crown_linear(n: Numbers) -> Args:
    outputs = n.size()
    return n.normal(n.batch(), *n.sizes(1, 2), outputs), n.normal(outputs, n.size()), n.perhaps(outputs)


def crown_conv2d(n: Numbers) -> Args:
    inputs, weight, size, geometry = n.convolution()
    like = F.conv2d(n.normal(1, inputs, *size), weight, None, *geometry)
    return n.normal(n.batch(), n.size(), *like.shape[1:]), weight, n.perhaps(weight.shape[0]), size, *geometry


def crown_relu(n: Numbers) -> Args:
    shape = (n.batch(), n.size(), *n.sizes(0, 2))
    scale, shift = n.affine(shape[1])
    rows = n.normal(shape[0], n.size(), *shape[1:])
    return rows, *n.box(*shape), scale, shift, n.perhaps(shape[1]), n.slope(), n.rng.choice(RELAXATIONS)


def interval_linear(n: Numbers) -> Args:
    shape, weight = (n.batch(), *n.sizes(0, 1), n.size()), n.size()
    stack = n.normal(n.rng.randint(1, 2), *shape)
    return stack, n.normal(*shape).abs(), n.normal(weight, shape[-1]), n.perhaps(weight)


def interval_conv2d(n: Numbers) -> Args:
    inputs, weight, size, geometry = n.convolution()
    shape = (max(1, n.batch()), inputs, *size)
    stack = n.normal(n.rng.randint(1, 2), *shape)
    return stack, n.normal(*shape).abs(), weight, n.perhaps(weight.shape[0]), *geometry


def interval_margin(n: Numbers) -> Args:
    batch, features, classes = n.batch(), n.size(), 1 + n.size()
    labels = torch.randint(classes, (batch,), generator=n.generator)
    return n.normal(batch, features).abs(), n.normal(classes, features), labels


def interval_norm_relu(n: Numbers) -> Args:
    shape = (n.batch(), n.size(), *n.sizes(0, 2))
    return *n.box(*shape, streams=(n.rng.randint(1, 2),)), *n.norm(shape[1]), n.slope()


def singleprop_norm_relu(n: Numbers) -> Args:
    shape = (n.batch(), n.size(), *n.sizes(0, 2))
    return *n.box(*shape), *n.norm(shape[1]), n.rng.choice((None, *VARIANTS))


def lipschitz_power(n: Numbers) -> Args:
    iterations = n.rng.randint(1, 3)
    if n.rng.random() < 0.5:
        inputs = n.size()
        return F.normalize(n.normal(1, inputs)), n.normal(n.size(), inputs), iterations, (), (), (), 1
    inputs, weight, size, geometry = n.convolution()
    return F.normalize(n.normal(1, inputs, *size).flatten(1)).view(1, inputs, *size), weight, iterations, *geometry


MAKERS: dict[str, Callable[[Numbers], Args]] = {
    "crown_concretize": crown_concretize,
    "crown_conv2d": crown_conv2d,
    "crown_linear": crown_linear,
    "crown_relu": crown_relu,
    "interval_conv2d": interval_conv2d,
    "interval_linear": interval_linear,
    "interval_margin": interval_margin,
    "interval_norm_relu": interval_norm_relu,
    "interval_norm_relu_moments": interval_norm_relu,
    "lipschitz_power": lipschitz_power,
    "singleprop_norm_relu": singleprop_norm_relu,
}


def clear_of_kinks(stem: str, args: Args) -> bool:
    """Whether no gate is open by chance: gradients jump there, and rounding may decide it."""
    if stem == "crown_relu":
        center, radius, scale, shift = args[1], args[2], args[3], args[4]
    elif "norm_relu" in stem:
        center, radius, mean, var, weight, bias, eps = args[:7]
        scale = None if mean is None else batch_norm.scale_of(var, weight, eps)
        shift = None if scale is None else -mean * scale + (0 if bias is None else bias)
        center = center[None] if stem.startswith("singleprop") else center
    else:
        return True
    if scale is not None:
        scale, shift = (v.view(-1, *(1,) * (radius.dim() - 2)) for v in (scale, shift))
        center, radius = center * scale + shift, radius * scale.abs()
    return all(bool((x.abs() > 1e-5).all()) for x in (center, center - radius, center + radius))


def described(args: Args) -> str:
    return ", ".join(
        f"{str(a.dtype)[6:]}{list(a.shape)}/{list(a.stride())}" if isinstance(a, Tensor) else repr(a) for a in args
    )


def laid_out(args: Args, rng: random.Random) -> Args:
    def one(t: Any) -> Any:
        if not is_real(t) or rng.random() < 0.4:
            return t
        if t.numel() and rng.random() < 0.15:
            axis = rng.randrange(t.dim())
            return t.narrow(axis, 0, 1).expand(t.shape)
        return rng.choice(LAYOUTS)(t)

    return tuple(one(a) for a in args)


def one_call(rng: random.Random, tell: Any = lambda text: None) -> tuple[str, str, str | None]:
    """Like `verdicts.one_call`, of a primitive."""
    stem = rng.choice(backends.primitives())
    args = MAKERS[stem](Numbers(rng))
    dtype = rng.choice([d for d in (torch.float32, torch.float64, torch.bfloat16) if available(stem, "cpu", d)])
    args = laid_out(tuple(a.to(dtype) if is_real(a) else a for a in args), rng)
    while not clear_of_kinks(stem, tuple(a.double() if is_real(a) else a for a in args)):
        args = MAKERS[stem](Numbers(rng))
        args = laid_out(tuple(a.to(dtype) if is_real(a) else a for a in args), rng)
    torch.set_num_threads(rng.choice((1, 1, 2)))
    if rng.random() < 0.6:
        tell(f"valid {stem}({described(args)})")
        return stem, "accepted", judged(stem, args)
    while (broken := spoilt(args, rng)) is None:
        args = MAKERS[stem](Numbers(rng))
    tell(f"spoilt {stem}({described(broken)})")
    return stem, "wrong_shape", agree(stem, broken)


def judged(stem: str, args: Args) -> str | None:
    values = dict(zip(forward_names(stem), args))
    names = [n for n in gradient_names(stem, args) if values[n] is not None] if differentiable(stem) else []
    try:
        grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
        outputs, found = through_op(stem, "native", args, names, grads)
        types = output_dtypes(stem, args)
        assert_within(outputs, expected_outputs(stem, args), *rounding(stem, args), types, "output")
        if names:
            terms, all_magnitudes = rounding_bwd(stem, grads, args)
            magnitudes = dict(zip(gradient_names(stem, args), all_magnitudes))
            wanted = expected_gradients(stem, grads, args, names)
            kinds = tuple(values[name].dtype for name in names)
            assert_within(found, wanted, terms, [magnitudes[name] for name in names], kinds, "gradient")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def spoilt(args: Args, rng: random.Random) -> Args | None:
    """One length of one tensor off by one."""
    at = rng.choice([i for i, a in enumerate(args) if isinstance(a, Tensor)])
    t = args[at]
    axis = rng.randrange(t.dim())
    if rng.random() < 0.5 and t.shape[axis] > 1:
        t = t.narrow(axis, 0, t.shape[axis] - 1)
    else:
        t = torch.cat((t, t.narrow(axis, 0, 1) if t.shape[axis] else t.new_zeros(1)), axis) if t.numel() else None
    return None if t is None else (*args[:at], t, *args[at + 1 :])


def agree(stem: str, args: Args) -> str | None:
    """Native and reference both refuse it by an error of the library, or both take it with one result."""
    came: dict[str, Any] = {}
    for backend in ("native", "reference"):
        try:
            with fb.use_backend(backend), torch.no_grad():
                came[backend] = as_tuple(operator(stem)(*args))
        except REFUSALS as error:
            came[backend] = type(error).__name__
        except Exception as error:
            return f"{backend}: {type(error).__name__}: {error}"
    native, plain = came["native"], came["reference"]
    if plain == "BackendError" and not isinstance(native, str):  # the reference has no maps in half precision
        return judged(stem, args)
    if isinstance(native, str) or isinstance(plain, str):
        both = isinstance(native, str) and isinstance(plain, str)
        return None if both else f"native: {described_result(native)}; reference: {described_result(plain)}"
    return judged(stem, args)


def described_result(result: Any) -> str:
    return result if isinstance(result, str) else f"accepted, {described(result)}"
