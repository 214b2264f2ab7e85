"""How every primitive is tested, by discovery: a new stem in ``fastbound/reference`` is covered at once.

A reference module gives ``<stem>_fwd``, ``<stem>_bwd`` and ``samples``. It may add

* ``GRADIENTS``: the names of the forward's arguments to which ``needs`` and the result of ``<stem>_bwd`` refer
  (default: all floating-point tensors, in order); a primitive that nothing is differentiated through has none, and no
  ``<stem>_bwd``;
* ``OUTPUTS``: names of the forward's outputs, under which ``<stem>_bwd`` takes those that it reads again;
* ``rounding(*args) -> (n, magnitudes)`` and ``rounding_bwd(grads, args) -> (n, magnitudes)``: the number of rounded
  operations in an element, and the sum of the magnitudes of its terms, for every output (default: the formula on
  absolute values, and the longest sum that the shapes allow).

An element then agrees with the float64 reference within gamma(n) = n u / (1 - n u) times its magnitude.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import fastbound as fb
from fastbound import backends

STEMS = backends.primitives()
DTYPES = {"float32": torch.float32, "float64": torch.float64}
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}  # stored, but never computed in


def reference(stem: str) -> ModuleType:
    return importlib.import_module(f"fastbound.reference.{stem}")


def operator(stem: str) -> Callable[..., Any]:
    return getattr(importlib.import_module("fastbound.ops"), stem)


def sample(stem: str, index: int, dtype: torch.dtype, device: str = "cpu") -> tuple[Any, ...]:
    return reference(stem).samples(dtype, torch.device(device), torch.Generator().manual_seed(7))[index][1]


def differentiable(stem: str) -> bool:
    return getattr(reference(stem), "GRADIENTS", None) != ()


def available(stem: str, device: str, dtype: torch.dtype) -> list[str]:
    """The backends that serve such tensors; in half precision the native kernels alone, which compute in float32 and
    round once. Products are the library's there."""
    if dtype in getattr(reference(stem), "DTYPES", ()) and dtype in HALVES.values():
        return []
    names = ["native"] if dtype in HALVES.values() else backends.PACKAGES
    return [name for name in names if backends._load(name, stem, device, dtype)[0] is not None]


SAMPLES = [
    pytest.param(stem, index, id=f"{stem}-{name.replace(' ', '_')}")
    for stem in STEMS
    for index, (name, _) in enumerate(
        reference(stem).samples(torch.float32, torch.device("cpu"), torch.Generator().manual_seed(7))
    )
]
every_sample = pytest.mark.parametrize("stem, index", SAMPLES)
every_differentiable_sample = pytest.mark.parametrize(
    "stem, index", [p for p in SAMPLES if differentiable(p.values[0])]
)
every_stem = pytest.mark.parametrize("stem", STEMS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
every_place = pytest.mark.parametrize(
    "device, dtype",
    [pytest.param("cpu", dtype, id=f"cpu-{name}") for name, dtype in DTYPES.items()]
    + [
        pytest.param("cuda", dtype, id=f"cuda-{name}", marks=pytest.mark.gpu)
        for name, dtype in {**DTYPES, **HALVES}.items()
    ],
)


# ---- the float64 reference and the rounding bound --------------------------------------------------------------------


def is_real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def mapped(values: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """``function`` on the floating-point tensors among ``values``; labels, geometry and numbers stay."""
    return tuple(function(v) if is_real(v) else v for v in values)


def as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def forward_names(stem: str) -> list[str]:
    return list(inspect.signature(getattr(reference(stem), f"{stem}_fwd")).parameters)


def gradient_names(stem: str, args: tuple[Any, ...]) -> list[str]:
    """The forward's arguments that have a gradient, even if this sample passes None for one."""
    declared = getattr(reference(stem), "GRADIENTS", None)
    if declared is not None:
        return list(declared)
    parameters = inspect.signature(getattr(reference(stem), f"{stem}_fwd")).parameters
    return [
        name
        for (name, parameter), value in zip(parameters.items(), args)
        if is_real(value) or (value is None and "Tensor" in str(parameter.annotation))
    ]


def backward(code: ModuleType, stem: str, grads: Any, args: tuple[Any, ...], needs: tuple[bool, ...]) -> Any:
    """``<stem>_bwd`` of a backend, its arguments found by name; flags that the forward does not have are False."""
    values = dict(zip(forward_names(stem), args))
    outputs = getattr(reference(stem), "OUTPUTS", ())
    values |= dict(zip(outputs, getattr(code, f"{stem}_fwd")(*args))) if outputs else {}
    function = getattr(code, f"{stem}_bwd")
    names = list(inspect.signature(function).parameters)
    rest = [name for name in names if name != "needs" and not name.startswith("grad")]
    assert len(names) - 1 - len(rest) == len(grads), f"{stem}_bwd: one grad_* argument for each output of the forward"
    filled = [values.get(name, False) for name in rest]
    return as_tuple(function(*grads, *filled, needs))


def gamma(terms: int, dtype: torch.dtype) -> float:
    """The rounding bound of the type of the computation."""
    unit = torch.finfo(torch.float32 if dtype in HALVES.values() else dtype).eps / 2
    return terms * unit / (1 - terms * unit)


def longest_sum(tensors: Any) -> int:
    return 16 + max((t.numel() for t in tensors if is_real(t)), default=1)


def rounding(stem: str, args: tuple[Any, ...]) -> tuple[int, tuple[Tensor, ...]]:
    args = mapped(args, lambda t: t.detach().double())
    hook = getattr(reference(stem), "rounding", None)
    if hook is not None:
        return hook(*args)
    magnitudes = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*mapped(args, torch.abs)))
    return longest_sum([t.reshape(t.shape[0], -1)[:1] for t in args if is_real(t) and t.numel()]), magnitudes


