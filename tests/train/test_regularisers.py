"""The regularisers of short warm-up, against a computation in float64 from the lower and upper bounds of each ReLU."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastbound as fb
from fastbound import models
from fastbound.ops import interval_norm_relu_moments, interval_norm_relu_statistics
from fastbound.train.initialisation import initialise
from fastbound.train.regularisers import warmup_regularisers, with_moments


def directly(inputs, bounds, tolerance=0.5):
    """The formulas of the paper on (lower, upper) of the network's input and of the input of each ReLU."""
    tightness = balance = torch.zeros((), dtype=torch.float64)
    first = (inputs[1] - inputs[0]).mean() / 2
    for lower, upper in bounds:
        tightness = tightness + F.relu(tolerance - first / ((upper - lower) / 2).mean().clamp(min=1e-12))
        center = (lower + upper) / 2
        above, below = lower > 0, upper < 0
        if not (above.any() and below.any()):
            continue
        squares = (center - center.mean()) ** 2
        alpha = (center * above).mean() / -(center * below).mean()
        beta = (squares * above).sum() / (squares * below).sum()
        for ratio in (alpha, beta):
            balance = balance + F.relu(tolerance - torch.minimum(ratio, 1 / ratio))
    return tightness / (len(bounds) * tolerance), balance / (len(bounds) * tolerance)


def recorded(model, x, eps):
    """Bounds of the input of the first layer and of every ReLU, by plain IBP in hooks, and the output."""
    inputs, bounds, hooks = [], [], []
    for layer in model.modules():
        if isinstance(layer, nn.ReLU):
            keep = lambda _, args: bounds.append((args[0].lower, args[0].upper))  # noqa: E731
        elif isinstance(layer, nn.Linear | nn.Conv2d) and not hooks:
            keep = lambda _, args: inputs.append((args[0].lower, args[0].upper))  # noqa: E731
        else:
            continue
        hooks.append(layer.register_forward_pre_hook(keep))
    model(fb.linf_box(x, eps, 0.0, 1.0))
    for hook in hooks:
        hook.remove()
    return inputs[0], bounds


def networks():
    cifar = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    return {
        "cnn7": models.build("cnn7", (3, 8, 8), 10, width=4, **cifar),
        "dm-small without norm": models.build("dm-small", (1, 12, 12), 10),
        "mlp": models.build("mlp", (3, 4, 4), 10, hidden=[40, 40], **cifar),
        "fastbound layers": fb.convert(models.build("dm-small", (1, 12, 12), 10, norm=True)),
    }


SHAPES = {"cnn7": (3, 8, 8), "mlp": (3, 4, 4)}


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("eps", [1e-3, 0.05, 0.3])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_regularisers_and_their_gradients_are_those_of_lower_and_upper(name, eps, backend):
    torch.manual_seed(1)
    model = networks()[name].double()
    x = torch.rand(6, *SHAPES.get(name, (1, 12, 12)), dtype=torch.float64)
    wanted = directly(*recorded(model, x, eps))
    wanted_gradients = torch.autograd.grad(sum(wanted), list(model.parameters()), allow_unused=True)
    with fb.use_backend(backend):
        found = warmup_regularisers(model(with_moments(fb.linf_box(x, eps, 0.0, 1.0))))
        gradients = torch.autograd.grad(sum(found), list(model.parameters()), allow_unused=True)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert any(g is not None and g.any() for g in wanted_gradients)
    for gradient, expected in zip(gradients, wanted_gradients):
        expected, gradient = (torch.zeros(()) if g is None else g for g in (expected, gradient))
        torch.testing.assert_close(gradient, expected.expand_as(gradient).to(gradient), rtol=1e-7, atol=1e-10)


def test_residual_networks_count_every_relu():
    torch.manual_seed(0)
    model = models.build("wide-resnet", (1, 8, 8), 10, width=4)
    out = model(with_moments(fb.linf_box(torch.rand(4, 1, 8, 8), 0.1, 0.0, 1.0)))
    from fastbound.domains.tape import topological

    assert sum(node.relu_moments is not None for node in topological(out.node)) == 8  # 1 + 3 x 2 + 1
    assert all(value.isfinite() and value >= 0 for value in warmup_regularisers(out))


