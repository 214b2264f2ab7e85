"""What every primitive promises, tested by discovery: a new stem in ``fastbound/reference`` is covered as it stands.

A reference module gives ``<stem>_fwd``, ``<stem>_bwd`` and ``samples``. It may add

* ``GRADIENTS``: the names of the forward's arguments to which ``needs`` and the result of ``<stem>_bwd`` refer
  (default: all floating-point tensors, in order); a primitive that nothing is differentiated through has none, and no
  ``<stem>_bwd``;
* ``OUTPUTS``: names of the forward's outputs, under which ``<stem>_bwd`` takes those that it reads again;
* ``rounding(*args) -> (n, magnitudes)`` and ``rounding_bwd(grads, args) -> (n, magnitudes)``: the number of rounded
  operations behind an element, and the sum of the magnitudes of the terms that make it, for every output (default: the
  formula on absolute values, and the longest sum that the shapes allow).

An element then agrees with the float64 reference within gamma(n) = n u / (1 - n u) times its magnitude.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import fastbound as fb
from fastbound import backends
from fastbound.errors import BackendError

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
    """The forward's arguments that have a gradient, also where this sample passes None for one."""
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
    """``<stem>_bwd`` of a backend, its arguments found by name; flags that the forward has not are False."""
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
    """The rounding bound of the type that is computed in."""
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


def expected_outputs(stem: str, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    return as_tuple(getattr(reference(stem), f"{stem}_fwd")(*mapped(args, lambda t: t.detach().double())))


def output_dtypes(stem: str, args: tuple[Any, ...]) -> tuple[torch.dtype, ...]:
    """Sums over a whole map are float32 beside maps of half precision."""
    outputs = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args))
    return tuple(args[0].dtype if o is None else o.dtype for o in outputs)


def expected_gradients(stem: str, grads: Any, args: tuple[Any, ...], names: list[str]) -> tuple[Tensor | None, ...]:
    """Gradients of the named arguments by autograd through the float64 reference; None where the argument is."""
    positions = forward_names(stem)
    args = mapped(args, lambda t: t.detach().double())
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


# ---- forward and backward --------------------------------------------------------------------------------------------


@every_sample
@every_place
def test_forward(stem: str, index: int, device: str, dtype: torch.dtype) -> None:
    torch.set_num_threads(2)
    args = sample(stem, index, dtype, device)
    expected = expected_outputs(stem, args)
    for backend in available(stem, device, dtype):
        code, _ = backends._load(backend, stem, device, dtype)
        before = mapped(args, Tensor.clone)
        outputs = as_tuple(getattr(code, f"{stem}_fwd")(*args))
        assert_within(outputs, expected, *rounding(stem, args), output_dtypes(stem, args), f"{backend}, output")
        for old, new in zip(before, args):
            assert not is_real(old) or torch.equal(old, new), f"{backend}: the forward changed an input"


@every_differentiable_sample
@every_place
def test_explicit_backward(stem: str, index: int, device: str, dtype: torch.dtype) -> None:
    torch.set_num_threads(2)
    args = sample(stem, index, dtype, device)
    names = gradient_names(stem, args)
    values = dict(zip(forward_names(stem), args))
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    expected = expected_gradients(stem, grads, args, names)
    terms, magnitudes = rounding_bwd(stem, grads, args)
    for backend in available(stem, device, dtype):
        code, _ = backends._load(backend, stem, device, dtype)
        before = mapped((*grads, *args), Tensor.clone)
        found = backward(code, stem, grads, args, tuple(values[name] is not None for name in names))
        assert_within(found, expected, terms, magnitudes, dtype, f"{backend}, gradient")
        for old, new in zip(before, (*grads, *args)):
            assert not is_real(old) or torch.equal(old, new), f"{backend}: the backward changed an input"


