"""Reports as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def print_reports(reports: Sequence[dict], title: str) -> None:
    shares = {"clean error": "clean_error", "PGD error": "pgd_error"}
    if "vra" in reports[0]:
        shares |= {"VRA": "vra", "rejected": "rejected_fraction"}
    else:
        shares |= {"verified error": "verified_error"}
    table = Table(f"eps ({reports[0]['norm']})", "method", "samples", *shares, title=title)
    for report in reports:
        values = [report.get(key) for key in shares.values()]
        table.add_row(
            f"{report['eps']:.4g}",
            str(report["method"]),
            str(report["num_samples"]),
            *("-" if share is None else f"{share:.2%}" for share in values),
        )
    Console().print(table)
