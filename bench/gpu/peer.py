"""The same steps by auto_LiRPA, if it is installed. It is not a dependency of fastbound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.compare_auto_lirpa import Theirs
from fastbound.benchmark import EPS
from fastbound.spec import margin_spec

METHODS = {"ibp": "IBP", "crown-ibp": "CROWN-IBP"}


def steps(model: nn.Module, x: Tensor, not_available: dict[str, str]) -> dict[str, Callable[..., Any]]:
    """Steps like those of `fastbound.benchmark.STEPS`, for `model` at x [B, ...], or a reason in `not_available`."""
    try:
        theirs = Theirs(model, x, EPS)
    except ImportError as problem:
        not_available["auto_LiRPA"] = str(problem)
        return {}

    def step(method: str) -> Callable[..., None]:
        def run(model: nn.Module, x: Tensor, labels: Tensor) -> None:
            theirs.model.zero_grad(set_to_none=True)
            clean = F.cross_entropy(theirs.model(x), labels)
            lower, _ = theirs.margins(margin_spec(labels, 10), METHODS[method])
            robust = torch.logsumexp(F.pad(-lower, (1, 0)), 1).mean()
            (0.5 * clean + 0.5 * robust).backward()

        return run

    return {method: step(method) for method in METHODS}
