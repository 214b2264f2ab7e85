"""SingleProp against a second propagation in float64, its formulas and losses by hand, and what it refuses to be."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
import torch.nn.functional as F
import zoo
from torch import Tensor, fx, nn

import fastbound as fb
from fastbound.ops import interval_norm_relu_statistics, singleprop_norm_relu

EPS = 0.05
VARIANTS = ["zero", "fast-lin"]
FOREIGN = {"mlp", "activations", "batch norm 1d of maps, first"}  # networks with other nonlinear functions than ReLU
NETWORKS = [name for name in zoo.MODELS if name not in FOREIGN]
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_mode = pytest.mark.parametrize(
    "name, training",
    [pytest.param(name, False, id=f"{name}, eval") for name in NETWORKS]
    + [pytest.param(name, True, id=f"{name}, train") for name in zoo.NORMALISING if name not in FOREIGN],
)


class Recentred(oracle._Propagation):
    """Interval propagation that centres the interval on the clean value after every function: variant zero."""

    def run_node(self, n: fx.Node) -> Any:
        return _around_clean(super().run_node(n))


class RecentredFastLin(Recentred):
    """The same with the published formula for the radius after a ReLU."""

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(self.fetch_attr(target), nn.ReLU):
            return _fast_lin(*args)
        return super().call_module(target, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in (F.relu, torch.relu):
            return _fast_lin(args[0])
        return super().call_function(target, args, kwargs)


def _around_clean(result: Any) -> Any:
    if isinstance(result, list):
        return [_around_clean(part) for part in result]
    if not isinstance(result, oracle.Range):
        return result
    radius = (result.upper - result.lower) / 2
    return oracle.Range(result.clean - radius, result.clean + radius, result.clean)


def _fast_lin(x: oracle.Range) -> oracle.Range:
    z, v = x.clean, (x.upper - x.lower) / 2
    unstable = 3 * v / 4 + z / 2 - z**2 / (4 * v + 1e-4)
    e = torch.where(x.lower >= 0, v, torch.where(x.upper <= 0, torch.zeros_like(v), unstable))
    return oracle.Range(z.relu() - e, z.relu() + e, z.relu())


def wanted(model: nn.Module, x: Tensor, variant: str) -> oracle.Range:
    graph = fx.GraphModule(model, fx.Tracer().trace(model))
    propagation = {"zero": Recentred, "fast-lin": RecentredFastLin}[variant](graph)
    return propagation.run(oracle.Range(x - EPS, x + EPS, x))


# ---- the recurrence --------------------------------------------------------------------------------------------------


@every_mode
@every_variant
@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=["double", "single"])
def test_agrees_with_a_second_propagation(
    name: str, training: bool, variant: str, converted: bool, dtype: torch.dtype, tolerance: float
) -> None:
    model, x = zoo.build(name, dtype=dtype)
    model.train(training)
    expected = wanted(copy.deepcopy(model).double(), x.double(), variant)
    out = (fb.convert(model) if converted else model)(fb.singleprop(x, EPS, variant))
    assert isinstance(out, fb.SingleProp) and out.variant == variant and out.radius.dtype == dtype
    radius = (expected.upper - expected.lower) / 2
    largest = max(radius.abs().max(), expected.clean.abs().max())
    assert ((out.radius.double() - radius).abs() <= tolerance * (1 + largest)).all()
    assert ((out.nominal.double() - expected.clean).abs() <= tolerance * (1 + largest)).all()


@every_mode
@every_variant
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_gradients(name: str, training: bool, variant: str, backend: str) -> None:
    """By autograd through the second propagation; a weight of 0, where it has a kink, is none here."""
    model, x = zoo.build(name, dtype=torch.float64)
    for parameter in model.parameters():
        parameter.data[parameter == 0] = 0.01
    model.train(training)
    twin, weights = copy.deepcopy(model), []

    def gradients(network: nn.Module, run: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Any:
        clean = x.clone().requires_grad_()
        nominal, radius = run(clean)
        weights.extend([torch.randn_like(nominal), torch.randn_like(radius)] if not weights else [])
        loss = (nominal * weights[0] + radius * weights[1]).sum()
        return torch.autograd.grad(loss, [*network.parameters(), clean])

    def ours(clean: Tensor) -> tuple[Tensor, Tensor]:
        out = model(fb.singleprop(clean, EPS, variant))
        return out.nominal, out.radius

    def theirs(clean: Tensor) -> tuple[Tensor, Tensor]:
        result = wanted(twin, clean, variant)
        return result.clean, (result.upper - result.lower) / 2

    with fb.use_backend(backend):
        found = gradients(model, ours)
    for one, other in zip(found, gradients(twin, theirs)):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-9 * (1 + other.abs().max()))


@every_variant
def test_gradcheck_with_batch_statistics(variant: str) -> None:
    """The statistics are those of the clean stream, recomputed at every shifted point."""
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64)
    v = torch.rand(4, 3, 2, 2, generator=generator, dtype=torch.float64) + 0.05
    weight, bias = torch.tensor([-1.5, 0.7, 2.0]).double(), torch.tensor([0.1, -0.2, 0.3]).double()

    def run(z: Tensor, v: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = interval_norm_relu_statistics(z)
        return singleprop_norm_relu(z, v, mean, var, weight, bias, 1e-5, variant, batch_statistics=True)

    inputs = [t.requires_grad_() for t in (z, v, weight, bias)]
    for backend in ("native", "reference"):
        with fb.use_backend(backend):
            assert torch.autograd.gradcheck(run, inputs)


def test_a_norm_that_no_relu_follows_is_read_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    x = torch.rand(4, 2, 5, 5)
    out = model(fb.singleprop(x, EPS))
    weight, norm = model[0].weight, model[1]
    var = model[0](x).var((0, 2, 3), correction=0)
    scale = (norm.weight / torch.sqrt(var + norm.eps)).abs().view(-1, 1, 1)
    expected = F.conv2d(torch.full_like(x, EPS), weight.abs()) * scale
    assert torch.allclose(out.radius, expected, rtol=1e-5)
    out.radius.sum().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_running_statistics_move_as_in_a_plain_forward() -> None:
    model, x = zoo.build("batch norm")
    model.train()
    twin = copy.deepcopy(model)
    model(fb.singleprop(x, EPS))
    twin(x)
    for ours, theirs in zip(model.buffers(), twin.buffers()):
        assert torch.allclose(ours, theirs, rtol=1e-5)


def test_eps_per_channel_and_normalised_inputs() -> None:
    x, eps = torch.rand(3, 2, 4, 4), torch.tensor([0.1, 0.2]).view(2, 1, 1)
    out = fb.nn.Normalize([0.3, 0.5], [0.5, 0.25])(fb.singleprop(x, eps))
    assert torch.allclose(out.radius[:, 0], torch.tensor(0.2)) and torch.allclose(out.radius[:, 1], torch.tensor(0.8))


# ---- not a bound -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant, claimed", [("zero", 0.5), ("fast-lin", 0.75)])
def test_the_counterexample(variant: str, claimed: float) -> None:
    """z = 0, v = 1: relu reaches 1."""
    out = torch.relu(fb.singleprop(torch.zeros(1, 1), 1.0, variant))
    assert out.nominal.item() == 0 and out.radius.item() == claimed
    assert out.nominal + out.radius < torch.relu(torch.ones(1, 1))


def test_nothing_takes_it_for_a_bound() -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    x, labels = torch.rand(2, 3), torch.tensor([0, 1])
    surrogate = fb.singleprop(x, EPS)
    for attempt in (
        lambda: fb.bound(model(surrogate)),
        lambda: fb.bound(model, surrogate, method="crown"),
        lambda: fb.losses.robust_cross_entropy(model(surrogate)),
        lambda: fb.losses.fused_cross_entropy(model(surrogate), labels, 0.0),
    ):
        with pytest.raises(TypeError, match="SingleProp"):
            attempt()
    with pytest.raises(TypeError, match=r"certify with IBP: fastbound\.bound\(.*method='ibp'"):
        fb.bound(model(surrogate))
    for attempt in (
        lambda: fb.bound(model, fb.linf_box(x, EPS), method="singleprop"),
        lambda: fb.certify(model, [(x, labels)], EPS, method="singleprop"),
    ):
        with pytest.raises(ValueError, match=r"method: SingleProp is a training surrogate .* certify with IBP"):
            attempt()
    for end in ("lower", "upper", "center"):
        assert not hasattr(surrogate, end)
        with pytest.raises(fb.MissingRuleError, match=f"no '{end}': .* certify with IBP"):
            getattr(surrogate, end)


# ---- the value -------------------------------------------------------------------------------------------------------


def test_other_nonlinear_functions_are_refused_by_name() -> None:
    with pytest.raises(fb.MissingRuleError, match=r"torch\.sigmoid has no rule for SingleProp in 1.*fastbound\.rule"):
        nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())(fb.singleprop(torch.rand(1, 2), EPS))
    with pytest.raises(TypeError, match=r"a SingleProp .*values of one domain|and a SingleProp"):
        _ = fb.singleprop(torch.rand(1, 2), EPS) + fb.linf_box(torch.rand(1, 2), EPS)
    with pytest.raises(NotImplementedError, match="max_pool2d_with_indices has no rule for SingleProp"):
        F.max_pool2d(fb.singleprop(torch.rand(1, 1, 2, 2), EPS), 2, return_indices=True)


@every_variant
def test_copies_keep_the_variant(variant: str) -> None:
    value = fb.singleprop(torch.rand(2, 3), EPS, variant)
    for twin in (copy.deepcopy(value), pickle.loads(pickle.dumps(value)), value.clone(), -value):
        assert twin.variant == variant and torch.equal(twin.radius, value.radius)
    assert repr(value) == f"SingleProp(shape=(2, 3), dtype=torch.float32, device=cpu, {variant})"


@pytest.mark.parametrize("joined", [torch.add, torch.sub, lambda x, y: x.add_(y), lambda x, y: torch.cat((x, y), 1)])
def test_values_of_two_variants_do_not_meet(joined: Callable[..., Any]) -> None:
    """In either order: the ReLUs that follow would use the rule of the first one."""
    x = torch.rand(2, 3)
    values = fb.singleprop(x, 0.1), fb.singleprop(x, 0.1, "fast-lin")
    for pair in (values, values[::-1]):
        with pytest.raises(ValueError, match=r"variant: values of fast-lin and zero meet.*with one variant"):
            joined(*pair)


def test_in_place_relu_is_seen_by_aliases() -> None:
    value = fb.singleprop(torch.randn(4, 3), EPS)
    alias, expected = value, torch.relu(value)
    F.relu_(value)
    assert torch.equal(alias.radius, expected.radius) and torch.equal(alias.nominal, expected.nominal)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((torch.zeros(2, 3), 0.1, "crown"), ValueError, "variant: wanted one of zero, fast-lin, got 'crown'"),
        ((torch.zeros(2, 3), -0.1), ValueError, "eps: wanted finite numbers >= 0"),
        ((torch.zeros(2, 3), math.nan), ValueError, "eps: wanted finite numbers >= 0"),
        ((torch.zeros(2, 3), torch.zeros(4)), ValueError, "eps: shape .* does not broadcast"),
        ((torch.zeros(2, 3), "0.1"), TypeError, "eps: wanted a number or a tensor, got str"),
        ((torch.full((2, 3), math.inf), 0.1), ValueError, "x: contains NaN or infinity"),
        ((torch.zeros(2, 3, dtype=torch.int64), 0.1), TypeError, "x: wanted a floating-point tensor"),
        ((torch.zeros(0, 3), 0.1), ValueError, "x: wanted a non-empty batch"),
    ],
)
def test_bad_input(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fb.singleprop(*arguments)


def test_wrappers_find_the_tensors_of_an_output() -> None:
    """DistributedDataParallel with find_unused_parameters=True looks for tensors in dataclass fields."""
    from torch.nn.parallel.distributed import _find_tensors

    model, x = zoo.build("batch norm")
    out = model.train()(fb.singleprop(x, EPS))
    found = list(_find_tensors(out))
    assert len(found) == 2 and all(t.requires_grad for t in found)


def test_nothing_is_kept_beyond_the_two_streams() -> None:
    """No walk goes backwards, so no value holds the maps that it came from."""
    out = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())(fb.singleprop(torch.rand(2, 3), EPS))
    (linear,) = out.node.inputs
    assert not linear.inputs or not linear.inputs[0].inputs


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_loss_is_that_of_the_worst_logits() -> None:
    z, v = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    labels = torch.tensor([0, 3, 1, 2, 3])
    loss = fb.losses.singleprop_cross_entropy(fb.singleprop(z, v), labels)
    total = 0.0
    for values, widths, y in zip(z.tolist(), v.tolist(), labels.tolist()):
        worst = [a - b if k == y else a + b for k, (a, b) in enumerate(zip(values, widths))]
        total += math.log(sum(math.exp(w) for w in worst)) - worst[y]
    assert loss.item() == pytest.approx(total / 5, rel=1e-12)


def test_loss_at_radius_0_is_the_clean_one() -> None:
    model, x = nn.Linear(3, 4), torch.rand(5, 3)
    labels = torch.arange(5) % 4
    loss = fb.losses.singleprop_cross_entropy(model(fb.singleprop(x, 0.0)), labels)
    assert torch.allclose(loss, F.cross_entropy(model(x), labels))


@pytest.mark.parametrize(
    "out, labels, error, message",
    [
        (torch.zeros(2, 3), torch.tensor([0, 1]), TypeError, "out: wanted the SingleProp .* got Tensor"),
        (fb.singleprop(torch.zeros(2, 3, 1), 0.1), torch.tensor([0, 1]), ValueError, r"out: wanted logits \[B, K\]"),
        (
            fb.singleprop(torch.zeros(2, 3), 0.1),
            torch.tensor([0, 3]),
            ValueError,
            r"labels: wanted classes in \[0, 3\)",
        ),
        (fb.singleprop(torch.zeros(2, 3), 0.1), torch.tensor([0]), ValueError, "labels: wanted 2 of them"),
        (fb.singleprop(torch.zeros(2, 3), 0.1), torch.zeros(2), TypeError, "labels: wanted an integer tensor"),
    ],
)
def test_bad_losses(out: Any, labels: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fb.losses.singleprop_cross_entropy(out, labels)
