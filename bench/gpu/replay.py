"""The kernels of one call of a step, by torch's profiler; for a captured step, those of one replay."""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.timing import Work, synchronize

LONGEST_NAME = 100


def kernels_of(call: Work, device: torch.device) -> list[dict[str, Any]]:
    """A row for each kernel (on a CPU: operator), the most expensive first: launches, microseconds, share of the sum.

    `call` must be warm. The profiler slows down the host, not the kernels.
    """
    on_gpu = device.type == "cuda"
    call()
    synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as found:
        call()
        synchronize(device)
    rows = []
    for event in found.key_averages():
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if microseconds > 0 and (not on_gpu or event.device_type != torch.autograd.DeviceType.CPU):
            rows.append({"kernel": event.key[:LONGEST_NAME], "launches": event.count, "us": float(microseconds)})
    if not rows:
        raise RuntimeError("the profiler saw no kernel")
    total = sum(row["us"] for row in rows)
    return sorted(({**row, "share": row["us"] / total} for row in rows), key=lambda row: -row["us"])