def rounding_bwd(stem: str, grads: Any, args: tuple[Any, ...]) -> tuple[int, tuple[Tensor | None, ...]]:
    if not differentiable(stem):
        return 0, ()
    grads = mapped(grads, lambda t: t.detach().double())
    args = mapped(args, lambda t: t.detach().double())
    hook = getattr(reference(stem), "rounding_bwd", None)
    if hook is not None:
        return hook(grads, args)
    needs = tuple(True for _ in gradient_names(stem, args))
    result = backward(reference(stem), stem, mapped(grads, torch.abs), mapped(args, torch.abs), needs)
    return longest_sum(grads), result


def assert_within(
    actual: Any, expected: Any, terms: int, magnitudes: Any, dtypes: torch.dtype | tuple[torch.dtype, ...], what: str
) -> None:
    assert len(actual) == len(expected) <= len(magnitudes)
    dtypes = dtypes if isinstance(dtypes, tuple) else (dtypes,) * len(actual)
    for position, (a, e, m, dtype) in enumerate(zip(actual, expected, magnitudes, dtypes)):
        if e is None:
            assert a is None or not a.any(), f"{what} {position}: wanted none, or zeros"
            continue
        assert a is not None and a.shape == e.shape and a.dtype == dtype, f"{what} {position}: {a} for {e.shape}"
        error = (a.detach().double() - e).abs()
        allowed = gamma(terms, dtype) * m.abs()
        if dtype in HALVES.values():  # one more rounding, to what is stored, whose subnormal numbers are not small
            allowed = allowed + torch.finfo(dtype).eps * (e.abs() + allowed + torch.finfo(dtype).tiny)
        else:
            allowed = allowed + 4 * torch.finfo(dtype).tiny
        assert not a.isnan().any(), f"{what} {position}: NaN"
        assert (error <= allowed).all(), f"{what} {position}: off by {error.max():.3g}, beyond the rounding bound"


def cotangents(outputs: Any) -> tuple[Tensor, ...]:
    """Random gradients of the outputs, in their layouts."""
    generator = torch.Generator().manual_seed(11)
    return tuple(
        o if o is None else torch.empty_like(o).copy_(torch.randn(o.shape, generator=generator, dtype=torch.float64))
        for o in outputs
    )


def exact(t: Tensor) -> Tensor:
    """In float64 and row-major order: torch's convolutions read some other orders wrongly, or refuse them."""
    return t.detach().double().contiguous()


