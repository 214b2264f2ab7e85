"""Autocast and torch's precision flags: what they lower in training, and that certificates ignore them."""

import json
from operator import attrgetter

import pytest
import torch
from torch import nn

import fastbound as fb
from fastbound import losses
from fastbound.certify.modes import float32_products, set_float32_products
from fastbound.domains.tape import Node
from fastbound.train import train
from fastbound.train.precision import TrainingPrecision
from fastbound.train.regularisers import warmup_regularisers, with_moments

BF16 = 2.0**-8  # relative error of rounding to bfloat16
LAYERS = {
    "linear": (nn.Linear(12, 5), (4, 12)),
    "conv1d": (nn.Conv1d(3, 5, 3), (4, 3, 9)),
    "conv2d": (nn.Conv2d(3, 5, 3, padding=1), (4, 3, 7, 7)),
    "conv3d": (nn.Conv3d(2, 3, 2), (4, 2, 4, 4, 4)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3, stride=2), (4, 3, 5, 5)),
}


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(16 * 16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)),
    )


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(8, 1, 13, 13, generator=generator), torch.randint(10, (8,), generator=generator)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", LAYERS)
def test_products_are_lowered_and_streams_stay_float32(name, backend):
    layer, shape = LAYERS[name]
    box = fb.linf_box(torch.randn(shape), 0.1)
    with fb.use_backend(backend):
        full = layer(box)
        with autocast():
            low = layer(box)
    magnitudes = _with_absolute_weights(layer, box.center.abs() + box.radius)
    for stream in ("nominal", "center", "radius"):
        a, b = getattr(full, stream).detach(), getattr(low, stream).detach()
        assert b.dtype == torch.float32
        assert not torch.equal(a, b), "the product was not lowered"
        # Two rounded operands a term, and one rounded result.
        assert ((a - b).abs() <= 3 * BF16 * magnitudes).all()


def _with_absolute_weights(layer, x):
    """The layer at x with the absolute values of its weights: the magnitudes of the terms of its sums."""
    return torch.func.functional_call(layer, {name: p.abs() for name, p in layer.named_parameters()}, x)


def test_the_streams_of_an_interval_round_like_the_plain_model():
    model, (x, _) = network().eval(), batch()
    with autocast():
        out, plain = model(fb.linf_box(x, 0.0)), model(x)
    torch.testing.assert_close(out.nominal, plain.float(), rtol=0.05, atol=0.05)


def test_gradients_of_the_nominal_stream_are_those_of_the_plain_model():
    model, (x, labels) = network(), batch()
    grads = []
    for make in (lambda: model(x), lambda: model(fb.linf_box(x, 0.02)).nominal):
        model.zero_grad()
        with autocast():
            nn.functional.cross_entropy(make(), labels).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (grads[1] - grads[0]).norm() < BF16 * grads[0].norm()


