"""Initialisations and their promises about weights and about the widths of bounds."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastbound as fb
from fastbound import models
from fastbound.train.initialisation import initialise


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_orthogonal():
    model = models.build("dm-small", (1, 28, 28), 10)
    initialise(model, "orthogonal", torch.zeros(1, 1, 28, 28))
    weight = model[5].weight  # 100 rows
    torch.testing.assert_close(weight @ weight.T, torch.eye(100), atol=1e-5, rtol=0)
    assert not model[0].bias.any()


@pytest.mark.parametrize("eps", [1e-3, 1.0])
def test_the_difference_gain_of_ibp_is_one_at_width_512(eps):
    """Mean widths before each ReLU stay the same from layer to layer, the aim of the method, whatever the radius."""
    torch.manual_seed(0)
    depth = 10
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(512, 512), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(512, 10))
    initialise(model, "ibp", torch.zeros(1, 512))
    widths = []
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda _, __, out: widths.append(out.radius.mean().item()))
    model(fb.linf_box(torch.rand(256, 512), eps))
    gain = (widths[depth - 1] / widths[0]) ** (1 / (depth - 1))
    assert abs(gain - 1) < 0.05
    assert abs(512 / 2 * model[2].weight.abs().mean().item() - 1) < 0.05


@pytest.mark.parametrize("groups", [1, 2])
def test_ibp_sets_every_weight_but_the_last_by_its_fan_in(groups):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 64, 3, padding=1, groups=groups),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 64, 4, stride=2, groups=groups),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 18 * 18, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )
    before = weights_of(model)
    initialise(model, "ibp", torch.zeros(1, 2, 8, 8))
    # A transposed convolution of stride 2 adds up a quarter of its 4x4 taps at every pixel.
    fan_in = {"0": 2 / groups * 9, "3": 64 / groups * 16 / 4, "6": 64 * 18 * 18}
    for name, value in model.state_dict().items():
        layer, kind = name.split(".")
        if layer in fan_in and kind == "weight":
            sigma = math.sqrt(2 * math.pi) / fan_in[layer]
            allowed = 5 / math.sqrt(2 * value.numel())  # five standard deviations of a standard deviation
            assert abs(value.std().item() / sigma - 1) < allowed and abs(value.mean().item()) < sigma * allowed * 2
        else:
            assert torch.equal(value, before[name]), name


class SumsAndReaders(nn.Module):
    """Layers that read relu(a + b) directly, after a flatten, and not at all."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
        self.skip, self.norm = nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64)
        self.reader, self.flat, self.last = nn.Conv2d(64, 64, 3), nn.Linear(64 * 16, 100), nn.Linear(100, 2)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.norm(self.second(x)) + self.skip(x))
        x = F.relu(self.reader(x) + 1.0)  # a constant is no branch
        return self.last(F.relu(self.flat(x.flatten(1)) + self.flat(x.flatten(1))))


def test_ibp_halves_what_reads_the_relu_of_a_sum():
    torch.manual_seed(0)
    model = SumsAndReaders()
    before = weights_of(model)
    initialise(model, "ibp", torch.zeros(1, 1, 6, 6))
    for name, fan_in, half in [
        ("first", 9, 1),
        ("second", 576, 1),
        ("skip", 64, 1),
        ("reader", 576, 0.5),
        ("flat", 1024, 1),
    ]:
        value = model.get_submodule(name).weight
        sigma = half * math.sqrt(2 * math.pi) / fan_in
        assert abs(value.std().item() / sigma - 1) < 5 / math.sqrt(2 * value.numel()), name
    assert torch.equal(model.last.weight, before["last.weight"] / 2)  # no draw, yet it reads relu(a + b)


def test_ibp_halves_after_a_flatten():
    torch.manual_seed(0)
    model = models.build("wide-resnet", (1, 16, 16), 10, width=8)
    initialise(model, "ibp", torch.zeros(1, 1, 16, 16))
    linear = next(layer for layer in model if isinstance(layer, nn.Linear))
    sigma = 0.5 * math.sqrt(2 * math.pi) / linear.in_features
    assert abs(linear.weight.std().item() / sigma - 1) < 0.05


def test_ibp_leaves_modes_and_statistics():
    model = models.build("cnn7", (3, 16, 16), 10, width=4)
    model[1].eval()
    modes = [module.training for module in model.modules()]
    statistics = [buffer.clone() for buffer in model.buffers()]
    initialise(model, "ibp", torch.zeros(1, 3, 16, 16))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), statistics))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_ibp_refuses_a_computed_weight():
    hidden = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"init: ibp sets weights, and the one of shape \[4, 4\] is computed"):
        initialise(nn.Sequential(hidden, nn.ReLU(), nn.Linear(4, 2)), "ibp", torch.zeros(1, 4))