def expected_outputs(stem: str, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    return as_tuple(getattr(reference(stem), f"{stem}_fwd")(*mapped(args, exact)))


def output_dtypes(stem: str, args: tuple[Any, ...]) -> tuple[torch.dtype, ...]:
    """Sums over a whole map are float32 if maps are in half precision."""
    outputs = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args))
    return tuple(args[0].dtype if o is None else o.dtype for o in outputs)


def expected_gradients(stem: str, grads: Any, args: tuple[Any, ...], names: list[str]) -> tuple[Tensor | None, ...]:
    """Gradients of the named arguments by autograd through the float64 reference; None if the argument is None."""
    positions = forward_names(stem)
    args = mapped(args, exact)
    leaves = {name: args[positions.index(name)] for name in names}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items() if leaf is not None}
    pairs = [
        (o, g.double())
        for o, g in zip(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)), grads)
        if g is not None and o is not None and o.requires_grad
    ]
    outputs, weights = [o for o, _ in pairs], [g for _, g in pairs]
    zeros = [torch.zeros_like(leaf) for leaf in leaves.values()]
    found = torch.autograd.grad(outputs, list(leaves.values()), weights, materialize_grads=True) if outputs else zeros
    gradients = dict(zip(leaves, found))
    return tuple(gradients.get(name) for name in names)


def through_op(
    stem: str, backend: str, args: tuple[Any, ...], names: list[str], grads: Any
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """Outputs, and the gradients of the arguments ``names``, of the public function on one backend."""
    positions = [forward_names(stem).index(name) for name in names]
    args = tuple(a.detach().requires_grad_(i in positions) if is_real(a) else a for i, a in enumerate(args))
    with fb.use_backend(backend):
        outputs = as_tuple(operator(stem)(*args))
        if not names:
            return outputs, ()
        kept = [(o, g) for o, g in zip(outputs, grads) if g is not None]
        leaves = [args[p] for p in positions if args[p] is not None]
        found = torch.autograd.grad(
            [o for o, _ in kept], leaves, [g for _, g in kept], allow_unused=True, materialize_grads=True
        )
    by_position = dict(zip([p for p in positions if args[p] is not None], found))
    return outputs, tuple(by_position.get(p) for p in positions)


# ---- memory layouts -------------------------------------------------------------------------------------------------


def reversed_dims(t: Tensor) -> Tensor:
    """The same values with the strides of a transposed tensor."""
    order = list(range(t.dim()))[::-1]
    return t.permute(order).contiguous().permute(order)


def channels_last(t: Tensor) -> Tensor:
    """The same values with the channels of the last three or four dimensions innermost."""
    if t.dim() == 4:
        return t.contiguous(memory_format=torch.channels_last)
    return t.movedim(-3, -1).contiguous().movedim(-1, -3) if t.dim() > 4 else t


def channels_last_by_stream(t: Tensor) -> Tensor:
    """The streams [N, B, C, H, W] as one channels_last batch, as products return them."""
    if t.dim() != 5:
        return channels_last(t)
    return t.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, t.shape[:2])


def fenced(t: Tensor) -> Tensor:
    """The same values, contiguous, between two walls of NaN."""
    wall = 67
    buffer = t.new_full((t.numel() + 2 * wall,), float("nan"))
    inner = buffer[wall : wall + t.numel()].view(t.shape)
    return inner.copy_(t)


def fenced_rows(t: Tensor) -> Tensor:
    """The same values as a corner of a larger tensor of NaN, every second element of the last dimension."""
    if t.dim() == 0:
        return t
    sizes = [s + 2 for s in t.shape[:-1]] + [2 * t.shape[-1] + 2]
    window = (*(slice(1, s + 1) for s in t.shape[:-1]), slice(1, 1 + 2 * t.shape[-1], 2))
    return t.new_full(sizes, float("nan"))[window].copy_(t)


def odd_strides_of_ones(t: Tensor) -> Tensor:
    """The same values with the channels innermost, and strides of sides of 1 that no dense order would give them."""
    t = channels_last(t)
    return t.as_strided(t.shape, [7 if size == 1 else step for step, size in zip(t.stride(), t.shape)])


LAYOUTS = (reversed_dims, channels_last, channels_last_by_stream, fenced, fenced_rows, odd_strides_of_ones)


STORED = [stem for stem in STEMS if available(stem, "cpu", torch.bfloat16)]
