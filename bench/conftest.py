"""Shared by all benchmarks: a process that keeps its memory, the machine in the record, a timer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastbound import keep_freed_memory
from fastbound.benchmark import machine


def pytest_configure() -> None:
    keep_freed_memory()
    torch.manual_seed(0)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["fastbound"] = machine()


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., None]:
    """``measure(group, function, *args)``: times warm rounds of ``function(*args)``, in the table ``group``."""

    def run(group: str, function: Callable[..., Any], *args: Any) -> None:
        benchmark.group = group
        benchmark.extra_info["threads"] = torch.get_num_threads()
        benchmark.pedantic(function, args=args, rounds=15, warmup_rounds=3)

    return run
