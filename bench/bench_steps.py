"""Whole training steps on the networks of the performance page, against the natural step of the same network."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastbound.benchmark import NETWORKS, STEPS


@pytest.mark.parametrize("variant", STEPS)
@pytest.mark.parametrize("network", NETWORKS)
def test_step(measure: Callable[..., None], network: str, variant: str) -> None:
    measure(f"step of {network}", STEPS[variant], *NETWORKS[network].sample())
