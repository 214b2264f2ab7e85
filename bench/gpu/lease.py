"""Runs the parts of `order.py` one after the other, each in a process of its own with its own time, and sums them up.

A part that fails, hangs, floods its log or leaves processes running does not keep the others from running. Summary and
archive in OUT are updated after each part, so that a lease that is cut off leaves all results so far.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

from bench.gpu import archive, package, summary
from bench.gpu.order import LEASE_SECONDS, PARTS, RERUN_SECONDS, Part, Setting
from bench.gpu.summary import FAILED, LATE, NOT_RUN, OK, SILENT, Outcome

PRINTED = 11_000  # characters: shown whole even by tools that only show the end of an output
LEAST_SECONDS = 5.0  # a part with less time is not started
RESERVE_SECONDS = 6.0  # at the end, for the last archive and the summary
GRACE_SECONDS = 5.0  # between the interrupt of a part and its end, inside its box
LARGEST_FILE = 2**30  # bytes of one file of a part: enough for a checkpoint, not for a runaway log

# What a lease creates in its work folder, and the file that marks the folder as its own.
MADE = ("results", "runs", "images", "module", "site", "triton-cache", "pytest")
MARK = "work-of-a-lease"
# Variables under which Triton would not find the prepared kernels in its cache.
UNSET = ("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH", "TRITON_CACHE_MANAGER", "TRITON_ALWAYS_COMPILE")


def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    started = time.monotonic()
    options = _options(parts)
    chosen = options.parse_args(arguments)
    if chosen.list:
        for part in parts:
            print(f"{part.name:<16} {part.seconds:>4} s{'' if part.routine else '  on request'}")
        return 0
    out, work = (chosen.caller / path for path in (chosen.out, chosen.work))
    if work.is_dir() and any(work.iterdir()) and not (work / MARK).exists():
        options.error(f"--work: {work} holds other things; name a folder that a lease may clear")
    if work in (out, *out.parents):
        options.error(f"OUT: {out} is inside the work folder {work}")
    lease = Lease(_setting(chosen, work), out, started, chosen.seconds or _seconds(chosen))
    lease.prepare(chosen.prepared, fresh=not chosen.rerun and not chosen.only)
    lease.run(_asked(parts, chosen, lease))
    print(lease.text(PRINTED), flush=True)
    return 0 if all(outcome.result == OK for outcome in lease.outcomes) else 1


def _options(parts: Sequence[Part]) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="bench/gpu/lease.sh", description="Measures and tests fastbound on a GPU.")
    options.add_argument("out", type=Path, nargs="?", default=Path("build/lease/out"), help="folder for the results")
    names = [part.name for part in parts]
    options.add_argument("--only", action="append", choices=names, metavar="PART", help="some parts; repeat it")
    options.add_argument("--rerun", action="store_true", help="the parts that failed before, then the parts on request")
    options.add_argument("--list", action="store_true", help="list the parts and their time boxes")
    options.add_argument("--seconds", type=float, help=f"for all parts: {LEASE_SECONDS}, or {RERUN_SECONDS} in a rerun")
    options.add_argument("--prepared", type=Path, default=package.ROOT / ".lease", help="what `make lease` made")
    work = package.ROOT / "build/lease/work"
    options.add_argument("--work", type=Path, default=work, help="for runs and caches; a lease of all parts clears it")
    options.add_argument("--data-dir", type=Path, help="binary files of CIFAR-10, in place of the prepared archive")
    options.add_argument("--device", default="cuda", help="cpu rehearses the order; its figures mean nothing")
    options.add_argument("--small", action="store_true", help="tiny sizes; with --device cpu")
    options.add_argument("--caller", type=Path, default=Path.cwd(), help=argparse.SUPPRESS)  # paths are relative to it
    return options


def _seconds(chosen: argparse.Namespace) -> float:
    return RERUN_SECONDS if chosen.rerun else LEASE_SECONDS


def _setting(chosen: argparse.Namespace, work: Path) -> Setting:
    return Setting(
        tree=package.ROOT,
        results=work / "results",
        work=work,
        device=chosen.device,
        small=chosen.small,
        rerun=chosen.rerun,
        data=chosen.caller / chosen.data_dir if chosen.data_dir else None,
    )


def _asked(parts: Sequence[Part], chosen: argparse.Namespace, lease: Lease) -> list[Part]:
    """The parts of this call, after the parts that they need; in a rerun those that failed, then those on request."""
    routine, on_request = ([part for part in parts if part.routine is wanted] for wanted in (True, False))
    if chosen.only:
        asked = [part for part in parts if part.name in chosen.only]
    elif chosen.rerun:
        bad = [outcome.part for outcome in lease.earlier if outcome.result != OK]
        if not lease.earlier:
            lease.notes.append(
                "NOTHING IS KNOWN of an earlier lease, so none of its parts ran again: put its results.tar.gz into "
                ".lease, or name parts by --only"
            )
        asked = [part for part in routine if part.name in bad] + on_request
    else:
        asked = routine
    needed = {name for part in asked for name in part.needs if not (lease.setting.work / name).exists()}
    return [part for part in parts if part.name in needed and part not in asked] + asked


class Lease:
    """The parts of one call, the time that is left, and the outcomes so far.

    `earlier`: the outcomes of earlier calls, whose results are kept along with those of this one.
    """

    def __init__(self, setting: Setting, out: Path, started: float, seconds: float) -> None:
        self.setting, self.out = setting, out
        self.started, self.seconds = started, seconds
        self.outcomes: list[Outcome] = []
        self.earlier: list[Outcome] = []
        self.notes: list[str] = []
        self.environment = {name: value for name, value in os.environ.items() if name not in UNSET}
        self.date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._running, self._stopped, self._prepared_kernels = False, False, 0

    def prepare(self, prepared: Path, fresh: bool) -> None:
        """Prepares folders, package and Triton's cache. Missing files become notes; the parts say what follows."""
        work, results = self.setting.work, self.setting.results
        for name in MADE if fresh else ():
            shutil.rmtree(work / name, ignore_errors=True)
        results.mkdir(parents=True, exist_ok=True)
        (work / MARK).touch()
        self.out.mkdir(parents=True, exist_ok=True)
        if not fresh:
            if not (results / "lease.json").exists() and (prepared / "results.tar.gz").exists():
                self._try("the earlier results", archive.unpack, prepared / "results.tar.gz", results)
            self.earlier = summary.known_outcomes(results)
        if not prepared.is_dir():
            self.notes.append(f"there is no prepared folder {prepared.name}: `make lease` makes it")
        about = summary.read_json(prepared / "prepared.json")
        self._try("the package", self._link, prepared, about)
        images = prepared / "images.tar.xz"
        if self.setting.data is None and images.exists():
            name = about.get("images")
            self.setting = replace(self.setting, archive=images, data=work / "images", data_name=name)
        cache = work / "triton-cache"
        if (prepared / "triton-cache.tar.xz").exists():
            self._try("Triton's cache", archive.unpack_triton_cache, prepared / "triton-cache.tar.xz", cache)
        self._prepared_kernels = _kernels(cache)
        self.environment |= {
            "PYTHONPATH": os.pathsep.join([str(work / "site"), str(self.setting.tree)]),
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "TRITON_CACHE_DIR": str(cache),
            "TRITON_STORE_BINARY_ONLY": "1",
            "FASTBOUND_COMMIT": self._commit(about),
        }
        if self.setting.small:
            self.environment["OMP_NUM_THREADS"] = "1"

    def _try(self, what: str, action: object, *arguments: object) -> None:
        try:
            action(*arguments)  # type: ignore[operator]
        except Exception as problem:  # a damaged archive raises many kinds of errors
            self.notes.append(f"{what} could not be prepared ({type(problem).__name__}: {problem})")

    def _link(self, prepared: Path, about: dict) -> None:
        """Links the package with the prepared module, else with the tree's; without either it must be installed."""
        site, tree = self.setting.work / "site", self.setting.tree
        shutil.rmtree(site, ignore_errors=True)
        packed, where = prepared / "module.tar.xz", self.setting.work / "module"
        module = tree / "fastbound" / package.MODULE
        if packed.exists():
            archive.unpack(packed, where)
            module = where / package.MODULE
            if not module.exists():
                raise ValueError(f"{packed.name} has no {package.MODULE}: it is for another version of Python")
            if about.get("built_from") != package.fingerprint(tree, package.BUILT_FROM):
                self.notes.append("STALE MODULE: csrc has changed since `make lease`; run it again")
        if module.exists():
            package.link(tree, module, site)

    def _commit(self, about: dict) -> str:
        """The commit, from the environment, the prepared folder (with a note if the tree differs) or git."""
        if "FASTBOUND_COMMIT" in os.environ:
            return os.environ["FASTBOUND_COMMIT"]
        if "commit" in about:
            same = about.get("sources") == package.fingerprint(self.setting.tree)
            return str(about["commit"]) + ("" if same else ", changed since")
        return package.commit(self.setting.tree)

    def run(self, parts: Sequence[Part]) -> None:
        """Runs every part in its time box, which ends with the lease at the latest."""
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for index, part in enumerate(parts):
                last = index == len(parts) - 1
                box = min(self._left() if last and part.takes_rest else part.seconds, self._left())
                started = time.monotonic()
                result, line = (NOT_RUN, "the lease was stopped") if self._stopped else self._run(part, box)
                commit = self.environment["FASTBOUND_COMMIT"]
                self.outcomes.append(Outcome(part.name, result, time.monotonic() - started, box, line, commit))
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

    def _run(self, part: Part, box: float) -> tuple[str, str]:
        """The result of a part, and a line about it."""
        if box < LEAST_SECONDS:
            return NOT_RUN, "no time was left"
        for old in self.setting.results.glob(f"{part.name}.*"):
            old.unlink()
        try:
            command = part.command(self.setting, box)
            if isinstance(command, str):
                return NOT_RUN, command
            result, why = self._watch(command, self.setting.results / f"{part.name}.log", box)
        except (OSError, ValueError) as problem:  # a program or a file that is missing
            return FAILED, f"did not start: {problem}"
        except KeyboardInterrupt:
            return NOT_RUN, "the lease was stopped"
        line = summary.line_about(part.name, self.setting.results)
        if result == OK and not line:
            return SILENT, "status 0, and not a word"
        return result, f"({why}) {line}" if why else line

    def _watch(self, command: list[str], log: Path, box: float) -> tuple[str, str]:
        """Runs a part and ends it within its time box: by SIGINT, so that it can still write, then by SIGKILL."""
        with log.open("wb") as lines:
            process = subprocess.Popen(
                command,
                cwd=self.setting.tree,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_limit_files,
            )
        grace = min(GRACE_SECONDS, box / 4)
        self._running = True
        try:
            status = process.wait(box - grace)
            return (OK, "") if status == 0 else (FAILED, f"status {status}")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                return LATE, "killed"
            return LATE, ""
        finally:
            self._running = False
            _kill_group(process)

    def _write(self, to_come: Sequence[Part]) -> None:
        """Writes summary and archive as they are now; a full disk is no reason to stop."""
        mine = {outcome.part for outcome in self.outcomes}
        known = [outcome for outcome in self.earlier if outcome.part not in mine] + self.outcomes
        content = {
            "started": self.date,
            "commit": self.environment["FASTBOUND_COMMIT"],
            "device": self.setting.device,
            "small": self.setting.small,
            "rerun": self.setting.rerun,
            "seconds": round(time.monotonic() - self.started, 1),
            "of": self.seconds,
            "notes": self._notes(),
            "parts": [asdict(outcome) for outcome in known],
        }
        hidden = {str(self.setting.work): "WORK", str(self.setting.tree): "TREE"}
        hidden |= {sys.prefix: "PYTHON"} if sys.prefix != sys.base_prefix else {}
        coming = f"\nstill to come: {', '.join(part.name for part in to_come)}\n" if to_come else "\n"
        try:
            text = json.dumps(content, indent=1) + "\n"
            (self.setting.results / "lease.json").write_text(text, encoding="utf-8")
            (self.out / "summary.md").write_text(self.text(100_000) + coming, encoding="utf-8")
            archive.pack(self.setting.results, self.out / "results.tar.gz", hidden)
        except OSError as problem:
            self.notes.append(f"the results could not be written ({problem})")

    def _notes(self) -> list[str]:
        compiled = _kernels(self.setting.work / "triton-cache") - self._prepared_kernels
        if compiled <= 0 or not self.setting.on_gpu:
            return self.notes
        prepared = self._prepared_kernels
        return [*self.notes, f"{compiled} Triton kernels were compiled in the lease; {prepared} had been prepared"]

    def text(self, characters: int) -> str:
        """The summary that is printed, with the table first."""
        results = self.setting.results
        about = summary.read_json(results / "environment.json").get("machine", {})
        where = about.get("gpu") or about.get("processor") or self.setting.device
        rehearsed = "" if self.setting.on_gpu else " (a rehearsal: no figure counts)"
        spent = time.monotonic() - self.started
        bad = sum(one.result != OK for one in self.outcomes)
        verdict = f"{bad} of {len(self.outcomes)} parts not ok" if bad else f"all {len(self.outcomes)} parts ok"
        commit = self.environment["FASTBOUND_COMMIT"]
        title = f"# Lease: {verdict}; {where}{rehearsed}, commit {commit}, {spent:.0f} of {self.seconds:.0f} s"
        return summary.text(title, self.outcomes, self._notes(), results, characters)


def _kernels(cache: Path) -> int:
    return sum(1 for _ in cache.glob("*/*.cubin"))


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))


def _kill_group(process: subprocess.Popen) -> None:
    """Ends all processes of a part: none may run, or use the card, during the next one."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver: the lease goes on without it
        process.wait(2)


if __name__ == "__main__":
    sys.exit(main())
