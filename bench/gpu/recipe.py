"""Trains CIFAR-10 CNN-7 by the 160-epoch short-warmup recipe, with data and augmentation on the device.

Reports wall clock (training, the certification after every epoch and at the end, the attack), clean and verified error.
A run that runs out of time stops at a checkpoint; `--resume` continues it. After a run of four epochs, `--predicted-by`
takes its JSON file, predicts the time of the whole recipe, and trains fewer epochs if that is too long.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from bench.gpu.record import Record, parser
from fastbound.train import train
from fastbound.train.configs import find_config
from fastbound.train.interrupts import Interrupted
from fastbound.train.precision import PRECISIONS

CONFIG = "short-warmup-cifar10-cnn7-8-255"
COLUMNS = (
    *("config", "data", "precision", "epochs", "wall s", "training s", "certification s", "images/s"),
    *("clean error", "PGD error", "verified error", "cuda graph"),
)
SMALL_EPOCHS = 2
EARLIER = "wall_seconds.json"  # next to the checkpoint: the seconds of the calls up to it


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__, seconds=500)
    options.add_argument("--data-dir", type=Path, help="folder with the binary files of CIFAR-10")
    options.add_argument("--data-name", help="what to call these images; the name of the data set by default")
    options.add_argument("--config", default=CONFIG, help="another published configuration")
    options.add_argument("--precision", default="default", choices=PRECISIONS, help="of the training")
    options.add_argument("--epochs", type=int, help="a run of another length")
    options.add_argument("--run", type=Path, help="the run folder; OUT/run by default")
    options.add_argument("--resume", action="store_true", help="continue the run in its folder, with its own options")
    options.add_argument("--predicted-by", type=Path, metavar="JSON", help="what an earlier, short call wrote")
    options.add_argument("--fits", type=float, default=220.0, help="seconds that the prediction may reach")
    options.add_argument("--else-epochs", type=int, default=20, help="epochs of a run that would not fit")
    chosen = options.parse_args(arguments)
    record = Record("recipe", chosen)
    _choose_length(record, chosen)
    given, overrides = _run_options(chosen)
    run = chosen.run or chosen.out / "run"
    before = _earlier_seconds(run) if chosen.resume else 0.0
    started = time.monotonic()
    _interrupt_after(chosen.seconds)
    report: dict[str, Any] = {}
    try:
        if chosen.resume:
            report = train(run, {}, resume=True)
        else:
            report = train(run, given, overrides, overwrite=True)
    except Interrupted as stop:
        record.left_out.append(str(stop))
    except Exception as problem:  # the earlier epochs are still worth recording
        record.fail("training", problem)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the results so far must be written
    record.content["wall_seconds"] = before + time.monotonic() - started
    record.content["metrics"] = _metrics(run)
    record.content["report"] = report
    if (run / "config.json").exists():
        (run / EARLIER).write_text(json.dumps(record.content["wall_seconds"]), encoding="utf-8")
        record.rows.append(_row(record, chosen, run, report))
        record.content["whole_run_seconds"] = _whole_run_seconds(record, chosen)
        record.headline = _headline(record)
    if chosen.device.type == "cuda" and report.get("cuda_graph", "on") != "on":
        record.failed["CUDA graph"] = report["cuda_graph"]  # but the figures of the eager run are kept
    return record.finish(COLUMNS)


def _choose_length(record: Record, chosen: argparse.Namespace) -> None:
    """Chooses the whole recipe if its predicted time fits, fewer epochs if it does not or there is no prediction."""
    if chosen.predicted_by is None:
        return
    try:
        predicted = json.loads(chosen.predicted_by.read_text(encoding="utf-8"))["whole_run_seconds"]
    except (OSError, ValueError, KeyError) as problem:
        predicted = None
        print(f"no prediction in {chosen.predicted_by} ({problem})", flush=True)
    if predicted is None or predicted > chosen.fits:
        chosen.epochs = chosen.else_epochs
    record.content["predicted_seconds"] = predicted
    length = "the whole recipe" if chosen.epochs is None else f"{chosen.epochs} epochs"
    print(f"predicted: {predicted} s, may take {chosen.fits:g} s: {length}", flush=True)


def _run_options(chosen: argparse.Namespace) -> tuple[dict[str, object], dict[str, object]]:
    """The options of `train`, and the fields of the recipe to override."""
    common = {"device": str(chosen.device), "precision": chosen.precision}
    overrides = {} if chosen.epochs is None else {"epochs": chosen.epochs}
    if chosen.small:
        few = {"limit": 64, "test_limit": 16, "pgd_steps": 1}
        return {"dataset": "digits", "method": "ibp", **few, **common}, {"epochs": SMALL_EPOCHS, **overrides}
    return {"config": chosen.config, "data_dir": str(chosen.data_dir), **common}, overrides


def _interrupt_after(seconds: float) -> None:
    """Asks the run to stop as Ctrl-C does, which leaves a checkpoint."""

    def ask(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGALRM, ask)
    signal.alarm(max(1, round(seconds)))


def _earlier_seconds(run: Path) -> float:
    """The seconds that earlier calls spent on the run that this one continues."""
    path = run / EARLIER
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0.0


def _metrics(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _row(record: Record, chosen: argparse.Namespace, run: Path, report: dict[str, Any]) -> dict[str, Any]:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))["settings"]
    metrics = record.content["metrics"]
    training = sum(one["seconds"] for one in metrics)
    images = len(metrics) * (config["limit"] or 50_000)
    return {
        "config": config["config"] or config["recipe"]["method"],
        "data": config["dataset"] if chosen.small else chosen.data_name or config["dataset"],
        "precision": config["precision"],
        "epochs": f"{len(metrics)} of {config['recipe']['epochs']}",
        "wall s": record.content["wall_seconds"],
        "training s": training,
        "certification s": sum(one["certification_seconds"] for one in metrics),
        "images/s": images / training if training else None,
        "clean error": report.get("clean_error"),
        "PGD error": report.get("pgd_error"),
        "verified error": report.get("verified_error"),
        "cuda graph": report.get("cuda_graph"),
    }


def _whole_run_seconds(record: Record, chosen: argparse.Namespace) -> float | None:
    """The predicted time of the whole recipe, from a finished run of at least four epochs; None for any other.

    In the first half of the epochs the radius grows, with regularisers: the first epoch, which warms up and records
    graphs, counts once, the others take the time of the second; epochs of the second half take its median. Start, final
    certification and attack are added.
    """
    metrics = record.content["metrics"]
    if len(metrics) < 4 or not record.content["report"]:
        return None
    per_epoch = [one["seconds"] + one["certification_seconds"] for one in metrics]
    rest = max(0.0, record.content["wall_seconds"] - sum(per_epoch))
    epochs = SMALL_EPOCHS if chosen.small else find_config(chosen.config).recipe.epochs
    growing = epochs // 2
    after = statistics.median(per_epoch[len(per_epoch) // 2 :])
    return rest + per_epoch[0] + per_epoch[1] * (growing - 1) + after * (epochs - growing)


def _headline(record: Record) -> str:
    (row,) = record.rows
    metrics = record.content["metrics"]
    told = f"{row['epochs']} epochs in {row['wall s']:.1f} s"
    if len(metrics) > 1:
        train_s, certify_s = (
            statistics.median(one[name] for one in metrics[1:]) for name in ("seconds", "certification_seconds")
        )
        told += f" (an epoch {train_s:.2f} s, its certification {certify_s:.2f} s)"
    if row["verified error"] is not None:
        told += f", clean {row['clean error']:.2%}, verified {row['verified error']:.2%}"
    whole = record.content["whole_run_seconds"]
    return told if whole is None else f"{told}; the whole recipe: {whole:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
