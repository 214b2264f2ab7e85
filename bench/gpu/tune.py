"""Writes the table of a card, `kernels/sm_XX.json`: the fastest configuration of each row, beside the library's time.

    python -m bench.gpu.tune [--only interval_product/bf16] [--seconds S] [--out FILE]      on a GPU
    python -m bench.gpu.tune --dry-run [--card sm_90] [--only ...]                          anywhere: compiles alone

Candidates that spill, that ask for more shared memory than the card has or that miss the tensor cores are left out by
ahead-of-time compilation; so are those whose tensor cores are serialised, where not all are. Few rounds of each of the
others choose those that are timed properly. Rows of products are timed by forward calls, rows of weight gradients by
whole backward calls, on the product shapes of `bench/gpu/cases.py`; the library is what serves these calls without a
request. A row for which the time does not suffice stays as it was, and is named.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.gpu.cases import Case, Maker, Sizes, Tensors, cases
from bench.gpu.timing import time_kernel
from fastbound import backends
from fastbound.kernels import _ahead_of_time, _configurations, three_pass_tf32
from fastbound.kernels._ahead_of_time import SERIES, Report
from fastbound.kernels._configurations import Configuration
from fastbound.kernels._measurements import STEMS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SCREENING, ROUNDS = 5, 30
FINALISTS = 3
# Outputs, pixels and terms of a program's tile.
POWER_TILES = {
    "power_linear": [(m, 1, k) for m in (1, 2, 4, 8, 16) for k in (256, 512, 1024)],
    "power_conv2d": [(m, p, k) for m in (16, 32, 64) for p in (16, 32, 64) for k in (16, 32)],
}


class OutOfTime(Exception):
    """The time of --seconds is over."""


@dataclass(frozen=True)
class Deadline:
    """When nothing new may start."""

    end: float

    @staticmethod
    def after(seconds: float | None) -> Deadline:
        return Deadline(float("inf") if seconds is None else time.monotonic() + seconds)

    def check(self) -> None:
        if time.monotonic() >= self.end:
            raise OutOfTime


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dry-run", action="store_true", help="compile the candidates, time and write nothing")
    options.add_argument("--card", help="with --dry-run: the card to compile for, sm_90 by default")
    options.add_argument("--only", action="append", default=[], help="rows whose key contains this text; repeat it")
    options.add_argument("--seconds", type=float, help="start nothing new after so many")
    options.add_argument("--out", type=Path, help="where the table goes; kernels/<card>.json by default")
    chosen = options.parse_args(arguments)
    deadline = Deadline.after(chosen.seconds)
    if not chosen.dry_run and not torch.cuda.is_available():
        options.error("torch sees no CUDA device; --dry-run compiles the candidates without one")
    if chosen.card is not None and not chosen.dry_run:
        options.error("--card goes with --dry-run: the table is that of the card that is measured")
    card = chosen.card or ("sm_90" if chosen.dry_run else _configurations.card_of(torch.device("cuda"), False))
    known = _configurations.row_keys()
    for text in chosen.only:
        if not any(text in key for key in known):
            options.error(f"--only: no row contains {text!r}; rows are kernel/precision/class, such as {known[0]}")
    keys = [key for key in known if not chosen.only or any(text in key for text in chosen.only)]
    rows, told = dict(_configurations.table(card)), []
    for key in keys:
        try:
            able = usable(card, key, deadline)
            told.append(f"{key}: {len(able)} candidates")
            print(told[-1], flush=True)
            if not able:
                told[-1] = f"{key}: LEFT OUT, no candidate is usable; its row stays as it was"
            elif not chosen.dry_run:
                rows[key] = fastest(card, key, able, deadline)
                told[-1] = f"{key}: {Configuration(**rows[key]['configuration'])} {rows[key]['measured']}"
        except OutOfTime:
            told.append(f"{key}: LEFT OUT, no time; its row stays as it was")
    if not chosen.dry_run:
        out = chosen.out or _configurations.FOLDER / f"{card}.json"
        out.write_text(_text(card, rows), encoding="utf-8")
        print(f"wrote {out}")
    print("\n".join(["", *told]))
    return 1 if any("LEFT OUT" in line for line in told) else 0


def candidates(key: str) -> Iterator[Configuration]:
    """Tiles of 64 and 128 with reductions of 32 bytes a row or more; IEEE products spill with longer ones.

    Power iterations have one sample: small tiles, so that there are programs for all of the card.
    """
    name, precision, shape = key.split("/")
    if name.startswith("power"):
        stages = (1, 2) if name == "power_conv2d" else (1,)  # only what feeds a product of tiles is fetched ahead
        yield from (Configuration(*t, warps, s) for t in POWER_TILES[name] for warps in (4, 8) for s in stages)
        return
    reduction = {"ieee": 16, "tf32": 32, "tf32x3": 32}.get(precision, 64)
    features = (64,) if shape == "narrow" else (64, 128)
    for block_m in features:
        for other in (64, 128):
            for warps, stages in ((4, 2), (4, 3), (8, 2), (8, 3)):
                if name.endswith("weight_gradient"):
                    yield Configuration(block_m, reduction, other, warps, stages)
                else:
                    yield Configuration(block_m, other, reduction, warps, stages)


def usable(card: str, key: str, deadline: Deadline) -> dict[Configuration, list[Report]]:
    """The candidates that may be timed, each with what its launches compile to."""
    found: dict[Configuration, list[Report]] = {}
    for configuration in candidates(key):
        deadline.check()
        launches = _ahead_of_time.LAUNCHES[key.split("/")[0]]
        reports = [_ahead_of_time.compiled_as(card, key, launch, configuration) for launch in launches]
        problem = next((p for p in (report.problem(card) for report in reports) if p is not None), None)
        if problem is None:
            found[configuration] = reports
        else:
            print(f"    {configuration}: {problem}")
    free = {c: reports for c, reports in found.items() if not any(report.serialised for report in reports)}
    if not free and any(report.serialised for reports in found.values() for report in reports):
        print(f"    {key}: the tensor cores of every candidate are serialised")
    for configuration in found.keys() - free.keys() if free else ():
        print(f"    {configuration}: tensor cores are serialised")
    return free or found


def fastest(card: str, key: str, able: dict[Configuration, list[Report]], deadline: Deadline) -> dict[str, Any]:
    """The row of the candidate with the least time over all shapes of its class. Raises OutOfTime before that."""
    screened = {}
    for configuration in able:
        deadline.check()
        screened[configuration] = _timed(card, key, configuration, SCREENING)
    times = {}
    for configuration in sorted(able, key=lambda c: sum(screened[c].values()))[:FINALISTS]:
        deadline.check()
        times[configuration] = _timed(card, key, configuration, ROUNDS)
    best = min(times, key=lambda c: sum(times[c].values()))
    deadline.check()
    library = _measured(key, triton=False, rounds=ROUNDS)
    measured = {stem: {"triton_ms": times[best][stem], "library_ms": library[stem]} for stem in library}
    print(f"    {best}: {measured}", flush=True)
    row = {"configuration": asdict(best), "measured": measured or None}
    marks = {report.launch: [SERIES] for report in able[best] if report.serialised}
    return {**row, "serialised": marks} if marks else row


def _timed(card: str, key: str, configuration: Configuration, rounds: int) -> dict[str, float]:
    """`_measured` with this configuration in the table that the kernels read."""
    table: Any = _configurations.table(card)
    before = table.get(key)
    table[key] = {"configuration": asdict(configuration), "measured": None}
    try:
        return _measured(key, triton=True, rounds=rounds)
    finally:
        if before is None:
            del table[key]
        else:
            table[key] = before


def _measured(key: str, triton: bool, rounds: int) -> dict[str, float]:
    """Milliseconds by primitive, summed over the shapes of the row's class."""
    name, precision, shape = key.split("/")
    backends_: Any = torch.backends
    word = "tf32" if precision.startswith("tf32") else "ieee"
    backends_.cudnn.conv.fp32_precision = backends_.cuda.matmul.fp32_precision = word
    device, dtype = torch.device("cuda"), DTYPES.get(precision, torch.float32)
    part = "backward" if name.endswith("weight_gradient") else "forward"
    total: dict[str, float] = {}
    for case in cases(Sizes.full(torch.cuda.get_device_properties(device).L2_cache_size)):
        if case.stem not in STEMS or not case.name.startswith(part):
            continue
        buffers = case.make(Maker(device, dtype))
        weight = _weight(case, buffers, part)
        kernels, features = STEMS[case.stem][weight.dim()], _features(case, weight, part)
        if name not in kernels or _configurations.shape_class(features) != shape:
            continue
        code = backends._select(case.stem, "cuda", dtype, None)
        if triton:
            code = importlib.import_module(f"fastbound.kernels.{case.stem}")
        total[case.stem] = total.get(case.stem, 0.0) + _milliseconds(case, code, buffers, precision == "tf32x3", rounds)
    return total


def _milliseconds(case: Case, code: Any, buffers: Tensors, three_passes: bool, rounds: int) -> float:
    def work() -> None:
        if three_passes:
            with three_pass_tf32():
                case.run(code, buffers)
        else:
            case.run(code, buffers)

    return time_kernel([work], torch.device("cuda"), rounds).median_ms


def _weight(case: Case, buffers: Tensors, part: str) -> Tensor:
    """It stands last, or before the bias."""
    last = case.stem == "lipschitz_power" or (part == "backward" and case.stem.startswith("interval"))
    return buffers[-1] if last else buffers[-2]


def _features(case: Case, weight: Tensor, part: str) -> int:
    """Output channels of the kernel's tile: forward CROWN makes the inputs of its layer."""
    return weight.shape[1] if part == "forward" and case.stem.startswith("crown") else weight.shape[0]


def _text(card: str, rows: dict[str, Any]) -> str:
    known = [key for key in _configurations.row_keys() if key in rows]
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(rows[key])}" for key in known)
    return f'{{\n  "card": {json.dumps(card)},\n  "rows": {{\n{lines}\n  }}\n}}\n'


if __name__ == "__main__":
    sys.exit(main())
