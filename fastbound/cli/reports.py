"""Reports as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def print_reports(reports: Sequence[dict], title: str) -> None:
    table = Table("eps", "method", "samples", "clean error", "PGD error", "verified error", title=title)
    for report in reports:
        attacked = report.get("pgd_error")
        table.add_row(
            f"{report['eps']:.4g}",
            str(report["method"]),
            str(report["num_samples"]),
            f"{report['clean_error']:.2%}",
            "-" if attacked is None else f"{attacked:.2%}",
            f"{report['verified_error']:.2%}",
        )
    Console().print(table)