@every_differentiable_sample
@every_dtype
@every_device
def test_backward_through_the_op(stem: str, index: int, dtype: torch.dtype, device: str) -> None:
    args = sample(stem, index, dtype, device)
    names = [n for n in gradient_names(stem, args) if dict(zip(forward_names(stem), args))[n] is not None]
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    bounds = rounding_bwd(stem, grads, args)
    for backend in available(stem, device, dtype):
        outputs, found = through_op(stem, backend, args, names, grads)
        assert_within(outputs, expected_outputs(stem, args), *rounding(stem, args), dtype, f"{backend}, output")
        magnitudes = dict(zip(gradient_names(stem, args), bounds[1]))
        chosen = [magnitudes[name] for name in names]
        assert_within(
            found, expected_gradients(stem, grads, args, names), bounds[0], chosen, dtype, f"{backend}, gradient"
        )


@every_differentiable_sample
@every_device
def test_gradients_of_some_inputs_from_some_outputs(stem: str, index: int, device: str) -> None:
    """A single input asks, or a single output is used: nothing else may be needed, and the numbers stay the same."""
    dtype = torch.float32
    args = sample(stem, index, dtype, device)
    names = gradient_names(stem, args)
    present = [n for n in names if dict(zip(forward_names(stem), args))[n] is not None]
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    terms, magnitudes = rounding_bwd(stem, grads, args)
    magnitude = dict(zip(names, magnitudes))
    partial = [(grads, [name]) for name in present]
    if sum(g is not None for g in grads) > 1:
        partial += [(tuple(g if i == j else None for i, g in enumerate(grads)), present) for j in range(len(grads))]
    for backend in available(stem, device, dtype):
        for some_grads, some_names in partial:
            _, found = through_op(stem, backend, args, some_names, some_grads)
            expected = expected_gradients(stem, some_grads, args, some_names)
            chosen = [magnitude[name] for name in some_names]
            assert_within(found, expected, terms, chosen, dtype, f"{backend}, gradient of {some_names}")


@every_differentiable_sample
def test_gradcheck(stem: str, index: int) -> None:
    """Random samples keep clear of the kinks by far more than the step, once their exact zeros are gone."""
    args = mapped(sample(stem, index, torch.float64), lambda t: torch.where(t == 0, 0.37, t))
    names = gradient_names(stem, args)
    positions = [forward_names(stem).index(name) for name in names]
    elements = sum(args[p].numel() for p in positions if args[p] is not None)
    outputs = sum(o.numel() for o in expected_outputs(stem, args) if o is not None)
    if outputs == 0 or elements * outputs > 300_000:
        pytest.skip("empty, or too large for finite differences")
    args = tuple(a.requires_grad_(i in positions) if is_real(a) else a for i, a in enumerate(args))
    for backend in available(stem, "cpu", torch.float64):

        def function(*tensors: Any) -> tuple[Tensor, ...]:
            return tuple(o for o in as_tuple(operator(stem)(*tensors)) if o is not None)

        with fb.use_backend(backend):
            assert torch.autograd.gradcheck(function, args, fast_mode=elements > 30)


@every_stem
def test_what_has_no_backward_has_no_gradient(stem: str) -> None:
    args = mapped(sample(stem, 0, torch.float32), Tensor.requires_grad_)
    assert any(o.requires_grad for o in as_tuple(operator(stem)(*args))) == differentiable(stem)


# ---- memory ----------------------------------------------------------------------------------------------------------


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
    """The streams [N, B, C, H, W] as one channels_last batch, which is what the products hand on."""
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


LAYOUTS = (reversed_dims, channels_last, channels_last_by_stream, fenced, fenced_rows)


STORED = [stem for stem in STEMS if available(stem, "cpu", torch.bfloat16)]


def test_which_primitives_read_maps_in_bfloat16_on_cpu() -> None:
    assert STORED == ["interval_norm_relu", "interval_norm_relu_moments", "singleprop_norm_relu"]


