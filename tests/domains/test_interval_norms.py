"""BatchNorm of intervals: statistics, what it refuses, and values that wait for their reader."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastbound as fb


@pytest.mark.parametrize("settings", [{}, {"momentum": None}, {"momentum": 0.3}, {"affine": False}], ids=str)
@pytest.mark.parametrize("converted", [False, True])
def test_running_statistics_are_those_of_the_plain_forward(settings: dict[str, Any], converted: bool) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, **settings), nn.ReLU(), nn.BatchNorm2d(3, **settings))
    twin = copy.deepcopy(model)
    model = fb.convert(model) if converted else model
    for step in range(3):
        x = torch.randn(4, 2, 6, 6) * (step + 1)
        model(fb.linf_box(x, 0.5))
        twin(x)
        for ours, theirs in zip(model.buffers(), twin.buffers()):
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert model[1].num_batches_tracked.item() == 3


def test_batch_statistics_need_a_nominal_stream() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    box = fb.linf_box(torch.rand(5, 3), 0.1, nominal=False)
    with pytest.raises(ValueError, match=r"batch_norm in 1 \(BatchNorm1d\).*nominal=True.*model\.eval\(\)"):
        model(box)
    assert model.eval()(box).nominal is None
    bare = nn.BatchNorm1d(4, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="nominal=True"):
        bare(fb.linf_box(torch.rand(5, 4), 0.1, nominal=False))


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
@pytest.mark.parametrize("training", [True, False])
def test_a_norm_of_another_dtype_is_refused(dtypes: tuple[torch.dtype, torch.dtype], training: bool) -> None:
    """The compiled pass reads the memory of the layer in the dtype of the box."""
    layer = nn.BatchNorm1d(4).to(dtypes[1]).train(training)
    with pytest.raises(TypeError, match=r"batch_norm in the model \(BatchNorm1d\): the box is torch.float"):
        layer(fb.linf_box(torch.rand(3, 4, dtype=dtypes[0]), 0.1))


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1, 1), (1, 4, 3), (1, 4, 3, 2), (2, 4), (2, 4, 1, 1)], ids=str)
@pytest.mark.parametrize("synchronised", [False, True])
@pytest.mark.parametrize("converted", [False, True])
def test_one_value_per_channel_is_no_batch(shape: tuple[int, ...], synchronised: bool, converted: bool) -> None:
    """One value, not one sample: refused if and only if torch refuses it."""
    x = torch.rand(shape)
    kind = nn.SyncBatchNorm if synchronised else nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    plain, ours = nn.Sequential(kind(4), nn.ReLU()), nn.Sequential(kind(4), nn.ReLU())
    ours = fb.convert(ours) if converted else ours
    values = [x, fb.linf_box(x, 0.1), fb.singleprop(x, 0.1)]
    if x[:, 0].numel() == 1:
        for model, value in zip((plain, ours, ours), values):
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                model(value)
        assert all(b.isfinite().all() for b in ours.buffers())  # nothing was tracked
        return
    wanted, *nominals = plain(x), ours(values[1]).nominal, ours(values[2]).nominal
    for nominal in nominals:
        torch.testing.assert_close(nominal, wanted)


@pytest.mark.parametrize("activation", [F.relu, F.leaky_relu, torch.tanh, lambda x: x.flatten(1), lambda x: x + 1])
def test_a_norm_that_waits_is_the_same_as_one_that_does_not(activation: Callable[[Any], Any]) -> None:
    norm = nn.BatchNorm2d(3).double()
    norm.weight.data.normal_()
    x = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    out = activation(norm(fb.linf_box(x, 0.2)))
    made = norm(fb.linf_box(x, 0.2))
    assert made.radius.shape == x.shape  # read, so it waits no longer
    other = activation(made)
    for end in ("lower", "upper", "nominal"):
        assert torch.allclose(getattr(out, end), getattr(other, end), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grad", [True, False])
def test_two_readers_of_a_waiting_value(grad: bool) -> None:
    """Two activations after one BatchNorm; two layers after one flatten."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
            self.a, self.b = nn.Linear(48, 2), nn.Linear(48, 2)

        def forward(self, x: Any) -> Any:
            y = self.norm(self.conv(x))
            h = torch.flatten(F.relu(y) - F.leaky_relu(y, 0.5), 1)
            return self.a(h) + self.b(h) + self.a(torch.flatten(y, 1))

    model = Heads().double().eval()
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        out = fb.bound(model, fb.linf_box(x, 0.1), method="ibp")
    inside = torch.stack([model(x + 0.1 * (2 * torch.rand_like(x) - 1)) for _ in range(200)])
    assert (inside >= out.lower).all() and (inside <= out.upper).all()
    assert torch.allclose(out.nominal, model(x))


class Normed(nn.Module):
    """A BatchNorm of four channels, one of whose vectors is cut to a length."""

    def __init__(self, cut: str, length: int, training: bool) -> None:
        super().__init__()
        self.vectors = {name: torch.ones(4) for name in ("running_mean", "running_var", "weight", "bias")}
        self.vectors[cut] = torch.ones(length)
        self.how = training

    def forward(self, x: Any) -> Any:
        return F.batch_norm(x, **self.vectors, training=self.how)


@pytest.mark.parametrize("cut", ["running_mean", "running_var", "weight", "bias"])
@pytest.mark.parametrize("length", [1, 3, 5])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", ["ibp", "crown", "crown-ibp", "deepz", "singleprop"])
def test_vectors_of_another_length_are_refused(cut: str, length: int, training: bool, method: str) -> None:
    """As torch refuses them; one number is not broadcast, because the compiled pass reads four."""
    layer = Normed(cut, length, training)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    x = torch.rand(2, 3, 6, 6)
    with pytest.raises(RuntimeError):
        model(x)
    with pytest.raises(ValueError, match=rf"batch_norm in 1 \(Normed\): {cut}: wanted shape \(4,\), .* \({length},\)"):
        if method == "singleprop":
            model(fb.singleprop(x, 0.1))
        else:
            fb.bound(model, fb.linf_box(x, 0.1), method=method)


def test_a_norm_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_norm: input: wanted a batch of channels \[B, C, \*\], got \(4,\)"):
        F.batch_norm(fb.linf_box(torch.rand(4), 0.1), torch.zeros(4), torch.ones(4))
