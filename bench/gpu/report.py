"""What every part writes: a JSON file with machine, commit and figures, the same as a table, and what it left out."""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastbound import benchmark
from fastbound.certify.report import write_json

ROOT = Path(__file__).resolve().parents[2]


def parser(description: str | None, seconds: int) -> argparse.ArgumentParser:
    """The options of every driver; `seconds` is how long it may measure by default."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("out", type=Path, help="folder for the JSON file and the table")
    made.add_argument("--device", default="cuda", type=torch.device)
    made.add_argument("--seconds", default=seconds, type=float, help="start nothing new after so many")
    made.add_argument("--small", action="store_true", help="tiny shapes: shows that everything runs, measures nothing")
    return made


class Part:
    """One part of the suite while it runs: its rows, what could not be measured and why, and the time that is left."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.name, self.out, self.device = name, arguments.out, arguments.device
        self.rows: list[dict[str, Any]] = []
        self.not_available: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.left_out: list[str] = []
        self.content: dict[str, Any] = {"part": name, "commit": commit(), "machine": machine(self.device)}
        self._end = time.monotonic() + arguments.seconds

    def has_time(self, what: str) -> bool:
        """Whether `what` may still start; it is listed as left out where not."""
        if time.monotonic() < self._end:
            return True
        self.left_out.append(what)
        return False

    def fail(self, what: str, problem: Exception) -> None:
        self.failed[what] = f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"

    def finish(self, columns: Sequence[str]) -> int:
        """Writes `name`.json and `name`.md, prints the table, and returns the exit status."""
        self.out.mkdir(parents=True, exist_ok=True)
        rest = {
            "rows": self.rows,
            "not_available": self.not_available,
            "failed": self.failed,
            "left_out": self.left_out,
        }
        write_json(self.out / f"{self.name}.json", {**self.content, **rest})
        text = "\n".join([self._title(), "", *table(columns, self.rows), "", *self._remarks()])
        (self.out / f"{self.name}.md").write_text(text + "\n", encoding="utf-8")
        print(text)
        return 1 if self.failed or self.left_out or not self.rows else 0

    def _title(self) -> str:
        about = self.content["machine"]
        where = about.get("gpu", about["processor"])
        return f"# {self.name}: {where}, torch {about['torch']}, commit {self.content['commit']}"

    def _remarks(self) -> list[str]:
        lines = [f"- not available: {name} ({reason})" for name, reason in self.not_available.items()]
        lines += [f"- FAILED: {name} ({reason})" for name, reason in self.failed.items()]
        return lines + [f"- LEFT OUT, no time: {name}" for name in self.left_out]


def table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as the lines of a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def machine(device: torch.device) -> dict[str, Any]:
    """The machine as `fastbound bench` describes it, with what a GPU figure needs beside it."""
    content = dict(benchmark.machine(device))
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        content |= {
            "capability": list(torch.cuda.get_device_capability(device)),
            "multiprocessors": about.multi_processor_count,
            "memory_bytes": about.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return content


def commit() -> str:
    """The commit that is measured: from the environment where the checkout came without its history."""
    named = os.environ.get("FASTBOUND_COMMIT")
    if named:
        return named
    found = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"
