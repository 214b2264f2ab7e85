"""fastbound bench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fastbound.choices import MEASURED, STEPS
from fastbound.cli.values import Device, Threads, find_place, set_threads
from fastbound.memory import keep_freed_memory


def bench(
    network: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(MEASURED)}; all by default.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(STEPS)}; all by default.")] = None,
    rounds: Annotated[int, typer.Option(help="Measured rounds; every round takes each step once.")] = 20,
    device: Device = None,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file for the figures and the description of the machine.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")] = False,
) -> None:
    """Measure whole training steps as multiples of the natural step."""
    from fastbound import benchmark
    from fastbound.certify.report import write_json

    set_threads(threads)
    keep_freed_memory()
    if out is not None and out.exists() and not overwrite:
        raise ValueError(f"out: {out} exists already; name another file, or replace it with --overwrite.")
    place = find_place(device)
    timings, missing = benchmark.measure(network or benchmark.NETWORKS, variant or STEPS, rounds=rounds, device=place)
    title = _machine_line(benchmark.machine(place))
    table = Table("network", "batch", "step", "median ms", "20% to 80%", "x natural", title=title)
    for timing in timings:
        spread = f"{timing.low_ms:.1f} to {timing.high_ms:.1f}"
        row = (
            timing.network,
            str(timing.batch),
            timing.variant,
            f"{timing.median_ms:.2f}",
            spread,
            f"{timing.multiple:.2f}",
        )
        table.add_row(*row, end_section=timing.variant == list(STEPS)[-1])
    Console().print(table)
    for name, reason in missing.items():
        print(f"{name}: not available ({reason})")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, benchmark.as_data(timings, missing, place))


def _machine_line(machine: Mapping[str, object]) -> str:
    return f"{machine.get('gpu', machine['processor'])}, {machine['threads']} threads, {machine['precision']}"
