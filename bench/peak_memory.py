"""Peak memory of whole steps above the loaded model: ``python -m bench.peak_memory``. One process per figure."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from fastbound import benchmark
from fastbound.benchmark import STEPS, Network

NETWORKS = {
    **benchmark.NETWORKS,
    "cnn7-width16, 200 classes": Network("cnn7", (3, 32, 32), 32, {"width": 16}, classes=200),
}


def _resident_kib() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def _peak_of(network: str, variant: str) -> float:
    """MiB that two steps of ``variant`` need at their peak, beyond the model and its inputs."""
    sample = NETWORKS[network].sample()
    before = _resident_kib()
    for _ in range(2):
        STEPS[variant](*sample)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def _in_own_process(network: str, variant: str) -> float:
    command = [sys.executable, "-m", "bench.peak_memory", network, variant]
    # glibc's threshold for blocks of their own rises as it runs; fixed, a freed block leaves the process at once, and
    # the figure is what the step holds rather than how the heap was cut up.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    if len(sys.argv) == 3:
        print(_peak_of(sys.argv[1], sys.argv[2]))
        return
    table = Table("network", "step", "peak MiB", "x natural")
    for network in NETWORKS:
        natural = _in_own_process(network, "natural")
        for variant in STEPS:
            peak = natural if variant == "natural" else _in_own_process(network, variant)
            table.add_row(network, variant, f"{peak:.0f}", f"{peak / natural:.2f}")
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
