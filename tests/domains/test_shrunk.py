"""Shrunk intervals: the ReLU of SABR in every spelling, its gradients, and who refuses it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastbound as fb
from fastbound.domains.interval.shrunk import ShrunkInterval
from fastbound.errors import MissingRuleError


class Spelled(nn.Module):
    """A residual block with ReLU in its spellings, one of them after a BatchNorm."""

    def __init__(self, relu) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.relu(self.norm(self.first(x)))) + x


SPELLINGS = [F.relu, torch.relu, nn.ReLU(), nn.ReLU(inplace=True), lambda x: x.relu(), lambda x: x.relu_()]


@pytest.mark.parametrize("relu", SPELLINGS)
@pytest.mark.parametrize("shrink", [0.0, 0.4])
def test_a_shrunk_relu_equals_its_formula(relu, shrink: float) -> None:
    block, x = Spelled(relu).double(), torch.randn(5, 8, dtype=torch.float64)
    inner = nn.Sequential(block.first, block.norm)
    hidden = copy.deepcopy(inner)(fb.linf_box(x, 0.1))
    low, high = hidden.lower, hidden.upper
    unstable = (low < 0) & (high > 0)
    assert unstable.any() and not unstable.all()
    high = torch.where(unstable, high * (1 - shrink / 2), high).relu()
    expected = block.second(fb.box(low.relu(), high)) + fb.linf_box(x, 0.1, nominal=False)
    clean = copy.deepcopy(block)(x)
    out = block(ShrunkInterval(fb.linf_box(x, 0.1), shrink))
    assert isinstance(out, ShrunkInterval)
    torch.testing.assert_close(out.lower, expected.lower)
    torch.testing.assert_close(out.upper, expected.upper)
    torch.testing.assert_close(out.nominal, clean)


def test_gradients_pass_a_shrunk_relu() -> None:
    layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = torch.randn(4, 6, dtype=torch.float64)

    def ends(weight: Tensor) -> Tensor:
        hidden = F.linear(ShrunkInterval(fb.linf_box(x, 0.3), 0.4), weight, layers[0].bias)
        out = layers[2](layers[1](hidden))
        return torch.cat((out.lower, out.upper, out.nominal))

    assert torch.autograd.gradcheck(ends, layers[0].weight.detach().clone().requires_grad_())


def test_a_shrunk_interval_is_refused_by_backward_bounds_and_copied_whole() -> None:
    layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    out = layers(ShrunkInterval(fb.linf_box(torch.randn(4, 6), 0.3), 0.4))
    with pytest.raises(MissingRuleError, match="the shrunk ReLU"):
        fb.bound(out, method="crown-ibp").lower  # noqa: B018
    twin = copy.deepcopy(out)
    assert type(twin) is ShrunkInterval and twin.shrink == 0.4 and torch.equal(twin.upper, out.upper)
