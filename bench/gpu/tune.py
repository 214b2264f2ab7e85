"""Writes the table of a card, `kernels/sm_XX.json`: the fastest configuration of each row, and the library's time.

    python -m bench.gpu.tune [--only interval_product/bf16 ...] [--seconds 100] [--out FILE]      on a GPU
    python -m bench.gpu.tune --dry-run [--card sm_90] [--only ...]            anywhere: compiles the candidates

Ahead-of-time compilation excludes candidates that spill, need more shared memory than the card has or miss the tensor
cores, and those with serialised tensor cores if others have none. The remaining ones are timed in a few rounds, the
best of them in many; the library is timed once. Rows of products are timed by forward calls, rows of weight gradients
by whole backward calls, on the shapes of `bench/gpu/product_cases.py`; the library is the code that serves these calls
by default.

No candidate is started after --seconds. The row's current configuration comes first, so a row without some candidates
is no worse than before: it is written, with their number. The table is written after each row; if FILE exists, it is
the table to continue. The exit status is 1 if something was left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.gpu.case import Case, Maker, Sizes, Tensors
from bench.gpu.cases import cases
from bench.gpu.ceilings import l2_bytes
from bench.gpu.timing import time_kernel
from fastbound import backends
from fastbound.certify.modes import float32_products
from fastbound.kernels import _ahead_of_time, _configurations, three_pass_tf32
from fastbound.kernels._ahead_of_time import KernelReport
from fastbound.kernels._configurations import Configuration
from fastbound.kernels._measurements import STEMS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SCREENING_ROUNDS, ROUNDS, FINALISTS = 5, 30, 3
NO_TIME, NO_CALLS = "no time", "no call of the suite is of its class"
# (outputs, pixels, terms) of a program's tile.
POWER_TILES = {
    "power_linear": [(m, 1, k) for m in (1, 2, 4, 8, 16) for k in (256, 512, 1024)],
    "power_conv2d": [(m, p, k) for m in (16, 32, 64) for p in (16, 32, 64) for k in (16, 32)],
}

clock = time.monotonic  # replaced in tests


@dataclass
class Search:
    """The search for one row: reports of its compiled candidates, the timed ones, and reasons for those left out."""

    key: str
    reports: dict[Configuration, list[KernelReport]] = field(default_factory=dict)  # of all usable candidates
    chosen: list[Configuration] = field(default_factory=list)  # to be timed, in this order
    timed: int = 0
    left_out: int = 0  # candidates without time
    failure: str | None = None  # why there is no row
    row: dict[str, Any] | None = None

    def __str__(self) -> str:
        """Its line in the summary."""
        if self.row is None:
            return f"LEFT OUT, {self.failure or 'interrupted'}: {self.key}"
        chosen = Configuration(**self.row["configuration"])
        tile = f"{chosen.block_m} x {chosen.block_p} x {chosen.block_k}, {chosen.num_warps} warps"
        times = [
            f"{stem} {pair['triton_ms']:.3f} ms, library {pair['library_ms']:.3f} ms"
            for stem, pair in self.row["measured"].items()
        ]
        missed = f", LEFT OUT, no time: {self.left_out}" if self.left_out else ""
        said = "; ".join([f"{tile}, {chosen.num_stages} stages", *times])
        return f"{self.key}: {said}; candidates timed: {self.timed}{missed}"


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dry-run", action="store_true", help="compile the candidates, time and write nothing")
    options.add_argument("--card", help="with --dry-run: the card to compile for, sm_90 by default")
    options.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="rows whose key contains TEXT; repeat it for more"
    )
    options.add_argument("--seconds", type=float, default=float("inf"), help="begin no candidate after so many")
    options.add_argument("--out", type=Path, help="the table to write; kernels/<card>.json by default")
    chosen = options.parse_args(arguments)
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
    started, out = clock(), chosen.out or _configurations.FOLDER / f"{card}.json"

    def over() -> bool:
        return clock() >= started + chosen.seconds

    table: Any = _configurations.table(card)  # what the kernels are launched by from here on
    if chosen.out is not None and chosen.out.exists():
        try:
            found = json.loads(chosen.out.read_text(encoding="utf-8"))
            rows = found["rows"] if found["card"] == card else {}
        except (ValueError, KeyError, TypeError):
            rows = {}
        if not rows:
            options.error(f"--out: {chosen.out} exists and is no table of {card}")
        table.update(rows)
    searches = [Search(key) for key in keys]
    try:
        for search in searches:
            _tune(card, search, table, over, chosen.dry_run)
            if search.row is not None:
                table[search.key] = search.row
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(_text(card, table), encoding="utf-8")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    if not chosen.dry_run:
        return _summary(card, searches, out, clock() - started)
    failed = [search for search in searches if search.failure]
    for search in failed:
        print(search)
    return 1 if any(search.failure != NO_TIME for search in failed) else 0


def _summary(card: str, searches: list[Search], out: Path, seconds: float) -> int:
    print(f"\n{card}, Triton {_ahead_of_time.SERIES}, {seconds:.0f} s:")
    for search in searches:
        print(search)
    written = [search for search in searches if search.row is not None]
    print(f"wrote {len(written)} of {len(searches)} rows to {out}" if written else f"{out} is as it was", flush=True)
    return 0 if all(s.failure == NO_CALLS or (s.row is not None and not s.left_out) for s in searches) else 1


def candidates(key: str) -> Iterator[Configuration]:
    """Tiles of 64 and 128, with reductions of at least 32 bytes per row; IEEE products spill with longer ones.

    Power iterations have one sample: their tiles are small, so that programs fill the whole card.
    """
    name, precision, shape = key.split("/")
    if name.startswith("power"):
        stages = (1, 2) if name == "power_conv2d" else (1,)  # only operands of a product of tiles are fetched ahead
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


def _tune(card: str, search: Search, table: dict[str, Any], over: Callable[[], bool], dry_run: bool) -> None:
    """Fills in `search`; an error becomes its `failure`, and the other rows go on."""
    if over():
        search.failure = NO_TIME
        return
    try:
        stopwatch = None if dry_run else Stopwatch(search.key)
        if stopwatch is not None and not stopwatch.calls:
            search.failure = NO_CALLS
            return
        shipped = Configuration(**table[search.key]["configuration"]) if search.key in table else None
        first = [] if shipped is None else [shipped]
        _compile(card, search, [*first, *(c for c in candidates(search.key) if c != shipped)], over)
        _prefer_free(search, shipped)
        print(f"{search.key}: {len(search.chosen)} candidates", flush=True)
        if not search.chosen:
            search.failure = NO_TIME if search.left_out else f"no candidate is usable on {card}"
        elif stopwatch is not None:
            _time(search, stopwatch, table, over)
    except Exception as problem:  # such as an error of the library, or too little memory
        search.failure = f"{type(problem).__name__}: {problem}"


def _compile(card: str, search: Search, wanted: list[Configuration], over: Callable[[], bool]) -> None:
    """Compiles all launches of the candidates in parallel, which also fills the cache that the launches read."""
    for configuration, reports in compiled(card, search.key, wanted, over):
        if reports is None:
            search.left_out += 1
            print(f"    {configuration}: LEFT OUT, no time to compile it")
            continue
        if isinstance(reports, Exception):
            print(f"    {configuration}: {type(reports).__name__}: {reports}")
            continue
        problem = next((r.problem(card) for r in reports if r.problem(card) is not None), None)
        if problem is None:
            search.reports[configuration] = reports
        else:
            print(f"    {configuration}: {problem}")


def compiled(
    card: str, key: str, wanted: list[Configuration], over: Callable[[], bool]
) -> Iterator[tuple[Configuration, list[KernelReport] | Exception | None]]:
    """Each candidate with the reports of its launches, with the error, or with None if there was no time."""
    launches = _ahead_of_time.LAUNCHES[key.split("/")[0]]
    workers = min(len(os.sched_getaffinity(0)), len(wanted) * len(launches))
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {c: [pool.submit(_ahead_of_time.compiled_as, card, key, name, c) for name in launches] for c in wanted}
        for configuration, reports in jobs.items():
            if over():
                pool.shutdown(wait=False, cancel_futures=True)  # running jobs go on
            try:
                yield configuration, [job.result() for job in reports]
            except CancelledError:
                yield configuration, None
            except Exception as problem:
                yield configuration, problem


def _prefer_free(search: Search, shipped: Configuration | None) -> None:
    """Chooses serialised candidates only if all are serialised; the shipped one stays, because it must be beaten."""
    serialised = {c: [r.launch for r in reports if r.serialised] for c, reports in search.reports.items()}
    if serialised and all(serialised.values()):
        print(f"    every candidate of {search.key} is serialised: they stay")
        search.chosen = list(serialised)
        return
    for configuration, launches in serialised.items():
        if not launches or configuration == shipped:
            search.chosen.append(configuration)
        if launches:
            stays = ", but shipped: timed with the others" if configuration == shipped else ""
            print(f"    {configuration}: tensor cores are serialised in {'; '.join(launches)}{stays}")


def _time(search: Search, stopwatch: Stopwatch, table: dict[str, Any], over: Callable[[], bool]) -> None:
    """Times all candidates in a few rounds, the best in many, and the library once."""
    before = table.get(search.key)

    def milliseconds(configuration: Configuration, rounds: int) -> dict[str, float]:
        table[search.key] = {"configuration": asdict(configuration), "measured": None}
        return stopwatch.times(True, rounds)

    screened: dict[Configuration, float] = {}
    try:
        for place, configuration in enumerate(search.chosen):
            if over():
                search.left_out += len(search.chosen) - place
                print("\n".join(f"    {late}: LEFT OUT, no time" for late in search.chosen[place:]), flush=True)
                break
            try:
                screened[configuration] = sum(milliseconds(configuration, SCREENING_ROUNDS).values())
            except Exception as problem:  # such as too many resources for one program
                print(f"    {configuration}: {type(problem).__name__}: {problem}", flush=True)
        search.timed = len(screened)
        if not screened:
            search.failure = NO_TIME if search.left_out else "no candidate ran"
            return
        best = sorted(screened, key=screened.__getitem__)[:FINALISTS]
        finals = {configuration: milliseconds(configuration, ROUNDS) for configuration in best}
        library = stopwatch.times(False, ROUNDS)
    finally:
        if before is None:
            table.pop(search.key, None)
        else:
            table[search.key] = before
    winner = min(finals, key=lambda c: sum(finals[c].values()))
    measured = {stem: {"triton_ms": finals[winner][stem], "library_ms": library[stem]} for stem in library}
    search.row = {"configuration": asdict(winner), "measured": measured}
    marks = _marks(search.reports[winner], before, winner)
    search.row |= {"serialised": marks} if marks else {}
    search.row |= {"left_out": search.left_out} if search.left_out else {}


def _marks(reports: list[KernelReport], before: dict[str, Any] | None, chosen: Configuration) -> dict[str, list[str]]:
    """Launches that are serialised, by series of Triton. Marks of other series stay only for the same configuration."""
    same = before is not None and Configuration(**before["configuration"]) == chosen
    old = before.get("serialised", {}) if before is not None and same else {}
    found = {}
    for report in reports:
        series = {s for s in old.get(report.launch, ()) if s != _ahead_of_time.SERIES}
        series |= {_ahead_of_time.SERIES} if report.serialised else set()
        if series:
            found[report.launch] = sorted(series)
    return found


class Stopwatch:
    """Times the calls that use a row: all shapes of its class in the suite, on buffers that are made once."""

    def __init__(self, key: str, device: str = "cuda", sizes: Sizes | None = None) -> None:
        name, self._precision, shape = key.split("/")
        self._device = torch.device(device)
        self._dtype = DTYPES.get(self._precision, torch.float32)
        part = "backward" if name.endswith("weight_gradient") else "forward"
        self.calls: list[tuple[Case, Tensors]] = []
        for case in cases(sizes or Sizes.full(l2_bytes(self._device))):
            if case.stem not in STEMS or not case.name.startswith(part):
                continue
            buffers = case.make(Maker(self._device, self._dtype))
            weight = _weight(case, buffers, part)
            features = _features(case, weight, part)
            if name in STEMS[case.stem][weight.dim()] and _configurations.shape_class(features) == shape:
                self.calls.append((case, buffers))

    def times(self, triton: bool, rounds: int) -> dict[str, float]:
        """Milliseconds per primitive, of the kernels as configured in the table, or of the library."""
        total: dict[str, float] = {}
        with float32_products("tf32" if self._precision.startswith("tf32") else "ieee"):
            for case, buffers in self.calls:
                code = backends._select(case.stem, self._device.type, self._dtype, None)
                if triton:
                    code = importlib.import_module(f"fastbound.kernels.{case.stem}")
                spread = time_kernel([lambda c=case, k=code, b=buffers: self._run(c, k, b)], self._device, rounds)
                total[case.stem] = total.get(case.stem, 0.0) + spread.median_ms
        return total

    def _run(self, case: Case, code: Any, buffers: Tensors) -> None:
        if self._precision == "tf32x3":
            with three_pass_tf32():
                case.run(code, buffers)
        else:
            case.run(code, buffers)


def _weight(case: Case, buffers: Tensors, part: str) -> Tensor:
    """The weight among the buffers: the last one, or the one before the bias."""
    last = case.stem == "lipschitz_power" or (part == "backward" and case.stem.startswith("interval"))
    return buffers[-1] if last else buffers[-2]


def _features(case: Case, weight: Tensor, part: str) -> int:
    """Output channels of the kernel: forward CROWN computes the inputs of its layer."""
    return weight.shape[1] if part == "forward" and case.stem.startswith("crown") else weight.shape[0]


def _text(card: str, rows: dict[str, Any]) -> str:
    known = [key for key in _configurations.row_keys() if key in rows]
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(rows[key])}" for key in known)
    return f'{{\n  "card": {json.dumps(card)},\n  "rows": {{\n{lines}\n  }}\n}}\n'


if __name__ == "__main__":
    sys.exit(main())
