"""Whole training steps beside the natural step, eager and as CUDA graphs, fastbound beside plain ATen and auto_LiRPA.

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
from bench.gpu import peer
from bench.gpu.report import Part, parser
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
    chosen = options.parse_args(arguments)
    part = Part("steps", chosen)
    if part.device.type != "cuda":
        part.not_available["captured"] = "a CUDA graph needs CUDA"
    # What matters most comes first.
    networks = SMALL if chosen.small else {**WIDE, **benchmark.NETWORKS}
    for name, network in networks.items():
        _Measurement(part, name, network, chosen.rounds).run()
    return part.finish(COLUMNS)


class _Measurement:
    """All variants of one network."""

    def __init__(self, part: Part, name: str, network: Network, rounds: int) -> None:
        self.part, self.name, self.network, self.rounds = part, name, network, rounds
        self.model, self.x, self.labels = network.sample(part.device)
        self.modes = ("eager", "captured") if part.device.type == "cuda" else ("eager",)
        self.natural: dict[tuple[str, str], float] = {}  # milliseconds by (precision, mode)

    def run(self) -> None:
        for precision in ("default", "bf16"):
            for code in ("automatic", "reference"):
                # The natural step runs no code of ours; it is measured once a precision.
                for step in STEPS if code == "automatic" else [s for s in STEPS if s != "natural"]:
                    self._measure(step, STEPS[step], code, precision, self.modes)
        for step, function in peer.steps(self.model, self.x, self.part.not_available).items():
            self._measure(step, function, "auto_LiRPA", "default", ("eager",))

    def _measure(self, step: str, function: Step, code: str, precision: str, modes: tuple[str, ...]) -> None:
        what = f"{self.name}, {step}, {code}, {precision}"
        if not self.part.has_time(what):
            return
        works: dict[str, Work] = {}
        peaks: dict[str, float | None] = {}

        def step_as_asked(x: Tensor, labels: Tensor) -> None:
            # Inside the step: what autocast has converted once, it keeps until it ends.
            with ExitStack() as flags:
                if precision == "bf16":
                    flags.enter_context(torch.autocast(self.part.device.type, torch.bfloat16))
                if code == "reference":
                    flags.enter_context(fb.use_backend("reference"))
                function(self.model, x, labels)

        for mode in modes:
            self._prepare(f"{what}, {mode}", mode, step_as_asked, works, peaks)
        found = time_in_turn(works, self.part.device, self.rounds)
        self.part.rows += [self._row(step, code, precision, mode, found[mode], peaks[mode]) for mode in works]

    def _prepare(
        self, what: str, mode: str, eager: Callable, works: dict[str, Work], peaks: dict[str, float | None]
    ) -> None:
        """Warms the step up, takes its peak memory, and puts it among `works`; says why where it cannot run."""
        device, batch = self.part.device, (self.x, self.labels)
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
            self.part.not_available[what] = str(problem).splitlines()[0]
            return
        except Exception as problem:  # the other steps are still worth measuring
            self.part.fail(what, problem)
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
