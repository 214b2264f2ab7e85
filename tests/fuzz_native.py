"""Random calls of every pass of fastbound._C and of every primitive, in a build with sanitizers.

    python tests/fuzz_native.py --seconds 1200 --seed 0     what `make fuzz-native` runs
    python tests/fuzz_native.py --seed 0 --call 4711        one call again, with the whole of a sanitizer's report

A call follows from seed and number alone. Another process makes the calls, so that one that ends it, or never ends, is
a finding like any other; the next process goes on after it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from sanitized import build as sanitized

HERE = Path(__file__).resolve()
HANGS = 60  # seconds that no call needs
OPERATORS = 4  # one in so many calls is of a primitive


def make_calls(binary: str, folder: Path, seed: int, first: int, last: int | None, seconds: float) -> None:
    """The process that calls: it keeps its files in `folder` up to date."""
    sanitized.install(Path(binary))
    from native_fuzz import operators, verdicts

    from fastbound import _C

    end, counts, number = time.monotonic() + seconds, Counter(), first
    current = open(folder / "current", "w", buffering=1)  # noqa: SIM115

    def tell(text: str) -> None:
        current.seek(0)
        current.truncate()
        current.write(f"{number}\n{text}")
        current.flush()

    while time.monotonic() < end and (last is None or number <= last):
        rng = random.Random(f"{seed}:{number}")
        tell("drawing")
        draw = operators.one_call if number % OPERATORS == 0 else lambda r, t: verdicts.one_call(_C, r, t)
        name, what, problem = draw(rng, tell)
        counts[f"{name} {what}"] += 1
        if problem is not None:
            with open(folder / "findings", "a") as findings:
                text = (folder / "current").read_text().split("\n", 1)[1]
                findings.write(json.dumps([number, name, what, problem, text]) + "\n")
        number += 1
        if number % 20 == 0 or number == last:
            (folder / f"counts-{first}").write_text(json.dumps(counts))
    (folder / f"counts-{first}").write_text(json.dumps(counts))
    tell("done")


class Fuzzer:
    """The process that watches: it starts the others, and reports."""

    def __init__(self, seed: int) -> None:
        self.seed, self.binary = seed, sanitized.build()
        self.found: Counter[tuple[str, str, str]] = Counter()

    def report(self, number: int, name: str, what: str, problem: str, call: str) -> None:
        kind = (name, what, "".join(c for c in problem if not c.isdigit())[:40])
        self.found[kind] += 1
        if self.found[kind] == 1:
            again = f"python tests/fuzz_native.py --seed {self.seed} --call {number}"
            print(f"FINDING {name}, {what}: {problem}\n  {call}\n  again: {again}", flush=True)

    def run(self, seconds: float, first: int, last: int | None = None) -> bool:
        with tempfile.TemporaryDirectory() as name:
            folder, end = Path(name), time.monotonic() + seconds
            while time.monotonic() < end and (last is None or first <= last):
                first = self.process(folder, first, last, end - time.monotonic())
            for line in (folder / "findings").read_text().splitlines() if (folder / "findings").exists() else ():
                self.report(*json.loads(line))
            self.summary(folder)
        return not self.found

    def process(self, folder: Path, first: int, last: int | None, seconds: float) -> int:
        """One process, until it ends; the number of the call to go on with."""
        task = json.dumps([str(self.binary), str(folder), self.seed, first, last, seconds])
        current = folder / "current"
        with open(folder / "errors", "w+") as errors:
            command = [sys.executable, str(HERE), "--calls", task]
            child = subprocess.Popen(command, env=sanitized.environment(), stderr=errors)
            hangs = False
            while child.poll() is None:
                time.sleep(0.05)
                if current.exists() and time.time() - current.stat().st_mtime > HANGS:
                    child.kill()
                    hangs = child.wait() != 0
            errors.seek(0)
            text = errors.read()
        if not current.exists():
            raise SystemExit(f"the process that calls did not start:\n{text}")
        number, call = current.read_text().split("\n", 1)
        current.unlink()
        if call == "done":
            return int(number) + 1 if last is None else last + 1
        if last == first:
            print(text)
        what, _, rest = call.partition(" ")
        problem = f"took more than {HANGS} s" if hangs else ended(child.returncode, text)
        self.report(int(number), rest.partition("(")[0], what, problem, call)
        return int(number) + 1

    def summary(self, folder: Path) -> None:
        from native_fuzz.tally import table

        counts: Counter[str] = Counter()
        for part in folder.glob("counts-*"):
            counts.update(json.loads(part.read_text()))
        print(table(counts))
        for (name, what, problem), times in sorted(self.found.items()):
            print(f"{times:6} times {name}, {what}: {problem} ...")
        print(f"seed {self.seed}: {sum(counts.values())} calls judged, {len(self.found)} kinds of findings")


def ended(code: int, errors: str) -> str:
    """What a sanitizer said, or the signal."""
    marks = ("runtime error:", "ERROR: AddressSanitizer", "Error:", "Assertion")
    lines = [line for line in errors.splitlines() if any(mark in line for mark in marks)]
    frames = [line.strip() for line in errors.splitlines() if "csrc/" in line and line.strip().startswith("#")]
    return f"the process ended with {code}: {' '.join([*lines[:1], *frames[:1]])}"


def main() -> int:
    if sys.argv[1:2] == ["--calls"]:
        binary, folder, *rest = json.loads(sys.argv[2])
        make_calls(binary, Path(folder), *rest)
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--call", type=int, help="this call alone")
    options = parser.parse_args()
    fuzzer = Fuzzer(options.seed)
    one = options.call
    return 0 if fuzzer.run(options.seconds, 0 if one is None else one, one) else 1


if __name__ == "__main__":
    sys.exit(main())