LOSSES = {
    "ibp": lambda out, y: losses.robust_cross_entropy(fb.bound(out, spec=fb.margin_spec(y, 10))),
    "dense spec": lambda out, y: losses.robust_cross_entropy(fb.bound(out, spec=fb.margin_spec(y, 10).clone())),
    "crown-ibp": lambda out, y: losses.robust_cross_entropy(
        fb.bound(out, method="crown-ibp", spec=fb.margin_spec(y, 10))
    ),
    "fused": lambda out, y: losses.fused_cross_entropy(out, y, 0.5),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_follow_those_of_float32(name):
    model, (x, labels) = network(), batch()

    def loss():
        model.zero_grad()
        return LOSSES[name](model(fb.linf_box(x, 0.02)), labels)

    full = loss()
    full.backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    with autocast():
        low = loss()
    low.backward()
    assert low.dtype == torch.float32 and abs(low - full) < 0.05 * abs(full)
    scale = torch.cat([g.flatten() for g in wanted]).norm()
    difference = torch.cat([(p.grad - g).flatten() for p, g in zip(model.parameters(), wanted)]).norm()
    assert 0 < difference < 0.1 * scale
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_specifications_and_margins_are_not_lowered():
    """Products that add up a bound stay float32: on an output made outside autocast, autocast changes nothing."""
    model, (x, labels) = network().eval(), batch()
    out = model(fb.linf_box(x, 0.02))
    for spec in (fb.margin_spec(labels, 10), torch.randn(8, 3, 10)):
        plain = fb.bound(out, spec=spec)
        with autocast():
            inside = fb.bound(out, spec=spec)
            assert torch.equal(inside.lower, plain.lower) and torch.equal(inside.nominal, plain.nominal)


class Mixed(nn.Module):
    """Maps that are read by more than one kind of function between two products."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 6 * 6, 10)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = (self.second(x) + x).tanh()  # a sum, a smooth function
        x = nn.functional.max_pool2d(self.second(x), 2)  # a maximum directly after a product
        return self.last(self.norm(x).flatten(1))  # a BatchNorm without a ReLU, rows


def both(make, model, x, labels):
    """Loss and gradients, in float32 and inside autocast."""
    results = []
    for low in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = make(model, x, labels)
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    return results


MAKERS = {
    "ibp": lambda model, x, y: losses.robust_cross_entropy(
        fb.bound(model(fb.linf_box(x, 0.02)), spec=fb.margin_spec(y, 10))
    ),
    "crown-ibp": lambda model, x, y: losses.robust_cross_entropy(
        fb.bound(model(fb.linf_box(x, 0.02)), method="crown-ibp", spec=fb.margin_spec(y, 10))
    ),
    "moments": lambda model, x, y: sum(warmup_regularisers(model(with_moments(fb.linf_box(x, 0.02))))),
    "singleprop": lambda model, x, y: losses.singleprop_cross_entropy(model(fb.singleprop(x, 0.02)), y),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_every_reader_of_a_stored_map_gets_the_numbers_of_float32(name, backend):
    torch.manual_seed(0)
    model = network() if name == "singleprop" else Mixed()
    x, labels = batch()
    x = x if name == "singleprop" else x[:, :, :12, :12]
    with fb.use_backend(backend):
        (full, wanted), (low, found) = both(MAKERS[name], model, x, labels)
    assert 0 < (low - full).abs() < 0.05 * full.abs()
    wanted, found = (torch.cat([g.flatten() for g in grads]) for grads in (wanted, found))
    assert 0 < (found - wanted).norm() < 0.15 * wanted.norm()


def test_maps_between_products_are_stored_in_bfloat16_and_read_in_float32():
    model, (x, _) = network(), batch()
    seen = []
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.ReLU | nn.Flatten):  # a BatchNorm is part of its ReLU
            layer.register_forward_hook(lambda layer, inputs, out: seen.append(out))
    with autocast():
        model(fb.linf_box(x, 0.02))
    for out in seen:
        assert out.dtype == torch.float32
        assert all(t.dtype == torch.bfloat16 for t in out.node.stored)
        assert all(t.dtype == torch.float32 for t in (*out.node.streams, *out.node.box, out.lower, out.nominal))
        assert torch.equal(out.radius, out.node.stored[1].float())


@pytest.mark.parametrize("lower", [torch.float16, torch.bfloat16])
def test_after_autocast_everything_is_float32_again(lower):
    """Inside it, too, maps are float32 if no code here stores them in the lower type: float16 on a CPU."""
    layer, (x, _) = nn.Conv2d(1, 8, 3), batch()
    with torch.autocast("cpu", lower):
        low = layer(fb.linf_box(x, 0.02))
        inside = low.relu()
    outside = low.relu()
    assert low.node.stored[0].dtype == lower and outside.node.stored[0].dtype == torch.float32
    assert (inside.node.stored[0].dtype == torch.float32) == (lower == torch.float16)
    torch.testing.assert_close(inside.center, outside.center, rtol=BF16, atol=1e-30)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("norm", [False, True])
def test_reading_without_gradients_takes_none_away(mode, norm):
    layer, (x, _) = nn.Sequential(nn.Conv2d(1, 8, 3), *([nn.BatchNorm2d(8)] if norm else [])), batch()
    with autocast():
        out = layer(fb.linf_box(x, 0.02))
        with mode():
            assert out.center.abs().sum() > 0
        (out.lower.square().sum() + nn.functional.max_pool2d(out, 2).nominal.square().sum()).backward()
    assert layer[0].weight.grad.abs().sum() > 0


def test_a_hook_that_reads_changes_nothing():
    """Also of a BatchNorm, which would otherwise be made for the hook, rounded, and read by the ReLU."""
    (x, labels), results, seen = batch(), [], []
    for reads in (False, True):
        model = network()
        for layer in model if reads else ():
            layer.register_forward_hook(lambda layer, inputs, out: seen.append(out.lower.sum() + out.nominal.sum()))
        with autocast():
            bounds = fb.bound(model(fb.linf_box(x, 0.02)), spec=fb.margin_spec(labels, 10))
            loss = losses.robust_cross_entropy(bounds)
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize("name", ["ibp", "moments", "singleprop"])
def test_a_step_converts_no_map_between_product_and_relu(name, monkeypatch):
    read, streams = [], Node.streams.fget

    def spy(node):
        if node.stored[1].dtype != node.dtype:
            read.append(node.shape)
        return streams(node)

    monkeypatch.setattr(Node, "streams", property(spy))
    model, (x, labels) = network(), batch()
    with autocast():
        loss = MAKERS[name](model, x, labels)
    loss.backward()
    # The rows after the last layers are read by the margins.
    assert all(len(shape) == 2 for shape in read), read


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_weights_add_up_in_float32(name, backend):
    """Center and radius each give one in bfloat16; their sum, as an optimiser reads it, keeps more digits."""
    layer, shape = LAYERS[name]
    grads = []
    x = 0.1 * torch.randn(shape)
    for low in (False, True):
        layer.zero_grad()
        with fb.use_backend(backend if low else "reference"), torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = layer(fb.linf_box(x, 1.0))  # wide: the sign of W decides the gradient
        (out.lower.square().sum() + out.nominal.square().sum()).backward()
        grads.append(layer.weight.grad.clone())
    full, found = grads
    assert found.dtype == torch.float32 and not torch.equal(found, found.bfloat16().float())
    assert 0 < (found - full).norm() < 4 * BF16 * full.norm()


def test_parameters_wider_than_maps_need_maps_of_half_precision():
    stack, radius, weight = torch.randn(2, 3, 4), torch.rand(3, 4), torch.randn(5, 4, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"interval_linear: wanted one dtype, got torch\.float32 and torch\.float64"):
        fb.ops.interval_linear(stack, radius, weight)
    low, wide = fb.ops.interval_linear(stack.bfloat16(), radius.bfloat16(), weight.float())
    assert low.dtype == wide.dtype == torch.bfloat16


def test_singleprop_is_lowered_too():
    model, (x, labels) = network(), batch()
    full = losses.singleprop_cross_entropy(model(fb.singleprop(x, 0.02)), labels)
    with autocast():
        low = losses.singleprop_cross_entropy(model(fb.singleprop(x, 0.02)), labels)
    low.backward()
    assert 0 < abs(low - full) < 0.05 * abs(full)


def test_float64_is_left_alone():
    model, (x, labels) = network().double().eval(), batch()

    def margins():
        return fb.bound(model(fb.linf_box(x.double(), 0.02)), spec=fb.margin_spec(labels, 10)).lower

    with autocast():
        inside = margins()
    assert torch.equal(inside, margins())


SWITCHES = [
    *("backends.fp32_precision", "backends.cuda.matmul.fp32_precision"),
    *(f"backends.cudnn{part}.fp32_precision" for part in ("", ".conv", ".rnn")),
    *(f"backends.mkldnn{part}.fp32_precision" for part in ("", ".matmul", ".conv", ".rnn")),
]


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_test_starts_with_ieee_products(switch):
    assert attrgetter(switch)(torch) == "ieee"


@pytest.mark.parametrize("switch", SWITCHES)
def test_one_call_sets_every_switch(switch):
    owner, name = switch.rsplit(".", 1)
    setattr(attrgetter(owner)(torch), name, "tf32")
    set_float32_products("ieee")
    assert {attrgetter(switch)(torch) for switch in SWITCHES} == {"ieee"}


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown"])
def test_a_certificate_is_ieee_float32_with_every_flag_on(method):
    model, data = network(), [batch()]
    plain = fb.certify(model, data, 0.02, method)
    with float32_products("tf32"), autocast():
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        torch.backends.mkldnn.conv.fp32_precision = "bf16"
        turned_on = fb.certify(model, data, 0.02, method)
        assert torch.backends.mkldnn.conv.fp32_precision == "bf16"
    assert torch.equal(plain.margins, turned_on.margins)
    assert "ieee" in turned_on.precision


def test_a_run_names_both_precisions(tmp_path):
    report = train(
        tmp_path / "run",
        {"method": "ibp", "eps": 0.05, "precision": "bf16", "limit": 256, "test_limit": 64, "pgd_steps": 0},
        {"epochs": 1},
        quiet=True,
    )
    assert "autocast to torch.bfloat16" in report["training_precision"]
    assert report["precision"].startswith("float32 (ieee)")
    environment = json.loads((tmp_path / "run/config.json").read_text())["environment"]
    assert environment["training_precision"] == report["training_precision"]


def test_bad_precisions_are_named():
    cpu = torch.device("cpu")
    with pytest.raises(ValueError, match="precision: wanted default, ieee, tf32, bf16, got 'fp8'"):
        TrainingPrecision("fp8", cpu)
    with pytest.raises(ValueError, match="a CPU has no TF32"):
        TrainingPrecision("tf32", cpu)