@pytest.mark.parametrize("stem, index", [p for p in SAMPLES if p.values[0] in STORED])
def test_maps_in_bfloat16_on_cpu(stem: str, index: int) -> None:
    test_forward(stem, index, "cpu", torch.bfloat16)
    test_explicit_backward(stem, index, "cpu", torch.bfloat16)
    for layout in LAYOUTS:
        test_memory_layout_changes_nothing(stem, index, layout, "cpu", torch.bfloat16)


@every_sample
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "device, dtype",
    [
        pytest.param("cpu", torch.float32, id="cpu-float32"),
        pytest.param("cuda", torch.float32, id="cuda-float32", marks=pytest.mark.gpu),
        pytest.param("cuda", torch.bfloat16, id="cuda-bfloat16", marks=pytest.mark.gpu),
    ],
)
def test_memory_layout_changes_nothing(
    stem: str, index: int, layout: Callable[[Tensor], Tensor], device: str, dtype: torch.dtype
) -> None:
    args = sample(stem, index, dtype, device)
    moved = mapped(args, layout)
    assert all(torch.equal(a, m) for a, m in zip(args, moved) if is_real(a))
    names = gradient_names(stem, args)
    present = [n for n in names if dict(zip(forward_names(stem), args))[n] is not None]
    grads = cotangents(as_tuple(getattr(reference(stem), f"{stem}_fwd")(*args)))
    terms, magnitudes = rounding_bwd(stem, grads, args)
    chosen = [m for n, m in zip(names, magnitudes) if n in present]
    expected, dtypes = expected_gradients(stem, grads, args, present), output_dtypes(stem, args)
    for backend in available(stem, device, dtype):
        for some in (moved, (moved[0], *args[1:]), (args[0], *moved[1:])):
            outputs, found = through_op(stem, backend, some, present, mapped(grads, layout))
            assert_within(outputs, expected_outputs(stem, args), *rounding(stem, args), dtypes, f"{backend}, output")
            assert_within(found, expected, terms, chosen, dtype, f"{backend}, gradient")


@every_sample
@every_device
def test_expanded_inputs_and_gradients(stem: str, index: int, device: str) -> None:
    """Strides of 0: one eps for a whole box, and the gradient of a sum."""
    dtype = torch.float32
    args = sample(stem, index, dtype, device)
    names = gradient_names(stem, args)
    first = forward_names(stem).index("radius") if "radius" in forward_names(stem) else 0
    if not args[first].numel():
        pytest.skip("empty")
    flat = args[first].flatten()[0]
    dense = tuple(flat.expand_as(a).clone() if i == first else a for i, a in enumerate(args))
    wide = tuple(flat.expand_as(a) if i == first else a for i, a in enumerate(args))
    present = [n for n in names if dict(zip(forward_names(stem), args))[n] is not None]
    outputs = as_tuple(getattr(reference(stem), f"{stem}_fwd")(*dense))
    grads = tuple(o if o is None else torch.ones_like(o) for o in outputs)
    terms, magnitudes = rounding_bwd(stem, grads, dense)
    chosen = [m for n, m in zip(names, magnitudes) if n in present]
    expected = expected_gradients(stem, grads, dense, present)
    ones = mapped(grads, lambda g: torch.ones((), dtype=dtype, device=device).expand_as(g))
    for backend in available(stem, device, dtype):
        outputs, found = through_op(stem, backend, wide, present, ones)
        assert_within(outputs, expected_outputs(stem, dense), *rounding(stem, dense), dtype, f"{backend}, output")
        assert_within(found, expected, terms, chosen, dtype, f"{backend}, gradient")


# ---- the choice of code ----------------------------------------------------------------------------------------------


def test_primitives_are_found() -> None:
    assert {"interval_linear", "interval_conv2d", "interval_norm_relu", "interval_margin"} <= set(STEMS)


