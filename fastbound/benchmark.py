"""Whole training steps, timed against the natural step of the same network and batch in the same run.

A step is forward, bounds, loss and backward, with gradients set to None before it and without an optimiser. The natural
step is the user's ordinary one: eager, cross-entropy, default layout. Variants take turns, so that a slow moment hits
all of them; the reported time is the median.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastbound import losses, models
from fastbound.bounds import bound
from fastbound.certify.modes import training_precision
from fastbound.choices import MEASURED, STEPS
from fastbound.domains.interval import Interval
from fastbound.domains.interval.box import linf_box
from fastbound.domains.singleprop import singleprop
from fastbound.spec import margin_spec
from fastbound.train.regularisers import warmup_regularisers, with_moments


@dataclass(frozen=True)
class Network:
    """A network to measure, with its input shape and batch."""

    model: str
    input_shape: tuple[int, ...]
    batch: int
    options: dict[str, Any] = field(default_factory=dict)
    classes: int = 10

    def sample(self, device: torch.device | str = "cpu") -> tuple[nn.Module, Tensor, Tensor]:
        """The model in training mode, inputs [B, ...] in [0, 1] and labels [B], with a fixed seed."""
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        model = models.build(self.model, self.input_shape, self.classes, **self.options).to(device)
        x = torch.rand(self.batch, *self.input_shape, generator=generator)
        return model, x.to(device), torch.randint(self.classes, (self.batch,), generator=generator).to(device)


NETWORKS = {name: Network(*entry) for name, entry in MEASURED.items()}

EPS = 2 / 255


def natural_step(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(x), labels).backward()


def _bounded_step(model: nn.Module, x: Tensor, labels: Tensor, robust: Callable[[Interval, Tensor], Tensor]) -> None:
    model.zero_grad(set_to_none=True)
    _bounded_loss(model, x, labels, robust).backward()


def _bounded_loss(model: nn.Module, x: Tensor, labels: Tensor, robust: Callable[[Interval, Tensor], Tensor]) -> Tensor:
    out = model(linf_box(x, EPS, 0.0, 1.0))
    return 0.5 * F.cross_entropy(out.nominal, labels) + 0.5 * robust(out, labels)


def ibp_step(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """Nominal stream, cross-entropy on it, robust cross-entropy on the elided margins."""
    _bounded_step(model, x, labels, lambda out, y: _robust(out, y, "ibp"))


def ibp_bf16_step(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """As `ibp_step`, under autocast to bfloat16."""
    model.zero_grad(set_to_none=True)
    with torch.autocast(x.device.type, torch.bfloat16):
        loss = _bounded_loss(model, x, labels, lambda out, y: _robust(out, y, "ibp"))
    loss.backward()


def short_warmup_step(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """As `ibp_step`, with the regularisers of short warm-up."""
    model.zero_grad(set_to_none=True)
    out = model(with_moments(linf_box(x, EPS, 0.0, 1.0)))
    tightness, balance = warmup_regularisers(out)
    bounded = 0.5 * F.cross_entropy(out.nominal, labels) + 0.5 * _robust(out, labels, "ibp")
    (bounded + 0.25 * (tightness + balance)).backward()


def crown_ibp_step(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """As `ibp_step` with one backward pass of K - 1 rows for the margins."""
    _bounded_step(model, x, labels, lambda out, y: _robust(out, y, "crown-ibp"))


def fused_step(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """As `crown_ibp_step` with loss fusion: one backward row a sample, half CROWN and half IBP."""
    _bounded_step(model, x, labels, lambda out, y: losses.fused_cross_entropy(out, y, 0.5))


def singleprop_step(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """Clean activations and one radius, cross-entropy on both."""
    model.zero_grad(set_to_none=True)
    out = model(singleprop(x, EPS))
    (0.5 * F.cross_entropy(out.nominal, labels) + 0.5 * losses.singleprop_cross_entropy(out, labels)).backward()


def _robust(out: Interval, labels: Tensor, method: str) -> Tensor:
    return losses.robust_cross_entropy(bound(out, method=method, spec=margin_spec(labels, out.shape[1])))


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one variant on one network, and their multiple of the natural step's median."""

    network: str
    batch: int
    variant: str
    median_ms: float
    low_ms: float
    high_ms: float
    rounds: int
    multiple: float


def measure(
    networks: Iterable[str] = tuple(NETWORKS),
    variants: Iterable[str] = tuple(STEPS),
    *,
    rounds: int = 20,
    warmup: int = 3,
    device: torch.device | str = "cpu",
) -> tuple[list[Timing], dict[str, str]]:
    """Times the steps. Returns the timings and, for each variant that could not run, the reason.

    Raises ValueError for an unknown network or variant, or fewer than one round.
    """
    names, steps = _known(networks, NETWORKS, "network"), _known(variants, STEPS, "variant")
    if rounds < 1:
        raise ValueError(f"rounds: wanted at least 1, got {rounds}.")
    timings: list[Timing] = []
    missing: dict[str, str] = {}
    for name in names:
        runnable = {}
        sample = NETWORKS[name].sample(device)
        for variant in dict.fromkeys(["natural", *steps]):
            try:
                STEPS[variant](*sample)
                runnable[variant] = STEPS[variant]
            except (NotImplementedError, AttributeError) as problem:
                missing[variant] = str(problem)
        timings += _interleaved(name, runnable, sample, rounds, warmup, torch.device(device))
    return timings, missing


def _known(names: Iterable[str], table: Mapping[str, object], what: str) -> list[str]:
    names = list(names)
    for name in names:
        if name not in table:
            raise ValueError(f"{what}: there is no {name!r} to measure; known: {', '.join(table)}.")
    return names


def _interleaved(
    network: str, steps: dict[str, Callable], sample: tuple, rounds: int, warmup: int, device: torch.device
) -> list[Timing]:
    seconds: dict[str, list[float]] = {variant: [] for variant in steps}
    for turn in range(warmup + rounds):
        for variant, step in steps.items():
            _synchronise(device)
            start = time.perf_counter()
            step(*sample)
            _synchronise(device)
            if turn >= warmup:
                seconds[variant].append(time.perf_counter() - start)
    natural = statistics.median(seconds["natural"])
    return [_timing(network, variant, times, natural) for variant, times in seconds.items()]


def _timing(network: str, variant: str, times: list[float], natural: float) -> Timing:
    times = sorted(times)
    median = statistics.median(times)
    low, high = times[len(times) // 5], times[-1 - len(times) // 5]
    return Timing(
        network=network,
        batch=NETWORKS[network].batch,
        variant=variant,
        median_ms=round(1e3 * median, 4),
        low_ms=round(1e3 * low, 4),
        high_ms=round(1e3 * high, 4),
        rounds=len(times),
        multiple=round(median / natural, 3),
    )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device | str = "cpu") -> dict[str, object]:
    """The conditions of a measurement: processor, threads, versions, precision."""
    content: dict[str, object] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "precision": training_precision(device),
    }
    if torch.device(device).type == "cuda":
        content["gpu"] = torch.cuda.get_device_name(device)
    return content


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_data(timings: Sequence[Timing], missing: dict[str, str], device: torch.device | str) -> dict[str, object]:
    """The measurement as JSON-compatible data."""
    return {"machine": machine(device), "steps": [asdict(timing) for timing in timings], "not_available": missing}
