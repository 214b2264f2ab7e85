"""Interval bounds of unmodified models: against a second propagation, by sampling, and by what theory says of them."""

from __future__ import annotations

import copy
import itertools

import oracle
import pytest
import torch
import zoo
from torch import Tensor, nn

import fastbound as fb

EPS = 0.05
every_model = pytest.mark.parametrize("name", zoo.MODELS)
every_mode = pytest.mark.parametrize(
    "name, training",
    [pytest.param(name, False, id=f"{name}, eval") for name in zoo.MODELS]
    + [pytest.param(name, True, id=f"{name}, train") for name in zoo.NORMALISING],
)


def assert_same_bounds(out: fb.Interval, wanted: oracle.Range) -> None:
    """Within 2e-5 of the width of each output, but no closer than float32 can express."""
    width = (wanted.upper - wanted.lower).detach()
    for ours, theirs in ((out.lower, wanted.lower), (out.upper, wanted.upper)):
        assert ((ours.double() - theirs).abs() <= 2e-5 * width + torch.finfo(ours.dtype).eps * theirs.abs()).all()


@every_mode
def test_agrees_with_a_second_propagation(name: str, training: bool) -> None:
    model, x = zoo.build(name)
    model.train(training)
    wanted = oracle.propagate(model, (x - EPS).clamp(0, 1), (x + EPS).clamp(0, 1), x)
    plain = copy.deepcopy(model)(x)
    out = model(fb.linf_box(x, EPS, lower=0, upper=1))
    assert out.shape == wanted.shape and out.lower.dtype == torch.float32
    assert_same_bounds(out, wanted)
    assert torch.allclose(out.nominal, plain, rtol=1e-5, atol=1e-6)
    assert torch.allclose(out.nominal.double(), wanted.clean, rtol=1e-4, atol=1e-5)
    assert torch.equal((out.lower + out.upper) / 2, out.center) or torch.allclose(
        (out.lower + out.upper) / 2, out.center, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", [name for name in zoo.MODELS if "no running" not in name])
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_without_nominal_stream(name: str, backend: str) -> None:
    model, x = zoo.build(name)
    with fb.use_backend(backend), torch.no_grad():
        out = model(fb.linf_box(x, EPS, nominal=False))
        with_nominal = model(fb.linf_box(x, EPS))
    assert out.nominal is None
    assert torch.allclose(out.lower, with_nominal.lower, rtol=1e-5, atol=1e-6)
    assert torch.allclose(out.upper, with_nominal.upper, rtol=1e-5, atol=1e-6)
    assert_same_bounds(out, oracle.propagate(model, x - EPS, x + EPS, x))


def frozen(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy in evaluation mode whose norms hold the statistics of the batch ``x``."""
    model = copy.deepcopy(model).train()

    def freeze(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        dims = [d for d in range(args[0].dim()) if d != 1]
        module.fixed = args[0].mean(dims), args[0].var(dims, correction=0)

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [m.register_forward_hook(freeze) for m in norms]
    model(x)
    for module, hook in zip(norms, hooks):
        hook.remove()
        module.running_mean, module.running_var = (t.detach() for t in module.fixed)
        module.track_running_stats = True
    return model.eval()


def points_of(model: nn.Module, lower: Tensor, upper: Tensor, count: int) -> list[Tensor]:
    """Random points of the box, corners, and points that gradient signs drive an output up and down."""
    width = upper - lower
    points = [lower + width * torch.rand_like(lower) for _ in range(count)]
    points += [torch.where(torch.rand_like(lower) < 0.5, lower, upper) for _ in range(count // 4)]
    for sign in (1, -1):
        for output in (0, -1):
            x = ((lower + upper) / 2).clone()
            for _ in range(8):
                x.requires_grad_()
                (grad,) = torch.autograd.grad(model(x).flatten(1)[:, output].sum(), x)
                x = torch.minimum(torch.maximum(x.detach() + sign * width / 4 * grad.sign(), lower), upper)
            points.append(x)
    return points


@every_mode
def test_points_of_the_box_stay_inside(name: str, training: bool) -> None:
    """In training mode, both use the statistics of the clean batch."""
    model, x = zoo.build(name, batch=3, dtype=torch.float64)
    model.train(training)
    plain = frozen(model, x) if training or "no running" in name else model
    lower, upper = (x - EPS).clamp(0, 1), (x + EPS).clamp(0, 1)
    out = model(fb.linf_box(x, EPS, 0.0, 1.0))
    points = points_of(plain, lower, upper, 320)
    slack = 1e-12 * (1 + out.upper.abs().max() + out.lower.abs().max())
    with torch.no_grad():  # 3 samples x 400 points, all at once
        values = plain(torch.cat(points)).unflatten(0, (len(points), x.shape[0]))
    assert (values >= out.lower - slack).all() and (values <= out.upper + slack).all()
    assert (values.amax(0) - values.amin(0)).max() > 0


@every_model
def test_wider_boxes_have_wider_bounds(name: str) -> None:
    model, x = zoo.build(name, dtype=torch.float64)
    with torch.no_grad():
        bounds = [model(fb.linf_box(x, eps)) for eps in (0.0, 0.01, 0.03, 0.1)]
    for narrow, wide in itertools.pairwise(bounds):
        assert (wide.lower <= narrow.lower + 1e-12).all() and (wide.upper >= narrow.upper - 1e-12).all()
        assert (wide.radius.sum() > narrow.radius.sum()).all()


@every_mode
def test_a_point_gives_the_plain_forward(name: str, training: bool) -> None:
    model, x = zoo.build(name)
    plain = copy.deepcopy(model).train(training)(x)
    out = model.train(training)(fb.linf_box(x, 0.0))
    for value in (out.lower, out.upper, out.center, out.nominal):
        assert torch.allclose(value, plain, rtol=1e-4, atol=2e-5)
    assert (out.radius >= 0).all() and out.radius.max() <= 1e-4


@every_mode
def test_gradients_of_the_bounds(name: str, training: bool) -> None:
    """By autograd through the second propagation, in float64: weights, norms and the box itself.

    At a weight of 0, where W+ and W- have a kink, the two choose differently, so there is none here.
    """
    model, x = zoo.build(name, dtype=torch.float64)
    for parameter in model.parameters():
        parameter.data[parameter == 0] = 0.01
    model.train(training)
    twin = copy.deepcopy(model)
    lower, upper = (x - EPS).requires_grad_(), (x + EPS).requires_grad_()
    clean = x.clone().requires_grad_()
    parameters = [p for p in model.parameters()]
    out = model(fb.box(lower, upper, nominal=clean))
    weights = [torch.randn_like(out.lower) for _ in range(3)]
    loss = (out.lower * weights[0] + out.upper * weights[1] + out.nominal * weights[2]).sum()
    found = torch.autograd.grad(loss, [*parameters, lower, upper, clean])

    wanted = oracle.propagate(twin, lower, upper, clean, copied=False)
    loss = (wanted.lower * weights[0] + wanted.upper * weights[1] + wanted.clean * weights[2]).sum()
    expected = torch.autograd.grad(loss, [*twin.parameters(), lower, upper, clean])
    for ours, theirs in zip(found, expected):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-9 * (1 + theirs.abs().max()))


# ---- attained where theory says so -----------------------------------------------------------------------------------


def test_one_affine_layer_is_attained_at_the_corner_of_its_signs() -> None:
    layer = nn.Linear(6, 4).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    out = layer(fb.linf_box(x, 0.3))
    for j in range(4):
        corner = x + 0.3 * layer.weight[j].sign()
        assert torch.allclose(layer(corner)[:, j], out.upper[:, j], rtol=1e-12, atol=1e-12)
        assert torch.allclose(layer(2 * x - corner)[:, j], out.lower[:, j], rtol=1e-12, atol=1e-12)


def test_one_convolution_is_attained_at_the_corner_of_its_signs() -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, stride=2).double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    out = layer(fb.linf_box(x, 0.2))
    for j, row, column in ((0, 0, 0), (1, 1, 1), (2, 2, 0)):
        point = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(layer(point)[:, j, row, column].sum(), point)
        assert torch.allclose(layer(x + 0.2 * grad.sign())[:, j, row, column], out.upper[:, j, row, column], rtol=1e-12)
        assert torch.allclose(layer(x - 0.2 * grad.sign())[:, j, row, column], out.lower[:, j, row, column], rtol=1e-12)


def test_a_monotone_network_is_attained_at_both_ends() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(6), nn.Tanh()
    )
    model(torch.rand(2, 2, 8, 8))
    for parameter in model.parameters():
        parameter.data.abs_()
    model = model.double().eval()
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    out = model(fb.linf_box(x, 0.2))
    assert torch.allclose(out.upper, model(x + 0.2), rtol=1e-12, atol=1e-14)
    assert torch.allclose(out.lower, model(x - 0.2), rtol=1e-12, atol=1e-14)


# ---- specifications --------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("kind", ["margins", "any"])
def test_a_specification_is_merged_into_the_last_layer(name: str, kind: str) -> None:
    """As a layer W' = C W of the second propagation if the model ends in a linear layer, else on the bounds."""
    model, x = zoo.build(name)
    classes = model(x).flatten(1).shape[1]
    tail = model[-1] if isinstance(model, nn.Sequential) else getattr(model, "fc", getattr(model, "head", None))
    if model(x).dim() != 2:
        with pytest.raises(ValueError, match="flatten"):
            fb.bound(model, fb.linf_box(x, EPS), spec=torch.zeros(x.shape[0], 1, classes))
        return
    labels = torch.arange(x.shape[0]) % classes
    spec = fb.margin_spec(labels, classes) if kind == "margins" else torch.randn(x.shape[0], 2, classes)
    bounds = fb.bound(model, fb.linf_box(x, EPS), method="ibp", spec=spec)
    plain = torch.einsum("bsk,bk->bs", spec, model(x))
    assert torch.allclose(bounds.nominal, plain, rtol=1e-4, atol=1e-5)
    for i in range(2):
        merged = copy.deepcopy(model).double()
        rows = spec[i].double()
        last = nn.Linear(tail.in_features, spec.shape[1], dtype=torch.float64)
        last.weight.data = rows @ tail.weight.double()
        last.bias.data = rows @ tail.bias.double()
        if isinstance(merged, nn.Sequential):
            merged[-1] = last
        else:
            setattr(merged, "fc" if hasattr(merged, "fc") else "head", last)
        x64 = x.double()
        wanted = oracle.propagate(merged, x64 - EPS, x64 + EPS, x64)
        width = (wanted.upper - wanted.lower)[i]
        assert ((bounds.lower[i].double() - wanted.lower[i]).abs() <= 2e-5 * width).all()
        assert ((bounds.upper[i].double() - wanted.upper[i]).abs() <= 2e-5 * width).all()


def test_robust_cross_entropy_is_that_of_the_worst_logits() -> None:
    model, x = zoo.build("cnn", dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 4])
    bounds = fb.bound(model, fb.linf_box(x, EPS), spec=fb.margin_spec(labels, 5))
    worst = torch.zeros(4, 5, dtype=torch.float64)
    for i, y in enumerate(labels):
        worst[i, [j for j in range(5) if j != y]] = -bounds.lower[i]
    assert torch.allclose(fb.losses.robust_cross_entropy(bounds), nn.functional.cross_entropy(worst, labels))
