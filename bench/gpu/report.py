"""Stores the results of a lease in a folder under bench/results, and writes docs/gpu.md from all of these folders.

python -m bench.gpu.report OUT      OUT as `lease.sh` left it, or the results.tar.gz in it
python -m bench.gpu.report          writes the page anew
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu import archive
from bench.gpu.tables import table

ROOT = Path(__file__).resolve().parents[2]
KEPT = (".json", ".md", ".log")
# Words in a card's name that do not distinguish it from another.
COMMON = re.compile(r"nvidia|geforce|tesla|graphics|hbm\w*|pcie|sxm\w*|\d+gb", re.IGNORECASE)
REPLAYED = 20  # kernels of a step that the page lists

INTRODUCTION = """\
# On a GPU

What a card printed: `bench/gpu/lease.sh` ran there, and `python -m bench.gpu.report` wrote this page from what it
brought back ([bench/results](../bench/results/README.md)). No figure is written by hand.
"""
NOTHING = "\nNothing has run on a GPU yet. What the kernels are tested by until then: [backends](backends.md).\n"


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("source", type=Path, nargs="?", help="OUT of a lease, or its results.tar.gz")
    options.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    options.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md")
    chosen = options.parse_args(arguments)
    if chosen.source is not None:
        try:
            print(f"wrote {keep(chosen.source, chosen.results)}")
        except (OSError, ValueError, EOFError, tarfile.TarError) as problem:
            print(f"report: {chosen.source}: {problem}", file=sys.stderr)
            return 2
    chosen.page.write_text(page(chosen.results), encoding="utf-8")
    print(f"wrote {chosen.page}")
    return 0


def keep(source: Path, results: Path) -> Path:
    """Unpacks the results of a lease into a new folder `<date>-<card>` under `results`, and returns it.

    Raises ValueError if `source` holds no lease.
    """
    packed = source if source.is_file() else source / "results.tar.gz"
    if not packed.is_file():
        raise ValueError("wanted the folder OUT of a lease or its results.tar.gz, and there is none.")
    with tempfile.TemporaryDirectory() as temporary:
        unpacked = Path(temporary)
        archive.unpack(packed, unpacked)
        lease = _json(unpacked / "lease.json")
        if not lease:
            raise ValueError("wanted what lease.sh packs, found no lease.json in it.")
        target = _free(results / f"{lease['started'][:10]}-{_card(unpacked, lease)}")
        target.mkdir(parents=True)
        for path in sorted(unpacked.iterdir()):
            if path.suffix in KEPT:
                shutil.copyfile(path, target / path.name)
    return target


def _free(folder: Path) -> Path:
    """`folder`, or the same with a number if there is a lease of that day already."""
    number, free = 2, folder
    while free.exists():
        free = folder.with_name(f"{folder.name}-{number}")
        number += 1
    return free


def _card(folder: Path, lease: dict[str, Any]) -> str:
    if not lease["device"].startswith("cuda"):
        return "rehearsal"
    name = _json(folder / "environment.json").get("machine", {}).get("gpu", "unknown-card")
    return "-".join(COMMON.sub(" ", name).lower().split()) or "card"


def page(results: Path) -> str:
    """The text of docs/gpu.md: the newest lease of every card in full, the earlier ones by name."""
    folders = [path.parent for path in sorted(results.glob("*/lease.json"), reverse=True)]
    newest: dict[str, Path] = {}
    for folder in folders:
        newest.setdefault(re.sub(r"^\d+-\d+-\d+-|-\d+$", "", folder.name), folder)
    if not newest:
        return INTRODUCTION + NOTHING
    text = INTRODUCTION + "".join(_section(folder) for folder in newest.values())
    earlier = [folder.name for folder in folders if folder not in newest.values()]
    return text + (f"\nEarlier leases: {', '.join(earlier)}.\n" if earlier else "")


def _section(folder: Path) -> str:
    lease, environment = _json(folder / "lease.json"), _json(folder / "environment.json")
    about, packages = environment.get("machine", {}), environment.get("packages", {})
    rehearsed = not lease["device"].startswith("cuda")
    where = "Rehearsal on a processor" if rehearsed else about.get("gpu", "a card that did not say its name")
    known = [f"{name} {packages[name]}" for name in ("torch", "triton") if name in packages]
    versions = ", ".join(known) or "versions unknown"
    cuda = f", CUDA {about['cuda']}, cuDNN {about['cudnn']}" if "cuda" in about else ""
    several = {part.get("commit") for part in lease["parts"]} != {lease["commit"]}
    lines = [
        "",
        f"## {where}, {lease['started'][:10]}",
        "",
        *(["**Not a measurement**: the order ran on tiny sizes, to show that it works.", ""] if rehearsed else []),
        f"Commit {lease['commit']}; {versions}{cuda}; {lease['seconds']:.0f} of {lease['of']:.0f} s.",
        "",
        *table(("part", "result", "seconds", "summary", *(["commit"] if several else [])), lease["parts"]),
        *(line for note in lease["notes"] for line in ("", f"Note: {note}")),
    ]
    for title, name, columns, remark in TABLES:
        rows = _json(folder / f"{name}.json").get("rows", [])
        if rows:
            lines += ["", f"### {title}", "", remark, "", *table(columns, rows)]
    for name, kernels in _json(folder / "steps.json").get("replays", {}).items():
        title = f"The {min(REPLAYED, len(kernels))} most expensive of {len(kernels)} kernels of a call: {name}"
        lines += ["", f"### {title}", "", *table(("kernel", "launches", "us", "share"), kernels[:REPLAYED])]
    return "\n".join(lines) + "\n"


TABLES = (
    (
        "Whole steps",
        "steps",
        ("network", "batch", "step", "code", "precision", "mode", "ms", "x eager natural", "x its natural", "peak MiB"),
        "Forward, bounds, loss and backward, no optimiser. The unit is the eager natural step with torch's flags.",
    ),
    (
        "The recipe",
        "recipe",
        (
            *("config", "data", "precision", "epochs", "wall s", "training s", "certification s"),
            *("clean error", "PGD error", "verified error"),
        ),
        "One run, everything from reading the images to the attack included in its wall clock.",
    ),
    (
        "Convolutions",
        "convolutions",
        ("shape", "direction", "precision", "code", "ms", "TFLOP/s", "share of ceiling", "error", "allowed"),
        "Nominal stream, center and radius of CNN-7's layers; every value compared with float64.",
    ),
    (
        "Passes",
        "passes",
        ("kernel", "case", "precision", "ms", "GB/s", "share of ceiling"),
        "Element-wise work and sums; the ceiling is a large copy in the same run.",
    ),
)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
