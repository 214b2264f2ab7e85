"""Whole networks on a GPU: every method equals the CPU and contains what it must, processes, peak memory.

The same tests run on the CPU, where the comparison is with itself, so that what they do is known to work.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fastbound as fb
from fastbound import benchmark, models
from fastbound.benchmark import STEPS, Network
from fastbound.certify.modes import float32_products

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CLASSES, BATCH, EPS = 10, 4, 0.02

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: models.build("mlp", (3, 12, 12), CLASSES, hidden=(32, 32)),
    "dm-small": lambda: models.build("dm-small", (3, 12, 12), CLASSES),
    "cnn7": lambda: models.build("cnn7", (3, 12, 12), CLASSES, width=4),
    "wide-resnet": lambda: models.build("wide-resnet", (3, 12, 12), CLASSES, width=4),
}
# The CPU takes the small ones.
every_network = pytest.mark.parametrize(
    ("name", "device"),
    [("mlp", "cpu"), ("dm-small", "cpu"), *(pytest.param(name, "cuda", marks=pytest.mark.gpu) for name in NETWORKS)],
)
every_device = pytest.mark.parametrize("device", DEVICES)


def network(name: str, device: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, inputs [B, 3, 12, 12] and labels [B], the same numbers on every device."""
    torch.manual_seed(4)
    model = NETWORKS[name]()
    x = torch.rand(BATCH, 3, 12, 12)
    return model.to(device, dtype), x.to(device, dtype), (torch.arange(BATCH) % CLASSES).to(device)


def products_in(name: str) -> int:
    return sum(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in NETWORKS[name]().modules())


def lower_margins(model: nn.Module, x: Tensor, labels: Tensor, method: str) -> Tensor:
    spec = fb.margin_spec(labels, CLASSES)
    return fb.bound(model, fb.linf_box(x, EPS, 0.0, 1.0), method=method, spec=spec).lower


def fused(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    return fb.losses.fused_cross_entropy(model(fb.linf_box(x, EPS, 0.0, 1.0)), labels, 0.5)


def on(device: str, name: str, dtype: torch.dtype, method: str) -> tuple[Tensor, list[Tensor]]:
    """The bounds (or the fused loss, or the plain outputs) in training mode, and the gradients of all parameters."""
    model, x, labels = network(name, device, dtype)
    model.train(method != "crown")
    functions = {"fused": fused, "plain": lambda model, x, labels: model(x)}
    found = functions[method](model, x, labels) if method in functions else lower_margins(model, x, labels, method)
    found.sum().backward()
    return found.detach().cpu(), [p.grad.cpu() for p in model.parameters() if p.grad is not None]


@every_network
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "fused"])
def test_bounds_and_gradients_are_those_of_the_cpu(name: str, method: str, device: str) -> None:
    expected, gradients = on("cpu", name, torch.float64, method)
    found, found_gradients = on(device, name, torch.float64, method)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert len(found_gradients) == len(gradients) >= 4
    scale = max(float(g.abs().max()) for g in gradients)
    for one, other in zip(found_gradients, gradients):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9 * scale)


@every_network
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_lowered_products_cost_bounds_no_more_than_the_plain_model(name: str, precision: str, device: str) -> None:
    """On channels_last maps, which bf16 also stores in bfloat16. Errors are those against float64 on the CPU.

    Tensor cores cut operands off to TF32. In |W| r, whose terms are all positive, this adds up: by half a unit of the
    last place in each operand on average, over all layers in a row.
    """

    def errors(method: str) -> tuple[float, float]:
        wanted, gradients = on("cpu", name, torch.float64, method)
        with torch.autocast(device, torch.bfloat16) if precision == "bf16" else float32_products("tf32"):
            found, lowered = on(device, name, torch.float32, method)
        pair = [torch.cat([g.flatten().double() for g in grads]) for grads in (gradients, lowered)]
        return float((found - wanted).norm() / wanted.norm()), float((pair[1] - pair[0]).norm() / pair[0].norm())

    unit, layers = (2.0**-8, 0) if precision == "bf16" else (2.0**-11, products_in(name))
    plain, plain_gradient = errors("plain")
    for method in ("ibp", "crown-ibp", "fused"):
        bound, gradient = errors(method)
        cut_off = 2 * layers * unit
        assert bound < 3 * plain + unit + cut_off and gradient < 3 * plain_gradient + 10 * unit + cut_off, method


@every_network
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown"])
def test_bounds_contain_corners_and_samples(name: str, method: str, device: str) -> None:
    model, x, labels = network(name, device, torch.float32)
    model.eval()
    spec = fb.margin_spec(labels, CLASSES)
    with torch.no_grad():
        low, high = (x - EPS).clamp(0, 1), (x + EPS).clamp(0, 1)
        lower = lower_margins(model, x, labels, method)
        upper = -lower_margins_of_negated(model, x, spec, method)
        slack = 1e-4 * (upper - lower).amax()
        for draw in range(40):
            share = torch.rand_like(x) if draw % 2 else torch.rand_like(x).round()
            margins = torch.einsum("bsk,bk->bs", spec, model(low + share * (high - low)))
            assert (margins >= lower - slack).all() and (margins <= upper + slack).all()
    assert (upper > lower).all()


def lower_margins_of_negated(model: nn.Module, x: Tensor, spec: Tensor, method: str) -> Tensor:
    return fb.bound(model, fb.linf_box(x, EPS, 0.0, 1.0), method=method, spec=-spec).lower


@every_device
def test_certification_is_ieee_whatever_the_flags_say(device: str) -> None:
    """TF32 for every product must not reach a certificate."""
    model, x, labels = network("cnn7", device, torch.float32)
    plain = fb.certify(model, [(x, labels)], EPS)
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32"
        fast = fb.certify(model, [(x, labels)], EPS)
    finally:
        for switch, value in zip(switches, before):
            switch.fp32_precision = value
    assert torch.equal(plain.margins, fast.margins)


@every_device
def test_data_parallel_gradients_on_one_device(device: str, tmp_path: Path) -> None:
    """NCCL on one card: a group of one process, whose gradients go through its buckets and back."""
    backend = "nccl" if device == "cuda" else "gloo"
    if not dist.is_available() or not dist.is_backend_available(backend):
        pytest.skip(f"torch without {backend}")
    model, x, labels = network("cnn7", device, torch.float32)
    fused(model, x, labels).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, x, labels = network("cnn7", device, torch.float32)
        fused(DistributedDataParallel(model), x, labels).backward()
    finally:
        dist.destroy_process_group()
    scale = max(float(g.abs().max()) for g in expected)
    for parameter, gradient in zip(model.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.gpu
def test_peak_memory_of_a_crown_ibp_step() -> None:
    """At most five times the natural step's, above the loaded model (CNN-7 of width 64, batch 64)."""
    peaks = {}
    for step in ("natural", "ibp", "crown-ibp"):
        sample = Network("cnn7", (3, 32, 32), 64, {"width": 64}).sample("cuda")
        STEPS[step](*sample)
        sample[0].zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        STEPS[step](*sample)
        peaks[step] = torch.cuda.max_memory_allocated() - before
    assert peaks["natural"] < peaks["ibp"] and peaks["crown-ibp"] <= 5 * peaks["natural"], peaks


@pytest.mark.gpu
def test_steps_run_on_every_network_of_the_performance_page() -> None:
    for name, entry in benchmark.NETWORKS.items():
        for step in STEPS:
            model, x, labels = entry.sample("cuda")
            STEPS[step](model, x, labels)
            assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None), (name, step)