def test_moments_change_no_bound_and_no_gradient_of_one():
    torch.manual_seed(0)
    model = models.build("cnn7", (3, 8, 8), 10, width=4)
    twin = copy.deepcopy(model)
    x, labels = torch.rand(5, 3, 8, 8), torch.arange(5)
    for net, watch in ((model, with_moments), (twin, lambda box: box)):
        out = net(watch(fb.linf_box(x, 0.02, 0.0, 1.0)))
        margins = fb.bound(out, method="crown-ibp", spec=fb.margin_spec(labels, 10))
        (fb.losses.robust_cross_entropy(margins) + F.cross_entropy(out.nominal, labels)).backward()
    for (name, a), b in zip(model.named_parameters(), twin.parameters()):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers()))


def test_a_compiled_step_has_the_same_gradients():
    torch.manual_seed(0)
    model = models.build("mlp", (1, 2, 2), 3, hidden=[6, 6])
    model.insert(2, nn.BatchNorm1d(6))
    x = torch.rand(5, 1, 2, 2)

    def step(x):
        return sum(warmup_regularisers(model(with_moments(fb.linf_box(x, 0.1, 0.0, 1.0)))))

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    eager, found = (torch.autograd.grad(f(x), list(model.parameters()), allow_unused=True) for f in (step, compiled))
    for wanted, gradient in zip(eager, found):
        assert (wanted is None) == (gradient is None)
        if wanted is not None:
            torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("shape", [(4, 3, 2, 3), (7, 5)], ids=str)
def test_gradcheck_through_batch_statistics(backend, shape):
    """The nominal stream moves the statistics, and they move every bound."""
    generator = torch.Generator().manual_seed(3)
    stack = torch.randn(2, *shape, generator=generator, dtype=torch.float64).requires_grad_()
    radius = torch.rand(shape, generator=generator, dtype=torch.float64).mul_(0.5).requires_grad_()
    weight, bias = torch.randn(2, shape[1], generator=generator, dtype=torch.float64).unbind()

    def function(stack, radius, weight, bias):
        mean, var = interval_norm_relu_statistics(stack[0])
        return interval_norm_relu_moments(stack, radius, mean, var, weight, bias, 1e-5, 0.1, batch_statistics=True)

    inputs = (stack, radius, weight.clone().requires_grad_(), bias.clone().requires_grad_())
    with fb.use_backend(backend):
        assert function(*inputs)[2][2:4].min() > 0, "the sample has no active or no inactive unit"
        assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("shift", [-50.0, 50.0])
def test_a_layer_of_one_kind_of_units_adds_no_balance(shift):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(model[2].bias, shift)
    x = torch.rand(8, 3)
    both = directly(*recorded(model.double(), x.double(), 0.1))
    found = warmup_regularisers(model(with_moments(fb.linf_box(x.double(), 0.1, 0.0, 1.0))))
    torch.testing.assert_close(found, both)
    sum(found).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    nn.init.constant_(model[0].bias, shift)
    _, balance = warmup_regularisers(model(with_moments(fb.linf_box(x.double(), 0.1, 0.0, 1.0))))
    assert balance == 0


def test_ibp_initialisation_is_tight_from_the_start():
    """The purpose of the initialisation: without it the widths of seven layers explode."""
    torch.manual_seed(0)
    values = {}
    for init in ("default", "ibp"):
        model = models.build("dm-large", (1, 16, 16), 10, width=16)
        initialise(model, init, torch.zeros(1, 1, 16, 16))
        values[init] = warmup_regularisers(model(with_moments(fb.linf_box(torch.rand(8, 1, 16, 16), 0.01))))[0].item()
    assert values["default"] > 0.6 > 0.2 > values["ibp"]


def test_what_went_wrong_is_said():
    model, box = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), fb.linf_box(torch.rand(2, 3), 0.1)
    with pytest.raises(ValueError, match="no moments; pass the box through with_moments"):
        warmup_regularisers(model(box))
    with pytest.raises(ValueError, match="must have ReLUs"):
        warmup_regularisers(nn.Linear(3, 2)(with_moments(box)))
    with pytest.raises(ValueError, match="tolerance: wanted a number greater than 0, got 0"):
        warmup_regularisers(model(with_moments(box)), tolerance=0)
