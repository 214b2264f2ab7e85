"""Trains CIFAR-10 CNN-7 by the 160-epoch short-warmup recipe, with data and augmentation on the device.

Reports wall clock (training, the certification after every epoch and at the end, the attack), clean and verified error.
A run that the time does not suffice for stops at a checkpoint; the same command then continues it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from bench.gpu.report import Part, parser
from fastbound.train import train
from fastbound.train.interrupts import Interrupted

CONFIG = "short-warmup-cifar10-cnn7-8-255"
COLUMNS = (
    *("config", "epochs", "wall s", "training s", "images/s"),
    *("clean error", "PGD error", "verified error", "cuda graph"),
)


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__, seconds=500)
    options.add_argument("--data-dir", type=Path, help="folder with the binary files of CIFAR-10")
    options.add_argument("--config", default=CONFIG, help="another published configuration")
    options.add_argument("--epochs", type=int, help="a run of another length")
    chosen = options.parse_args(arguments)
    part = Part("recipe", chosen)
    given, overrides = _run_options(chosen)
    before = _earlier_seconds(chosen.out)
    started = time.monotonic()
    _interrupt_after(chosen.seconds)
    report: dict[str, object] = {}
    run = chosen.out / "run"
    try:
        # A run that is there goes on; its options are its own.
        going_on = (run / "config.json").exists()
        report = train(run, given, overrides, resume=going_on)
    except Interrupted as stop:
        part.left_out.append(str(stop))
    finally:
        signal.alarm(0)
    part.content["wall_seconds"] = before + time.monotonic() - started
    part.rows.append(_row(part, run, report))
    return part.finish(COLUMNS)


def _run_options(chosen: argparse.Namespace) -> tuple[dict[str, object], dict[str, object]]:
    """What `train` is given, and what it overrides of the recipe."""
    device = {"device": str(chosen.device)}
    overrides = {} if chosen.epochs is None else {"epochs": chosen.epochs}
    if chosen.small:
        few = {"limit": 64, "test_limit": 16, "pgd_steps": 1}
        return {"dataset": "digits", "method": "ibp", **few, **device}, {"epochs": 2, **overrides}
    graph = "on" if chosen.device.type == "cuda" else "auto"
    return {"config": chosen.config, "data_dir": str(chosen.data_dir), "cuda_graph": graph, **device}, overrides


def _interrupt_after(seconds: float) -> None:
    """Asks the run to stop as Ctrl-C does, which leaves a checkpoint."""

    def ask(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGALRM, ask)
    signal.alarm(max(1, round(seconds)))


def _earlier_seconds(out: Path) -> float:
    """What earlier calls spent on a run that this one continues."""
    path = out / "recipe.json"
    return json.loads(path.read_text(encoding="utf-8"))["wall_seconds"] if path.exists() else 0.0


def _row(part: Part, run: Path, report: dict[str, object]) -> dict[str, object]:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))["settings"]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    training = sum(record["seconds"] for record in metrics)
    images = len(metrics) * (config["limit"] or 50_000)
    return {
        "config": config["config"] or config["recipe"]["method"],
        "epochs": f"{len(metrics)} of {config['recipe']['epochs']}",
        "wall s": part.content["wall_seconds"],
        "training s": training,
        "images/s": images / training if training else None,
        "clean error": report.get("clean_error"),
        "PGD error": report.get("pgd_error"),
        "verified error": report.get("verified_error"),
        "cuda graph": report.get("cuda_graph"),
    }


if __name__ == "__main__":
    sys.exit(main())
