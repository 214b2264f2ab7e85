"""Checks that the outputs of a model stay within its bounds; also for what recipes add in a copy of the tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from zoo import Call

import fastbound as fb
from fastbound.domains import rules

WIDTHS = (0.01, 0.3, 2.0)
SLACK = 1e-12  # of float64, far above the rounding of these small networks


def networks(function: Callable[[Tensor], Tensor]) -> list[tuple[nn.Module, Tensor]]:
    """The function alone and in a network, each with inputs [B, I] in float64."""
    torch.manual_seed(0)
    f = Call(function)
    deep = nn.Sequential(nn.Linear(3, 8), f, nn.Linear(8, 8), f, nn.Linear(8, 2)).double()
    line = torch.linspace(-4, 4, 33, dtype=torch.float64).unsqueeze(1)
    return [(f, line), (deep, torch.randn(5, 3, dtype=torch.float64))]


def steps(x: Tensor, eps: float) -> Tensor:  # [B, *S] -> [P, B, *S]
    """Ways within eps: along the diagonals, to the corners, and anywhere."""
    along = torch.linspace(-1, 1, 101, dtype=x.dtype).view(-1, *(1,) * x.dim()) * torch.ones_like(x)
    anywhere = torch.rand(200, *x.shape, dtype=x.dtype) * 2 - 1
    return eps * torch.cat((along, anywhere.sign(), anywhere))


@torch.no_grad()
def outputs(model: nn.Module, inputs: Tensor) -> Tensor:  # [P, B, *S] -> [P, B, *T]
    return model(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])


@torch.no_grad()
def assert_within(bounds: fb.Interval, model: nn.Module, x: Tensor, eps: float) -> None:  # x [B, *S]
    """Points within eps of x stay within the bounds [B, *T]."""
    values, slack = outputs(model, x + steps(x, eps)), SLACK * (1 + bounds.radius.max())
    outside = torch.maximum(bounds.lower - values, values - bounds.upper).max()
    assert outside <= slack, f"{float(outside):.3g} outside the bounds at eps {eps}"


def assert_no_further(constant: float, model: nn.Module, x: Tensor, eps: float) -> None:  # x [B, I]
    """Points within eps of x move by at most the constant times their distance."""
    ways = steps(x, eps)
    moved = (outputs(model, x + ways) - outputs(model, x.unsqueeze(0))).norm(dim=-1)
    assert (moved <= constant * ways.norm(dim=-1) * (1 + 1e-9) + SLACK).all(), f"moved beyond {constant} times"


def by_lipschitz(model: nn.Module, x: Tensor, eps: float) -> None:
    assert_no_further(model(fb.lipschitz(x)).certified_constant(), model, x, eps)


def by_bounds(**how: Any) -> Callable[[nn.Module, Tensor, float], None]:
    def check(model: nn.Module, x: Tensor, eps: float) -> None:
        assert_within(fb.bound(model, fb.linf_box(x, eps), **how), model, x, eps)

    return check


CHECKS = {
    "interval": by_bounds(method="ibp"),
    "zonotope": by_bounds(method="deepz"),
    "crown": by_bounds(method="crown"),
    "lipschitz": by_lipschitz,
}


def entries() -> dict[str, Callable[..., Any]]:
    """The torch functions that have an entry, by name."""
    return {rules.function_name(function): function for function in rules.ENTRIES}


def check(function: Callable[[Tensor], Tensor], *domains: str) -> None:
    """Raise AssertionError if an element-wise function, by default any of them, leaves its bounds in a domain."""
    for domain in domains or CHECKS:
        for model, x in networks(function):
            for eps in WIDTHS:
                CHECKS[domain](model, x, eps)
