"""Whole training steps against the natural step, eager and as CUDA graphs; fastbound, plain ATen and auto_LiRPA.

A step is forward, bounds, loss and backward, without an optimiser, as `fastbound bench` measures it; the networks are
those of the performance page, and CNN-7 of width 64 at the batches that a GPU is trained with. "default": torch's own
flags (float32, convolutions in TF32); "bf16": autocast. Peak memory is what a step takes above the loaded model.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

import fastbound as fb
from bench.gpu import ceilings, peer
from bench.gpu.record import Record, first_line, parser
from bench.gpu.replay import kernels_of
from bench.gpu.tables import table
from bench.gpu.timing import Spread, Work, synchronize, time_in_turn
from fastbound import benchmark
from fastbound.benchmark import STEPS, Network
from fastbound.errors import BackendError
from fastbound.train import capture
from fastbound.train.capture import EAGER_CALLS

COLUMNS = (
    "network",
    "batch",
    "step",
    "code",
    "precision",
    "mode",
    "ms",
    "x eager natural",
    "x its natural",
    "peak MiB",
)

WIDE = {f"cnn7-width64, batch {batch}": Network("cnn7", (3, 32, 32), batch, {"width": 64}) for batch in (128, 512)}
SMALL = {"mlp": Network("mlp", (1, 4, 4), 2), "cnn7": Network("cnn7", (3, 8, 8), 2, {"width": 2})}

Step = Callable[[nn.Module, Tensor, Tensor], Any]


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__, seconds=480)
    options.add_argument("--rounds", type=int, default=50)
    options.add_argument("--ceilings", action="store_true", help="measure the limits of the card first")
    options.add_argument("--replay", metavar="TEXT", help="list the kernels of one call of the steps with such names")
    chosen = options.parse_args(arguments)
    record = Record("steps", chosen)
    if record.device.type != "cuda":
        record.not_available["captured"] = "a CUDA graph needs CUDA"
    # The most important networks come first.
    networks = SMALL if chosen.small else {**WIDE, **benchmark.NETWORKS}
    with record.interruptible():
        if chosen.ceilings:
            record.content["ceilings"] = ceilings.measure(record.device, chosen.small)
        for name, network in networks.items():
            _Measurement(record, name, network, chosen.rounds, chosen.replay).run()
    record.headline = _headline(record.rows)
    return record.finish(COLUMNS, *_shown(record.content.get("replays", {})))


def _headline(rows: list[dict[str, Any]]) -> str:
    """The fastest variant of each step of the first network."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["network"] == rows[0]["network"] and row["ms"] < best.get(row["step"], row)["ms"] + 1e-9:
            best[row["step"]] = row
    return ", ".join(f"{step} {row['ms']:.3g} ms ({row['precision']}, {row['mode']})" for step, row in best.items())