@every_stem
def test_one_stem_everywhere(stem: str) -> None:
    """The op exists, and every backend has the same functions with the same arguments in the same order."""
    assert callable(operator(stem))
    wanted = reference(stem)
    for name, package in backends.PACKAGES.items():
        module = backends._load(name, stem, "cpu", torch.float32)[0]
        if module is None or (stem in backends.PLAIN.get((name, "cpu"), ()) and module is wanted):
            continue
        assert module.__name__ == f"{package}.{stem}"
        for function in [f"{stem}_fwd"] + [f"{stem}_bwd"] * differentiable(stem):
            theirs = list(inspect.signature(getattr(module, function)).parameters)
            assert theirs == list(inspect.signature(getattr(wanted, function)).parameters), (
                f"{module.__name__}.{function}"
            )
        assert name == "reference" or callable(module.unsupported), f"{module.__name__} gives no reasons"
    forward = forward_names(stem)
    taken = list(inspect.signature(operator(stem)).parameters)
    assert len(taken) >= len(forward), f"ops.{stem} takes the arguments of {stem}_fwd in their order"


def test_no_backend_has_a_stem_of_its_own() -> None:
    """A module with ``<its name>_fwd`` that is no primitive would never be tested."""
    for package in ("fastbound.ops", "fastbound.native", "fastbound.kernels"):
        try:
            path = importlib.import_module(package).__path__
        except ModuleNotFoundError:
            continue
        for module in pkgutil.iter_modules(path):
            try:
                loaded = importlib.import_module(f"{package}.{module.name}")
            except ModuleNotFoundError:  # triton is an extra
                continue
            names = [f"{module.name}_fwd"] + [module.name] * (package == "fastbound.ops")
            if any(callable(getattr(loaded, name, None)) for name in names):
                assert module.name in STEMS, f"{package}.{module.name} has no fastbound/reference/{module.name}.py"


@every_stem
@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
def test_an_explicit_request_is_served_or_refused_with_reasons(stem: str, backend: str) -> None:
    args = sample(stem, 0, torch.float32)
    module, reason = backends._load(backend, stem, "cpu", torch.float32)
    with fb.use_backend(backend):
        if module is not None:
            assert backends.find(stem, args[0]) is module
            operator(stem)(*args)
            return
        with pytest.raises(BackendError) as caught:
            operator(stem)(*args)
    for part in (backend, stem, "cpu", "float32", reason):
        assert part in str(caught.value)


@pytest.mark.parametrize("stem", [s for s in STEMS if torch.float16 not in getattr(reference(s), "DTYPES", ())])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_where_it_is_not_defined(stem: str, dtype: torch.dtype) -> None:
    args = mapped(sample(stem, 0, torch.float32), lambda t: t.to(dtype))
    stored = stem in STORED and dtype == torch.bfloat16
    for request in ("reference",) if stored else ("reference", "native"):
        with fb.use_backend(request), pytest.raises(BackendError, match=str(dtype).removeprefix("torch.")):
            operator(stem)(*args)
    if stored:
        return
    with pytest.raises(BackendError, match="no backend serves"):
        operator(stem)(*args)


def test_requests_nest_and_end_with_their_context() -> None:
    x = torch.zeros(1)
    automatic = backends.find("interval_linear", x)
    with fb.use_backend("reference"):
        assert backends.find("interval_linear", x).__name__.startswith("fastbound.reference")
        with fb.use_backend("native"):
            assert backends.find("interval_linear", x).__name__.startswith("fastbound.native")
        assert backends.find("interval_linear", x).__name__.startswith("fastbound.reference")
        with pytest.raises(RuntimeError, match="planned"), fb.use_backend("native"):
            raise RuntimeError("planned")
        assert backends.find("interval_linear", x).__name__.startswith("fastbound.reference")
    assert backends.find("interval_linear", x) is automatic


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"backend: wanted one of .*native.*reference.*triton, got 'cuda'"):
        fb.use_backend("cuda").__enter__()


def test_show_config_names_every_primitive(capsys: pytest.CaptureFixture[str]) -> None:
    text = fb.show_config()
    assert capsys.readouterr().out.strip() == text.strip()
    for stem in STEMS:
        assert f"{stem} [cpu]: " in text
    assert "not triton: " in text or "triton" in text
