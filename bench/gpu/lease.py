"""Runs the parts of `order.py` one after the other, each in a process of its own with its own time, and sums them up.

Nothing that one part does, fails to do or never ends doing keeps the others from running. After each part the summary
and the archive in OUT are as complete as they can be, so that a lease that is cut off has still said what it knew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from bench.gpu import archive, package
from bench.gpu.order import LEASE_SECONDS, PARTS, RERUN_SECONDS, Part, Setting
from bench.gpu.tables import table

PRINTED = 11_000  # characters: what a tool that shows the end of an output is sure to show
LEAST_SECONDS = 5.0  # a part that would have less is not started
RESERVE_SECONDS = 6.0  # at the end, for the last archive and the summary
LONGEST_TOLD, LONGEST_SECTION = 220, 4000  # characters of a cell, of a log or table below
GRACE_SECONDS = 5.0  # between the interrupt of a part and its end, inside its box

# What a fresh lease makes in its work folder; a rerun goes on with it.
MADE = ("results", "runs", "images", "module", "site", "triton-cache", "pytest")

OK, FAILED, LATE, SILENT, NOT_RUN = "ok", "FAILED", "OUT OF TIME", "PRINTED NOTHING", "NOT RUN"


@dataclass(frozen=True)
class Outcome:
    """How a part ended, after how many seconds, and what there is to say of it in a line."""

    part: str
    result: str
    seconds: float
    box: float
    told: str


def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    started = time.monotonic()
    chosen = _options(parts).parse_args(arguments)
    if chosen.list:
        print(
            *(f"{part.name:<16} {part.seconds:>4} s{'' if part.routine else '  on request'}" for part in parts),
            sep="\n",
        )
        return 0
    setting = _setting(chosen)
    lease = Lease(setting, chosen.out, started, chosen.seconds or (RERUN_SECONDS if chosen.rerun else LEASE_SECONDS))
    asked = _asked(parts, chosen, setting)
    lease.prepare(chosen.prepared)
    lease.run(asked)
    print(lease.summary(PRINTED), flush=True)
    return 0 if all(outcome.result == OK for outcome in lease.outcomes) else 1


def _options(parts: Sequence[Part]) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="bench/gpu/lease.sh", description="Measures and tests fastbound on a GPU.")
    options.add_argument("out", type=Path, nargs="?", default=Path("build/lease/out"), help="folder for the results")
    names = [part.name for part in parts]
    options.add_argument("--only", action="append", choices=names, metavar="PART", help="some parts; repeat it")
    options.add_argument("--rerun", action="store_true", help="what failed before, then the parts that are no routine")
    options.add_argument("--list", action="store_true", help="name the parts and their boxes")
    options.add_argument("--seconds", type=float, help=f"for all parts: {LEASE_SECONDS}, or {RERUN_SECONDS} in a rerun")
    options.add_argument("--prepared", type=Path, default=Path(".lease"), help="what `make lease` made")
    options.add_argument("--work", type=Path, default=Path("build/lease/work"), help="for runs and caches; kept")
    options.add_argument("--data-dir", type=Path, help="binary files of CIFAR-10, in place of the prepared archive")
    options.add_argument("--device", default="cuda", help="cpu rehearses the order; its figures mean nothing")
    options.add_argument("--small", action="store_true", help="tiny sizes; with --device cpu")
    return options


def _setting(chosen: argparse.Namespace) -> Setting:
    work = chosen.work.resolve()
    return Setting(
        tree=package.ROOT,
        results=work / "results",
        work=work,
        device=chosen.device,
        small=chosen.small,
        rerun=chosen.rerun,
        data=chosen.data_dir.resolve() if chosen.data_dir else None,
    )


def _asked(parts: Sequence[Part], chosen: argparse.Namespace, setting: Setting) -> list[Part]:
    """The parts of this call; in a rerun those that failed, then those that are no routine; what they need first."""
    routine, on_request = ([part for part in parts if part.routine is wanted] for wanted in (True, False))
    if chosen.only:
        asked = [part for part in parts if part.name in chosen.only]
    elif chosen.rerun:
        before = _read_json(setting.results / "lease.json").get("parts", [])
        bad = [entry["part"] for entry in before if entry["result"] != OK]
        asked = [part for part in routine if part.name in bad] + on_request
    else:
        asked = routine
    needed = {name for part in asked for name in part.needs if not (chosen.rerun and (setting.work / name).exists())}
    return [part for part in parts if part.name in needed and part not in asked] + asked


class Lease:
    """The parts of one call, the time that is left to them, and what has come of those that have run."""

    def __init__(self, setting: Setting, out: Path, started: float, seconds: float) -> None:
        self.setting, self.out = setting, out.resolve()
        self.started, self.seconds = started, seconds
        self.outcomes: list[Outcome] = []
        self.notes: list[str] = []
        self.environment = dict(os.environ)
        self.date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._running, self._stopped = False, False

    def prepare(self, prepared: Path) -> None:
        """Fresh folders, the package, Triton's cache. What is missing becomes a note: the parts will say the rest."""
        if not self.setting.rerun:
            for name in MADE:
                shutil.rmtree(self.setting.work / name, ignore_errors=True)
        self.setting.results.mkdir(parents=True, exist_ok=True)
        self.out.mkdir(parents=True, exist_ok=True)
        about = _read_json(prepared / "prepared.json")
        site, cache = self.setting.work / "site", self.setting.work / "triton-cache"
        module = self._module(prepared, about)
        path = [str(self.setting.tree)]
        if module is not None:
            package.link(self.setting.tree, module, site)
            path.insert(0, str(site))
        images = prepared / "images.tar.xz"
        if self.setting.data is None and images.exists():
            name = about.get("images")
            self.setting = replace(self.setting, archive=images, data=self.setting.work / "images", data_name=name)
        try:
            archive.unpack_triton_cache(prepared / "triton-cache.tar.xz", cache)
        except (OSError, archive.tarfile.TarError) as problem:
            self.notes.append(f"no prepared Triton cache, kernels are compiled as they are met ({problem})")
        self.environment |= {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "TRITON_CACHE_DIR": str(cache),
            "TRITON_STORE_BINARY_ONLY": "1",
            "FASTBOUND_COMMIT": self._commit(about),
        }
        if self.setting.small:
            self.environment["OMP_NUM_THREADS"] = "1"

    def _module(self, prepared: Path, about: dict) -> Path | None:
        """The built module, from the prepared folder or the tree; None where an installation has to serve."""
        packed = prepared / "module.tar.xz"
        if not packed.exists():
            built = self.setting.tree / "fastbound" / package.MODULE
            return built if built.exists() else None
        where = self.setting.work / "module"
        try:
            archive.unpack(packed, where)
        except (OSError, archive.tarfile.TarError) as problem:
            self.notes.append(f"{packed} cannot be unpacked ({problem})")
            return None
        if not (where / package.MODULE).exists():
            self.notes.append(f"{packed} has no {package.MODULE}: it was prepared for another version of Python")
            return None
        if about.get("built_from") != package.fingerprint(self.setting.tree, package.BUILT_FROM):
            self.notes.append("STALE MODULE: csrc has changed since `make lease`; run it again")
        return where / package.MODULE

    def _commit(self, about: dict) -> str:
        """The commit: said by the environment, by the prepared folder (with a mark where the tree differs), by git."""
        if "FASTBOUND_COMMIT" in os.environ:
            return os.environ["FASTBOUND_COMMIT"]
        if "commit" in about:
            same = about.get("sources") == package.fingerprint(self.setting.tree)
            return about["commit"] + ("" if same else ", changed since")
        git = shutil.which("git")
        command = [git or "git", "-C", str(self.setting.tree), "describe", "--always", "--dirty"]
        found = subprocess.run(command, capture_output=True, text=True).stdout.strip() if git else ""
        return found or "unknown"

    def run(self, parts: Sequence[Part]) -> None:
        """Every part, in a box that ends with the lease at the latest."""
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for index, part in enumerate(parts):
                if self._stopped:
                    self.outcomes.append(Outcome(part.name, NOT_RUN, 0.0, part.seconds, "the lease was stopped"))
                else:
                    last = index == len(parts) - 1
                    self.outcomes.append(self._run(part, self._left() if last and part.takes_rest else part.seconds))
                self._write(parts[index + 1 :])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        self._stopped = True
        if self._running:
            raise KeyboardInterrupt

    def _left(self) -> float:
        return self.seconds - RESERVE_SECONDS - (time.monotonic() - self.started)

    def _run(self, part: Part, seconds: float) -> Outcome:
        box = min(seconds, self._left())
        if box < LEAST_SECONDS:
            return Outcome(part.name, NOT_RUN, 0.0, box, "no time was left")
        started = time.monotonic()
        log = self.setting.results / f"{part.name}.log"
        for old in self.setting.results.glob(f"{part.name}.*"):
            old.unlink()
        try:
            command = part.command(self.setting, box)
            if isinstance(command, str):
                return Outcome(part.name, NOT_RUN, 0.0, box, command)
            with log.open("w", encoding="utf-8") as lines:
                result = self._watch(command, lines, box)
        except (OSError, ValueError) as problem:  # a program or a file that is missing
            return Outcome(part.name, FAILED, time.monotonic() - started, box, f"did not start: {problem}")
        except KeyboardInterrupt:
            return Outcome(part.name, NOT_RUN, time.monotonic() - started, box, "the lease was stopped")
        seconds = time.monotonic() - started
        told = self._told(part.name, log)
        if result == OK and not told:
            return Outcome(part.name, SILENT, seconds, box, "status 0, and not a word")
        result, _, why = result.partition(" (")
        return Outcome(part.name, result, seconds, box, f"({why} {told}" if why else told)

    def _watch(self, command: list[str], lines: object, box: float) -> str:
        """Starts a part and ends it inside its box: by SIGINT, so that it can still write, then by SIGKILL."""
        process = subprocess.Popen(
            command,
            cwd=self.setting.tree,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=lines,  # type: ignore[arg-type]
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        grace = min(GRACE_SECONDS, box / 4)
        self._running = True
        try:
            status = process.wait(box - grace)
            return OK if status == 0 else f"{FAILED} (status {status})"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                return f"{LATE} (killed)"
            return LATE
        finally:
            self._running = False
            _kill_group(process)

    def _told(self, name: str, log: Path) -> str:
        """A part's own headline, or the last line that it printed."""
        headline = _read_json(self.setting.results / f"{name}.json").get("headline")
        if headline:
            return headline
        printed = [line.strip() for line in _read(log).splitlines() if line.strip()]
        return printed[-1].strip("= ") if printed else ""

    def _write(self, to_come: Sequence[Part]) -> None:
        """The summary and the archive of this moment."""
        content = {
            "started": self.date,
            "commit": self.environment.get("FASTBOUND_COMMIT"),
            "device": self.setting.device,
            "small": self.setting.small,
            "rerun": self.setting.rerun,
            "seconds": round(time.monotonic() - self.started, 1),
            "of": self.seconds,
            "notes": self.notes,
            "parts": [asdict(outcome) for outcome in self.outcomes],
        }
        text = json.dumps(content, indent=1)
        (self.setting.results / "lease.json").write_text(text + "\n", encoding="utf-8")
        coming = f"\nstill to come: {', '.join(part.name for part in to_come)}\n" if to_come else "\n"
        (self.out / "summary.md").write_text(self.summary(100_000) + coming, encoding="utf-8")
        hidden = {str(self.setting.work): "WORK", str(self.setting.tree): "TREE"}
        hidden |= {sys.prefix: "PYTHON"} if sys.prefix != sys.base_prefix else {}
        archive.pack(self.setting.results, self.out / "results.tar.gz", hidden)

    def summary(self, characters: int) -> str:
        """The table first; then the notes, the ends of the logs of what went wrong, and the tables of what did not."""
        told = [{**asdict(one), "seconds": f"{one.seconds:.1f}", "box": f"{one.box:.0f}"} for one in self.outcomes]
        rows = [{**row, "told": _cut(str(row["told"]), LONGEST_TOLD)} for row in told]
        lines = [self._title(), "", *table(("part", "result", "seconds", "box", "told"), rows)]
        text = "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])
        wrong = [one for one in self.outcomes if one.result not in (OK, NOT_RUN)]
        right = sorted((one for one in self.outcomes if one.result == OK), key=lambda one: one.part == "environment")
        sections = [(f"end of {one.part}.log", self.setting.results / f"{one.part}.log") for one in wrong]
        sections += [(f"{one.part}.md", self.setting.results / f"{one.part}.md") for one in right]
        for index, (title, path) in enumerate(sections):
            share = min(LONGEST_SECTION, (characters - len(text)) // max(1, len(wrong) - index) - len(title) - 20)
            content = _read(path).strip()
            if content and share > 200:
                shown = content[-share:] if index < len(wrong) else _cut(content, share)
                text += f"\n\n## {title}\n\n{shown}"
        return text

    def _title(self) -> str:
        about = _read_json(self.setting.results / "environment.json").get("machine", {})
        where = about.get("gpu") or about.get("processor") or self.setting.device
        rehearsed = "" if self.setting.device.startswith("cuda") else " (a rehearsal: no figure counts)"
        spent = time.monotonic() - self.started
        bad = sum(one.result != OK for one in self.outcomes)
        verdict = f"{bad} of {len(self.outcomes)} parts not ok" if bad else f"all {len(self.outcomes)} parts ok"
        commit = self.environment.get("FASTBOUND_COMMIT")
        return f"# Lease: {verdict}; {where}{rehearsed}, commit {commit}, {spent:.0f} of {self.seconds:.0f} s"


def _kill_group(process: subprocess.Popen) -> None:
    """Nothing that a part started may run beside the next one, on the card least of all."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver: the lease goes on without it
        process.wait(2)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _read_json(path: Path) -> dict:
    try:
        return json.loads(_read(path))
    except ValueError:
        return {}


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 4] + " ..."


if __name__ == "__main__":
    sys.exit(main())
