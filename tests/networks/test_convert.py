"""`convert`: the same numbers, the same parameters, the same names."""

from __future__ import annotations

import copy
from typing import Any

import oracle
import pytest
import torch
import zoo
from torch import nn

import fastbound as fb


@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_converted_models_keep_bounds_gradients_and_state(name: str, training: bool) -> None:
    model, x = zoo.build(name)
    plain = copy.deepcopy(model).train(training)
    parameters, keys = list(model.parameters()), {k: v.shape for k, v in model.state_dict().items()}
    converted = fb.convert(model.train(training))
    assert converted is model
    assert all(a is b for a, b in zip(parameters, converted.parameters()))
    assert {k: v.shape for k, v in converted.state_dict().items()} == keys
    wanted = oracle.propagate(plain, x - 0.05, x + 0.05, x)
    out, other = converted(fb.linf_box(x, 0.05)), plain(fb.linf_box(x, 0.05))
    width = (wanted.upper - wanted.lower).detach()
    for ours, theirs, unconverted in ((out.lower, wanted.lower, other.lower), (out.upper, wanted.upper, other.upper)):
        slack = 2e-5 * width + torch.finfo(torch.float32).eps * theirs.abs()
        assert ((ours.double() - theirs).abs() <= slack).all()
        assert torch.allclose(ours, unconverted, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(converted.buffers(), plain.buffers()):
        assert torch.allclose(ours, theirs)
    weight = torch.randn_like(out.lower)
    grads = [
        torch.autograd.grad((o.lower * weight).sum(), list(m.parameters()))
        for o, m in ((out, converted), (other, plain))
    ]
    for a, b in zip(*grads):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * (1 + b.abs().max()))
    plain.load_state_dict(converted.state_dict(), strict=True)
    converted.load_state_dict(plain.state_dict(), strict=True)
    assert torch.allclose(converted.eval()(x), plain.eval()(x), rtol=1e-5, atol=1e-6), "tensors go through as before"


def test_converting_twice_changes_nothing() -> None:
    model = fb.convert(zoo.build("residual")[0])
    kinds = [type(m) for m in model.modules()]
    assert [type(m) for m in fb.convert(model).modules()] == kinds
    assert isinstance(model.conv1, nn.Conv2d) and isinstance(model.conv1, fb.nn.Conv2d)


def test_subclasses_keep_their_own_forward() -> None:
    model, _ = zoo.build("subclass")
    assert type(fb.convert(model)[0]) is zoo.Scaled


def test_shared_layers_and_hooks_survive() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    seen: list[Any] = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output))
    model = fb.convert(model)
    assert model[0] is model[2]
    model(fb.linf_box(torch.rand(2, 4), 0.1))
    assert isinstance(seen[0], fb.Interval) and seen[0].lower.min() >= 0


@pytest.mark.parametrize(
    "wrong", [None, "model", lambda x: x, torch.zeros(2)], ids=["None", "text", "function", "tensor"]
)
def test_what_is_no_module(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"convert: wanted a torch\.nn\.Module"):
        fb.convert(wrong)


def test_normalize_keeps_boxes_in_pixels() -> None:
    mean, std = [0.2, 0.5], [0.1, 0.4]
    layer = fb.nn.Normalize(mean, std)
    x = torch.rand(3, 2, 4, 4)
    out = layer(fb.linf_box(x, 0.05))
    scale = torch.tensor(std).view(2, 1, 1)
    assert torch.allclose(out.nominal, (x - torch.tensor(mean).view(2, 1, 1)) / scale, atol=1e-6)
    assert torch.allclose(out.radius, (0.05 / scale).expand_as(x), atol=1e-6)
