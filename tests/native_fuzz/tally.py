"""The table of what was called."""

from __future__ import annotations

from collections import Counter


def table(counts: Counter[str]) -> str:  # of "<name> <kind of call>"
    """Calls, valid and spoilt ones, of each pass and primitive; and how often each kind was made."""
    names, kinds = Counter[str](), Counter[str]()
    for key, number in counts.items():
        name, kind = key.split(" ", 1)
        names[name] += number
        kinds[kind] += number
    rows = [f"{'':40}{'calls':>9}{'valid':>9}{'spoilt':>9}"]
    for name, number in sorted(names.items()):
        valid = counts[f"{name} accepted"]
        rows.append(f"{name:40}{number:9}{valid:9}{number - valid:9}")
    return "\n".join([*rows, "by kind: " + ", ".join(f"{kind} {number}" for kind, number in sorted(kinds.items()))])
