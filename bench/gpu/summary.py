"""The summary of a lease: first a table of its parts and how they ended, then ends of logs and the parts' tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.gpu.tables import table

OK, FAILED, LATE, SILENT, NOT_RUN = "ok", "FAILED", "OUT OF TIME", "PRINTED NOTHING", "NOT RUN"
COLUMNS = ("part", "result", "seconds", "box", "summary")
LONGEST_CELL, LONGEST_SECTION = 220, 4000  # characters
LARGEST_JSON = 8 * 2**20  # bytes: a larger file is not a part's table


@dataclass(frozen=True)
class Outcome:
    """The result of a part, its seconds out of its time box, and a line about its findings."""

    part: str
    result: str
    seconds: float
    box: float
    summary: str
    commit: str = "unknown"


def text(title: str, outcomes: Sequence[Outcome], notes: Sequence[str], results: Path, characters: int) -> str:
    """Title, table, notes; then, within `characters`, logs of the parts that failed and tables of the others."""
    rows = [{**asdict(one), "seconds": f"{one.seconds:.1f}", "box": f"{one.box:.0f}"} for one in outcomes]
    rows = [{**row, "summary": _cut(row["summary"], LONGEST_CELL)} for row in rows]
    told = "\n".join([title, "", *table(COLUMNS, rows), "", *(f"- {note}" for note in notes)])
    wrong = [one for one in outcomes if one.result not in (OK, NOT_RUN)]
    right = sorted((one for one in outcomes if one.result == OK), key=lambda one: one.part == "environment")
    for index, one in enumerate([*wrong, *right]):
        failed = index < len(wrong)
        name = f"{one.part}.log" if failed else f"{one.part}.md"
        left = (characters - len(told)) // max(1, len(wrong) - index) - len(name) - 30
        shown = ends(results / name, *((0, left) if failed else (left, 0)), limit=LONGEST_SECTION).strip()
        if shown and left > 200:
            told += f"\n\n## {'end of ' if failed else ''}{name}\n\n{shown}"
    return told


def line_about(part: str, results: Path) -> str:
    """A part's own headline, or the last line that it printed; empty if it printed nothing."""
    headline = read_json(results / f"{part}.json").get("headline")
    if isinstance(headline, str) and headline:
        return headline
    printed = [line.strip() for line in ends(results / f"{part}.log", 0, 4000).splitlines() if line.strip()]
    return printed[-1].strip("= ") if printed else ""


def ends(path: Path, head: int, tail: int, limit: int | None = None) -> str:
    """About the first `head` and the last `tail` bytes of a file as text, however large it is; empty without a file."""
    head, tail = (max(0, n if limit is None else min(n, limit)) for n in (head, tail))
    if not path.is_file():
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= head + tail:
            return file.read().decode("utf-8", errors="replace")
        first = file.read(head).decode("utf-8", errors="replace")
        file.seek(size - tail)
        last = file.read(tail).decode("utf-8", errors="replace")
    between = f"\n... {size - head - tail} bytes left out ...\n" if head and tail else " ..." if head else ""
    return first + between + last


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            return {}
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def known_outcomes(results: Path) -> list[Outcome]:
    """The outcomes of an earlier call, from its lease.json in `results`."""
    found = []
    entries = read_json(results / "lease.json").get("parts")
    for entry in entries if isinstance(entries, list) else []:
        try:
            found.append(Outcome(**entry))
        except TypeError:  # of another version, or damaged
            continue
    return found


def _cut(words: str, characters: int) -> str:
    return words if len(words) <= characters else words[: characters - 4] + " ..."
