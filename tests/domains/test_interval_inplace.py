"""In-place functions rebind the handle: every alias sees the result, and nothing else does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import zoo
from torch import Tensor, nn

import fastbound as fb

EPS = 0.3


class Alias(nn.Module):
    """``conv(relu_(x)) + x``: the second x is rectified too."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(2, 2, 3, padding=1), function

    def forward(self, x: Any) -> Any:
        x = x * 1.0  # an input is not written to
        return self.conv(self.function(x)) + x


def iadd(x: Any) -> Any:
    x += 1.0
    return x


def chain(x: Any) -> Any:
    y = x
    y -= 0.25
    y *= -2.0
    y /= 4.0
    y += torch.ones(2, 1, 1)
    return F.relu(x, inplace=True)


FUNCTIONS = {
    "F.relu": lambda x: F.relu(x, inplace=True),
    "F.relu, positional": lambda x: F.relu(x, True),
    "nn.ReLU": lambda x: nn.ReLU(inplace=True)(x),
    "relu_": lambda x: x.relu_(),
    "torch.relu_": torch.relu_,
    "nn.ReLU6": lambda x: nn.ReLU6(inplace=True)(x),
    "nn.LeakyReLU": lambda x: nn.LeakyReLU(0.3, inplace=True)(x),
    "F.leaky_relu_": lambda x: F.leaky_relu_(x, 0.3),
    "nn.ELU": lambda x: nn.ELU(inplace=True)(x),
    "nn.SiLU": lambda x: nn.SiLU(inplace=True)(x),
    "nn.Mish": lambda x: nn.Mish(inplace=True)(x),
    "nn.Hardtanh": lambda x: nn.Hardtanh(inplace=True)(x),
    "nn.Hardswish": lambda x: nn.Hardswish(inplace=True)(x),
    "clamp_": lambda x: x.clamp_(-0.1, 0.2),
    "clamp_min_": lambda x: x.clamp_min_(0.1),
    "sigmoid_": lambda x: x.sigmoid_(),
    "tanh_": lambda x: x.tanh_(),
    "abs_": lambda x: x.abs_(),
    "neg_": lambda x: x.neg_(),
    "exp_": lambda x: x.exp_(),
    "square_": lambda x: x.square_(),
    "+=": iadd,
    "add_": lambda x: x.add_(torch.ones(6), alpha=-2),
    "mul_": lambda x: x.mul_(-0.5),
    "chain": chain,
    "dropout in evaluation": lambda x: F.dropout(x, 0.5, False, inplace=True).relu_(),
    "float() of float": lambda x: x.double().relu_(),
    "Identity": lambda x: nn.Identity()(x).relu_(),
}


def assert_contains(model: Callable[[Any], Any], x: Tensor, count: int = 200) -> fb.Interval:
    out = model(fb.linf_box(x, EPS))
    with torch.no_grad():
        points = torch.stack([model(x + EPS * (2 * torch.rand_like(x) - 1)) for _ in range(count)])
        assert torch.allclose(out.nominal, model(x.clone()))
    assert (points >= out.lower - 1e-12).all() and (points <= out.upper + 1e-12).all()
    return out


@pytest.mark.parametrize("name", FUNCTIONS)
def test_aliases_see_the_result(name: str) -> None:
    model = Alias(FUNCTIONS[name]).double()
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    out = assert_contains(model, x)

    def functional(v: Any) -> Any:
        y = FUNCTIONS[name](v * 1.0)
        return model.conv(y) + y

    wanted = functional(fb.linf_box(x, EPS))
    assert torch.allclose(out.lower, wanted.lower) and torch.allclose(out.upper, wanted.upper)


@pytest.mark.parametrize(
    "copied",
    [
        lambda x: x * 1,
        lambda x: x / 1,
        lambda x: x + 0,
        lambda x: x.clone(),
        lambda x: -1 * -x,
        lambda x: x.abs(),
        lambda x: x.to(torch.float64, copy=True),
        lambda x: torch.cat([x]),
        lambda x: F.pad(x, (0, 0)),
    ],
)
def test_copies_do_not_see_it(copied: Callable[[Any], Any]) -> None:
    def model(x: Any) -> Any:
        y = copied(x)
        y.mul_(3.0).relu_()
        return y - 0.5 * x

    assert_contains(model, torch.randn(2, 3, dtype=torch.float64))


