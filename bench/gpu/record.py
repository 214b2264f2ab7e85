"""The record of a driver: a JSON file with machine, commit, figures and all that was left out; the same as a table."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from bench.gpu import package
from bench.gpu.tables import table
from fastbound import benchmark
from fastbound.certify.report import write_json


def parser(description: str | None, seconds: int) -> argparse.ArgumentParser:
    """The options of every driver; `seconds` is how long it may measure by default."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("out", type=Path, help="folder for the JSON file and the table")
    made.add_argument("--name", help="of these files; the driver's own by default")
    made.add_argument("--device", default="cuda", type=torch.device)
    made.add_argument("--seconds", default=seconds, type=float, help="start nothing new after this time")
    made.add_argument("--small", action="store_true", help="tiny shapes: everything runs, but the figures mean nothing")
    made.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="measure only names that contain TEXT, or match it if it has wildcards (* ?); may be repeated",
    )
    return made


class Record:
    """The record of one running driver: its rows, failures and their reasons, and the time that is left.

    `headline` is the line about it in the summary of a lease.
    """

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.name, self.out, self.device = arguments.name or name, arguments.out, arguments.device
        self.headline = ""
        self.rows: list[dict[str, Any]] = []
        self.not_available: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.left_out: list[str] = []
        self.content: dict[str, Any] = {"part": self.name, "commit": commit(), "machine": machine(self.device)}
        self._only, self._matched = list(arguments.only), set[str]()
        self._end = time.monotonic() + arguments.seconds

    def wants(self, what: str) -> bool:
        """Whether --only asks for `what`."""
        found = {pattern for pattern in self._only if _names(pattern, what)}
        self._matched |= found
        return bool(found) or not self._only

    def has_time(self, what: str) -> bool:
        """Whether `what` may still start; if not, it is listed as left out."""
        if time.monotonic() < self._end:
            return True
        self.left_out.append(what)
        return False

    def fail(self, what: str, problem: Exception) -> None:
        self.failed[what] = f"{type(problem).__name__}: {first_line(problem)}"

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside the context Ctrl-C ends the measuring, but the record so far is still written."""
        try:
            yield
        except KeyboardInterrupt:
            self.left_out.append("the rest: interrupted")

    def finish(self, columns: Sequence[str], *more: str) -> int:
        """Writes the JSON file and the table, prints the table and `more` lines, and returns the exit status."""
        for pattern in self._only:
            if pattern not in self._matched:
                self.failed[f"--only {pattern}"] = "nothing has such a name"
        self.out.mkdir(parents=True, exist_ok=True)
        rest = {
            "headline": self.headline,
            "columns": list(columns),
            "rows": self.rows,
            "not_available": self.not_available,
            "failed": self.failed,
            "left_out": self.left_out,
        }
        write_json(self.out / f"{self.name}.json", {**self.content, **rest})
        text = "\n".join([self._title(), "", *table(columns, self.rows), "", *more, *self._remarks()])
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


def first_line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [""])[0]


def _names(pattern: str, what: str) -> bool:
    return fnmatchcase(what, pattern) if set(pattern) & set("*?[") else pattern in what


def machine(device: torch.device) -> dict[str, Any]:
    """The machine as `fastbound bench` describes it, with the details of its GPU."""
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
    """The commit that is measured; the environment names it if the checkout has no history."""
    return os.environ.get("FASTBOUND_COMMIT") or package.commit(package.ROOT)
