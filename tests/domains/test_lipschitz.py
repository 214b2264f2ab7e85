"""The Lipschitz domain: constants of layers and networks, what is refused, and the state between passes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb
from fastbound.nn import MinMax


def matrix(function, shape: tuple[int, ...]) -> Tensor:  # [out, in]
    """The linear part of a function of one sample, unrolled in float64."""
    size = math.prod(shape)
    basis = torch.eye(size, dtype=torch.float64).view(size, *shape)
    return (function(basis) - function(torch.zeros(1, *shape, dtype=torch.float64))).flatten(1).T


def exact_norm(function, shape: tuple[int, ...]) -> float:
    with torch.no_grad():
        return float(torch.linalg.svdvals(matrix(function, shape))[0])


def flow(model, x: Tensor) -> fb.Lipschitz:
    return model(fb.lipschitz(x))


class HalvedBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding="same"))

    def forward(self, x):
        return F.relu(x + 0.5 * self.body(x))


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 4, 3, padding="same")

    def forward(self, x):
        first, second = x.chunk(2, 1)
        return torch.cat((self.left(x), 1 - self.right(x).relu(), first - second), 1)


NETWORKS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 20), nn.ReLU(), nn.Linear(20, 5)),
    "conv": lambda: nn.Sequential(nn.Conv2d(4, 6, 4, 2, 1), MinMax(), nn.Flatten(), nn.Linear(54, 5)),
    "average": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.Tanh(), nn.AvgPool2d(3, 1, 1), nn.Flatten()),
    "maximum": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(24, 3)),
    "residual": lambda: nn.Sequential(HalvedBranch(), HalvedBranch(), nn.Flatten(), nn.Linear(144, 4)),
    "joined": lambda: nn.Sequential(Joined(), nn.LeakyReLU(1.5), nn.PixelUnshuffle(2), nn.Flatten()),
    "normalised": lambda: nn.Sequential(fb.nn.Normalize([0.5] * 4, [0.25, 0.5, 0.3, 2]), nn.Flatten(), nn.Sigmoid()),
    "global": lambda: nn.Sequential(nn.Conv2d(4, 8, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(3), nn.Flatten()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_pair_of_inputs_moves_further_than_the_constant_says(name):
    model = NETWORKS[name]().double()
    x = torch.randn(200, 4, 6, 6, dtype=torch.float64)
    out = flow(model, x)
    torch.testing.assert_close(out.nominal, model(x))
    bound = out.certified_constant()
    assert float(out.constant.detach()) <= bound
    # Pairs that an optimiser drives apart, at several distances.
    a, b = x[:100].clone().requires_grad_(), x[100:] * 10.0 ** -torch.arange(100).div(25).view(-1, 1, 1, 1)
    for _ in range(30):
        ratio = (model(a) - model(a + b)).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)
        assert ratio.max() <= bound * (1 + 1e-9)
        b = b.detach().requires_grad_()
        ratio = (model(a) - model(a + b)).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)
        (step,) = torch.autograd.grad(ratio.sum(), b)
        b = b + 0.3 * step / step.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1) * b.flatten(1).norm(
            dim=1
        ).view(-1, 1, 1, 1)
    assert ratio.max() > 0.02 * bound  # the pairs are not trivial ones


def test_a_chain_of_linear_layers_has_the_product_of_their_norms():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Flatten(), nn.Linear(64, 10)).double()
    out = flow(model, torch.rand(2, 1, 8, 8, dtype=torch.float64))
    product = exact_norm(model[0], (1, 8, 8)) * exact_norm(model[2], (64,))
    assert product <= out.certified_constant() <= product * (1 + 1e-6)


def test_sums_and_joins_combine_as_written():
    scale = torch.tensor([0.5, -3.0])
    x = fb.lipschitz(torch.rand(5, 2))
    assert float((x + x).constant) == 2
    assert float((x - 2 * x + 1).constant) == 3
    assert float((x * scale).constant) == 3 and float((x / scale).constant) == 2
    assert float(torch.cat((x, 2 * x, torch.ones(5, 3)), 1).constant) == pytest.approx(math.sqrt(5))
    assert float(x.mean(1).constant) == pytest.approx(1 / math.sqrt(2))
    assert (x * scale).certified_constant() == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (nn.AvgPool2d(2), (1, 6, 6)),
        (nn.AvgPool2d(3, 1, 1), (2, 6, 5)),
        (nn.AvgPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True, count_include_pad=False), (1, 6, 7)),
        (nn.AvgPool1d(3, 2), (2, 9)),
        (nn.AvgPool3d(2, 1), (1, 3, 4, 5)),
        (nn.AdaptiveAvgPool2d((3, 4)), (1, 7, 6)),
    ],
    ids=str,
)
def test_average_pooling_has_its_exact_norm(pool, shape):
    found = flow(pool, torch.rand(2, *shape)).certified_constant()
    exact = exact_norm(pool, shape)
    assert exact <= found <= exact * (1 + 1e-6)


def test_maximum_pooling_counts_overlapping_windows():
    x = torch.rand(2, 1, 9, 9)
    for pool, windows in [(nn.MaxPool2d(3), 1), (nn.MaxPool2d(3, 1), 9), (nn.MaxPool2d(3, 2, 1), 4)]:
        assert float(flow(pool, x).constant) == math.sqrt(windows)
    # A peak that is the maximum of nine windows moves nine outputs.
    x = torch.zeros(1, 1, 9, 9)
    peak = x.index_put((torch.tensor(0), torch.tensor(0), torch.tensor(4), torch.tensor(4)), torch.tensor(1.0))
    pool = nn.MaxPool2d(3, 1)
    assert float((pool(peak) - pool(x)).norm()) == 3


def test_the_estimate_is_the_norm_and_has_its_gradient():
    weight = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    state = fb.LipschitzState(iterations=200)
    constant = F.linear(fb.lipschitz(torch.rand(2, 5, dtype=torch.float64), state), weight).constant
    u, s, vh = torch.linalg.svd(weight.detach(), full_matrices=False)
    torch.testing.assert_close(constant.detach(), s[0])
    constant.backward()
    torch.testing.assert_close(weight.grad, torch.outer(u[:, 0], vh[0]))


def test_convolution_estimates_have_gradients_in_every_dimension():
    for spatial, layer in ((1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d)):
        conv = layer(2, 4, 4, stride=3, padding=2, dilation=1, groups=2).double()
        x = torch.rand(2, 2, *(7, 6, 5)[:spatial], dtype=torch.float64)
        state = fb.LipschitzState(iterations=40)

        def norm(weight, x=x, state=state, conv=conv):
            return torch.func.functional_call(conv, {"weight": weight}, (fb.lipschitz(x, state),)).constant

        for _ in range(10):
            norm(conv.weight)
        assert torch.autograd.gradcheck(norm, (conv.weight.detach().requires_grad_(),), eps=1e-6, atol=1e-5)
        assert float(norm(conv.weight).detach()) == pytest.approx(exact_norm(conv, tuple(x.shape[1:])), rel=1e-6)


def test_iterates_persist_and_follow_the_weights():
    torch.manual_seed(3)
    layer = nn.Linear(60, 40)
    x, state = torch.rand(1, 60), fb.LipschitzState(iterations=1)
    errors = []
    for _ in range(300):
        estimate = float(layer(fb.lipschitz(x, state)).constant.detach())
        errors.append(1 - estimate / float(torch.linalg.matrix_norm(layer.weight, 2)))
        with torch.no_grad():
            layer.weight.add_(1e-4 * torch.randn_like(layer.weight))
    assert -1e-6 < errors[-1] < 1e-3  # one iteration a pass keeps up
    assert 1 - float(layer(fb.lipschitz(x, fb.LipschitzState(1))).constant.detach()) / estimate > errors[-1]


def test_state_survives_a_checkpoint():
    model = NETWORKS["conv"]()
    x, state = torch.rand(2, 4, 6, 6), fb.LipschitzState(iterations=2)
    model(fb.lipschitz(x, state)).constant.backward()
    loaded = fb.LipschitzState(iterations=2)
    loaded.load_state_dict(state.state_dict())
    one, two = (float(model(fb.lipschitz(x, s)).constant.detach()) for s in (state, loaded))
    assert one == two and sorted(loaded.state_dict()) == ["iterate0", "iterate1"]


def test_a_certificate_is_of_the_weights_and_the_map_that_it_was_proven_for():
    layer, state = nn.Conv2d(1, 2, 3, padding=1), fb.LipschitzState()
    other = copy.deepcopy(layer.state_dict())

    def constant(size: int, state: fb.LipschitzState | None = None) -> float:
        return layer(fb.lipschitz(torch.rand(1, 1, size, size), state)).certified_constant()

    changes = (
        lambda: layer.weight.data.mul_(3),  # which no version of the tensor counts
        lambda: layer.load_state_dict(other),
        lambda: setattr(layer, "padding", (0, 0)),
        lambda: setattr(layer, "stride", (3, 3)),
    )
    before = constant(8, state)
    assert constant(5, state) == constant(5) != before
    for change in changes:
        change()
        found = constant(8, state)
        assert found == constant(8) != before
        before = found


def test_a_state_of_another_model_is_refused():
    state = fb.LipschitzState()
    _ = nn.Linear(6, 3)(fb.lipschitz(torch.rand(2, 6), state)).constant
    with pytest.raises(ValueError, match=r"state: layer 0 has inputs \[5\], its power iterate \[6\]"):
        _ = nn.Linear(5, 3)(fb.lipschitz(torch.rand(2, 5), state)).constant
    with pytest.raises(ValueError, match="iterations: wanted at least 1, got 0"):
        fb.LipschitzState(0)
    with pytest.raises(TypeError, match=r"state: wanted a fastbound\.LipschitzState, got dict"):
        fb.lipschitz(torch.rand(2, 5), {})


def test_two_passes_before_one_backward_keep_their_gradients():
    layer, state = nn.Linear(5, 4), fb.LipschitzState(iterations=50)
    first = layer(fb.lipschitz(torch.rand(2, 5), state)).constant
    second = layer(fb.lipschitz(torch.rand(2, 5), state)).constant
    (first + second).backward()
    u, _, vh = torch.linalg.svd(layer.weight.detach())
    torch.testing.assert_close(layer.weight.grad, 2 * torch.outer(u[:, 0], vh[0]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.BatchNorm2d(4), r"batch_norm in the model \(BatchNorm2d\).*leave it out.*orthogonal"),
        (nn.GroupNorm(2, 4), "group_norm.*leave it out"),
        (nn.LayerNorm(6), "layer_norm.*leave it out"),
        (nn.Softmax(1), "softmax.*return the logits"),
        (nn.Dropout(0.5), "dropout.*leave dropout out"),
        (nn.Hardshrink(), "hardshrink.*its slope is unbounded.*use a function that has one"),
        (nn.ConvTranspose2d(4, 4, 3), "conv_transpose2d has no rule for Lipschitz"),
        (nn.ReflectionPad2d(1), "mode 'reflect' copies elements.*zero padding"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
        (nn.MaxPool2d(2, return_indices=True), "return_indices"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_has_no_constant_is_refused_with_advice(module, message):
    with pytest.raises(NotImplementedError, match=message):
        flow(module.train(), torch.rand(2, 4, 6, 6))


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x.permute(1, 0, 2, 3),
        lambda x: x.flatten(),
        lambda x: x.reshape(4, 2, 36),
        lambda x: x.mean((0, 1)),
        lambda x: x.sum(),
        lambda x: torch.cat((x, x)),
        lambda x: x[1:],
        lambda x: x[0],
        lambda x: x.flip(0),
        lambda x: F.pad(x, (0,) * 7 + (1,)),
    ],
)
def test_what_mixes_samples_is_refused(mixing):
    with pytest.raises(NotImplementedError, match="dimension 0 alone"):
        mixing(fb.lipschitz(torch.rand(2, 4, 6, 6)))


@pytest.mark.parametrize(
    "copying",
    [
        lambda x: x + torch.ones(3, 1, 1, 1, 1),
        lambda x: x * torch.ones(3, 2, 4, 6, 6),
        lambda x: x[:, :1] + x,
        lambda x: x[:, torch.tensor([0, 0])],
    ],
)
def test_what_copies_elements_is_refused(copying):
    with pytest.raises(NotImplementedError, match="changes the norm"):
        copying(fb.lipschitz(torch.rand(2, 4, 6, 6)))


def test_domains_do_not_mix_and_in_place_functions_rebind():
    x = torch.rand(2, 4)
    with pytest.raises(TypeError, match="meets"):
        fb.lipschitz(x) + fb.linf_box(x, 0.1)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    assert (flow(model, x).nominal >= 0).all()
    with pytest.raises(ValueError, match="contains NaN"):
        fb.lipschitz(torch.full((2, 3), float("nan")))


def test_minmax_sorts_pairs_for_tensors_and_values():
    x = torch.tensor([[3.0, 1.0, -1.0, 2.0]])
    assert MinMax()(x).tolist() == [[1, 3, -1, 2]]
    maps = torch.randn(2, 6, 3, 4)
    rows = maps.permute(0, 2, 3, 1).reshape(2, -1)  # in channels-last order: adjacent features
    torch.testing.assert_close(MinMax()(rows), MinMax()(maps).permute(0, 2, 3, 1).reshape(2, -1))
    with pytest.raises(ValueError, match=r"MinMax: wanted .* even number of channels, got \[2, 3\]"):
        MinMax()(torch.rand(2, 3))
    with pytest.raises(ValueError, match="even number of channels"):
        flow(MinMax(), torch.rand(2, 3))
    assert torch.autograd.gradcheck(MinMax(), torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True))


def test_intervals_pass_minmax_exactly():
    x = torch.rand(4, 6)
    out = MinMax()(fb.linf_box(x, 0.3))
    corners = MinMax()((x + 0.3 * torch.randint(-1, 2, (500, 1, 6))).flatten(0, 1)).view(500, 4, 6)
    assert (corners >= out.lower - 1e-6).all() and (corners <= out.upper + 1e-6).all()
    torch.testing.assert_close(out.upper, MinMax()(x + 0.3))
    torch.testing.assert_close(out.nominal, MinMax()(x))


def test_users_add_rules():
    @fb.rule(fb.Lipschitz, torch.sin)
    def sin(input):
        return input.mapped_to(torch.sin(input.nominal), 1.0)

    out = torch.sin(3 * fb.lipschitz(torch.rand(2, 3)))
    assert float(out.constant) == 3