def test_the_handle_is_the_same_object() -> None:
    box = fb.linf_box(torch.randn(2, 3), EPS)
    before, node = box.lower, box.node
    alias = box
    assert box.relu_() is box and alias.lower.min() >= 0
    assert torch.equal(node.center - node.radius, before), "a node of the tape is immutable"
    box += 1
    assert box is alias and alias.lower.min() >= 1


@pytest.mark.parametrize("name", ["residual", "dense", "cnn"])
def test_models_with_in_place_layers_give_the_bounds_of_their_twins(name: str) -> None:
    model, x = zoo.build(name, dtype=torch.float64)
    twin = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    for module in twin.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    for training in (False, True):
        out, wanted = (m.train(training)(fb.linf_box(x, 0.05)) for m in (model, twin))
        assert torch.equal(out.lower, wanted.lower) and torch.equal(out.upper, wanted.upper)


VIEWS: dict[str, Callable[[Any], Any]] = {
    "view": lambda x: x.view(2, -1),
    "reshape": lambda x: x.reshape(2, -1),
    "flatten": lambda x: x.flatten(1),
    "index": lambda x: x[:, 0],
    "slice": lambda x: x[:, :1],
    "transpose": lambda x: x.transpose(1, 2),
    "permute": lambda x: x.permute(0, 2, 1),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x.squeeze(),
    "expand": lambda x: x.expand(2, 3, 4),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: x.split(2, 1)[0],
    "unbind": lambda x: x.unbind(1)[2],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "select": lambda x: x.select(1, 0),
    "movedim": lambda x: x.movedim(1, 2),
    "contiguous": lambda x: x.contiguous(),
    "detach": lambda x: x.detach(),
    "view_as": lambda x: x.view_as(x),
    "to(memory_format)": lambda x: x.to(memory_format=torch.contiguous_format),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("write", [torch.relu_, iadd, lambda x: F.relu(x, inplace=True)], ids=["relu_", "+=", "F.relu"])
@pytest.mark.parametrize("under", [False, True], ids=["on", "under"])
def test_writing_on_or_under_a_view_raises(name: str, write: Callable[[Any], Any], under: bool) -> None:
    box = fb.linf_box(torch.randn(2, 3, 4), EPS)
    view = VIEWS[name](box)
    lower = box.lower, view.lower
    with pytest.raises(NotImplementedError, match=r"in place into a view.*out-of-place"):
        write(box if under else view)
    assert torch.equal(box.lower, lower[0]) and torch.equal(view.lower, lower[1]), "the refusal changed a value"


def test_the_refusal_names_the_module() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Flatten(), nn.Identity(), nn.ReLU(inplace=True))

        def forward(self, x: Any) -> Any:
            return self.features(x)

    with pytest.raises(NotImplementedError, match=r"features\.2 \(ReLU\)"):
        Net()(fb.linf_box(torch.randn(2, 3, 4), EPS))


def test_writing_an_interval_into_a_tensor_raises() -> None:
    box, x = fb.linf_box(torch.randn(2, 3), EPS), torch.zeros(2, 3)
    with pytest.raises(NotImplementedError, match=r"plain tensor.*out-of-place"):
        x += box
    with pytest.raises(NotImplementedError, match="plain tensor"):
        x.add_(box)
    with pytest.raises(NotImplementedError, match="__setitem__"):
        x[0] = box
    with pytest.raises(TypeError):
        box[0] = x[0]
    with pytest.raises(NotImplementedError, match="out="):
        torch.add(box, 1.0, out=x)
    assert not x.any()


def test_in_place_may_not_change_the_shape() -> None:
    box = fb.linf_box(torch.randn(3), EPS)
    with pytest.raises(ValueError, match=r"\(3,\) to \(2, 3\)"):
        box += torch.zeros(2, 3)