def _shown(replays: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = []
    for name, rows in replays.items():
        total = sum(row["us"] for row in rows)
        launches = sum(row["launches"] for row in rows)
        lines += [f"## One call of {name}: {launches} kernels, {total:.0f} us of them", ""]
        lines += [*table(("kernel", "launches", "us", "share"), rows[:40]), ""]
    return lines


class _Measurement:
    """All variants of one network that are asked for."""

    def __init__(self, record: Record, name: str, network: Network, rounds: int, replay: str | None) -> None:
        self.record, self.name, self.network, self.rounds, self.replay = record, name, network, rounds, replay
        self.modes = ("eager", "captured") if record.device.type == "cuda" else ("eager",)
        self.natural: dict[tuple[str, str], float] = {}  # milliseconds by (precision, mode)

    def run(self) -> None:
        ours = [
            (step, code, precision)
            for precision in ("default", "bf16")
            for code in ("automatic", "reference")
            # The natural step runs no code of ours; it is measured once a precision.
            for step in STEPS
            if code == "automatic" or step != "natural"
        ]
        theirs = [(step, "auto_LiRPA", "default") for step in peer.METHODS]
        ours, theirs = ([v for v in some if self.record.wants(self._what(*v))] for some in (ours, theirs))
        if not ours and not theirs:
            return
        self.model, self.x, self.labels = self.network.sample(self.record.device)
        for step, code, precision in ours:
            self._measure(step, STEPS[step], code, precision, self.modes)
        by_peer = peer.steps(self.model, self.x, self.record.not_available) if theirs else {}
        for step, code, precision in theirs:
            if step in by_peer:
                self._measure(step, by_peer[step], code, precision, ("eager",))

    def _what(self, step: str, code: str, precision: str) -> str:
        return f"{self.name}, {step}, {code}, {precision}"

    def _measure(self, step: str, function: Step, code: str, precision: str, modes: tuple[str, ...]) -> None:
        what = self._what(step, code, precision)
        if not self.record.has_time(what):
            return
        works: dict[str, Work] = {}
        peaks: dict[str, float | None] = {}

        def step_as_asked(x: Tensor, labels: Tensor) -> None:
            # Entered inside the step, because autocast keeps its converted weights until it ends.
            with ExitStack() as flags:
                if precision == "bf16":
                    flags.enter_context(torch.autocast(self.record.device.type, torch.bfloat16))
                if code == "reference":
                    flags.enter_context(fb.use_backend("reference"))
                function(self.model, x, labels)

        for mode in modes:
            self._prepare(f"{what}, {mode}", mode, step_as_asked, works, peaks)
        found = time_in_turn(works, self.record.device, self.rounds)
        self.record.rows += [self._row(step, code, precision, mode, found[mode], peaks[mode]) for mode in works]
        if works and self.replay is not None and self.replay in what:
            self._list_kernels(what, works)  # after the times, which a profiler would lengthen

    def _list_kernels(self, what: str, works: dict[str, Work]) -> None:
        mode, call = list(works.items())[-1]  # the captured step, where there is one
        try:
            rows = kernels_of(call, self.record.device)
        except Exception as problem:  # the times are still valid if the profiler does not work
            self.record.fail(f"kernels of {what}, {mode}", problem)
            return
        self.record.content.setdefault("replays", {})[f"{what}, {mode}"] = rows

    def _prepare(
        self, what: str, mode: str, eager: Callable, works: dict[str, Work], peaks: dict[str, float | None]
    ) -> None:
        """Warms up the step, measures its peak memory and adds it to `works`; records the reason if it cannot run."""
        device, batch = self.record.device, (self.x, self.labels)
        self.model.zero_grad(set_to_none=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
        try:
            call = capture(eager, batch) if mode == "captured" else eager
            for _ in range(EAGER_CALLS + 2):
                call(*batch)
            synchronize(device)
        except (NotImplementedError, BackendError, TypeError, torch.OutOfMemoryError) as problem:
            self.record.not_available[what] = first_line(problem)
            return
        except Exception as problem:  # the other steps are still worth measuring
            self.record.fail(what, problem)
            return
        works[mode] = lambda: call(*batch)
        peaks[mode] = (torch.cuda.max_memory_allocated(device) - before) / 2**20 if device.type == "cuda" else None

    def _row(
        self, step: str, code: str, precision: str, mode: str, found: Spread, peak: float | None
    ) -> dict[str, Any]:
        if step == "natural":
            self.natural[precision, mode] = found.median_ms
        users, own = self.natural.get(("default", "eager")), self.natural.get((precision, mode))
        return {
            "network": self.name,
            "batch": self.network.batch,
            "step": step,
            "code": code,
            "precision": precision,
            "mode": mode,
            "ms": found.median_ms,
            "low_ms": found.low_ms,
            "high_ms": found.high_ms,
            "x eager natural": found.median_ms / users if users else None,
            "x its natural": found.median_ms / own if own else None,
            "peak MiB": peak,
        }


if __name__ == "__main__":
    sys.exit(main())
