"""Every kernel against its floor: bytes at the speed of a large copy, operations at the rate of a large product.

Both ceilings are measured at the beginning of the same run. Times are medians of events around single calls, on random
data larger than the cache; they exclude the work of the host.
"""

from __future__ import annotations

import statistics
import sys
from types import ModuleType
from typing import Any

import torch

import fastbound as fb
from bench.gpu import ceilings
from bench.gpu.case import Case, Maker, Sizes
from bench.gpu.cases import cases
from bench.gpu.record import Record, first_line, parser
from bench.gpu.timing import time_kernel
from fastbound import backends
from fastbound.errors import BackendError

COLUMNS = ("kernel", "case", "precision", "backend", "ms", "GB/s", "TFLOP/s", "share of ceiling")


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__, seconds=480)
    options.add_argument("--rounds", type=int, default=50)
    chosen = options.parse_args(arguments)
    record = Record("kernels", chosen)
    with record.interruptible():
        record.content["ceilings"] = ceilings.measure(record.device, chosen.small)
        sizes = Sizes.small() if chosen.small else Sizes.full(record.content["ceilings"]["l2_bytes"])
        known = cases(sizes)
        for stem in set(backends.primitives()) - {case.stem for case in known}:
            if record.wants(stem):
                record.not_available[stem] = "bench/gpu/cases.py has no case for it"
        for case in known:
            for precision in ceilings.PRECISIONS if case.products else ("ieee", "bf16"):
                _measure(record, case, precision, chosen.rounds)
    shares = {f"{row['kernel']}, {row['case']}": row["share of ceiling"] for row in record.rows}
    if shares:
        worst = min(shares, key=lambda name: shares[name])
        middle = statistics.median(shares.values())
        record.headline = f"share of the ceiling: median {middle:.2f}, lowest {shares[worst]:.2f} ({worst})"
    return record.finish(COLUMNS)


def _measure(record: Record, case: Case, precision: str, rounds: int) -> None:
    with ceilings.products_in(precision) as dtype:
        for backend in backends.PACKAGES:
            name = f"{case.stem}, {case.name}, {precision}, {backend}"
            if not record.wants(name):
                continue
            code = _module(record, case.stem, backend, dtype)
            if code is None or not record.has_time(name):
                continue
            try:
                record.rows.append(_row(record, case, precision, backend, code, rounds))
            except torch.OutOfMemoryError as problem:
                record.not_available[name] = first_line(problem)
            except Exception as problem:  # the other kernels are still worth measuring
                record.fail(name, problem)


def _module(record: Record, stem: str, backend: str, dtype: torch.dtype) -> ModuleType | None:
    try:
        with fb.use_backend(backend):
            return backends.find(stem, torch.empty(0, device=record.device, dtype=dtype))
    except BackendError as reason:
        record.not_available[f"{stem}, {backend}, {dtype}"] = str(reason)
        return None


def _row(record: Record, case: Case, precision: str, backend: str, code: ModuleType, rounds: int) -> dict[str, Any]:
    maker = Maker(record.device, torch.bfloat16 if precision == "bf16" else torch.float32)
    sets = [case.make(maker) for _ in range(2)]
    moved = case.bytes_moved(sets[0], case.run(code, sets[0]))
    found = time_kernel([lambda t=t: case.run(code, t) for t in sets], record.device, rounds)
    seconds = 1e-3 * found.median_ms
    limits = record.content["ceilings"]
    if case.products:
        share = case.flops / seconds / limits["matrix_flop_per_s"][precision]
    else:
        share = moved / seconds / limits["copy_bytes_per_s"]
    return {
        "kernel": case.stem,
        "case": case.name,
        "precision": precision,
        "backend": backend,
        "ms": found.median_ms,
        "low_ms": found.low_ms,
        "high_ms": found.high_ms,
        "bytes": moved,
        "flop": case.flops,
        "GB/s": 1e-9 * moved / seconds,
        "TFLOP/s": 1e-12 * case.flops / seconds if case.products else None,
        "share of ceiling": share,
    }


if __name__ == "__main__":
    sys.exit(main())
