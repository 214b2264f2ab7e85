"""The command line: fastbound train | certify | study | bench | info.

Commands import what they run inside their functions, so that --help does not wait for torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from fastbound.cli.bench import bench
from fastbound.cli.certify import certify_run
from fastbound.cli.info import info
from fastbound.cli.study import study_runs
from fastbound.cli.train import train
from fastbound.errors import CaptureError, Diverged, Interrupted, ProcessLost, SoundnessError

app = typer.Typer(
    help="Certified training and certification by bound propagation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command("train")(train)
app.command("certify")(certify_run)
app.command("study")(study_runs)
app.command("bench")(bench)
app.command("info")(info)

# Exit codes of failures; 2 is also click's code for bad usage.
EXIT_ERROR, EXIT_UNSOUND, EXIT_LOST, EXIT_INTERRUPTED = 2, 3, 4, 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits; a user's mistake is one line on standard error instead of a traceback."""
    try:
        app(args=None if arguments is None else list(arguments))
    except SoundnessError as problem:
        _fail(problem, EXIT_UNSOUND)
    except ProcessLost as problem:
        _fail(f"{problem}. The checkpoint is usable: start again with --resume.", EXIT_LOST)
    except Interrupted as problem:
        _fail(problem, EXIT_INTERRUPTED)
    except (Diverged, CaptureError, ValueError, NotImplementedError, OSError) as problem:
        _fail(problem, EXIT_ERROR, once=True)
    sys.exit(0)


def _fail(problem: object, code: int, once: bool = False) -> NoReturn:
    # An error that all processes of a run have in common is printed by the first one only.
    if not once or os.environ.get("RANK", "0") == "0":
        print(f"fastbound: error: {problem}", file=sys.stderr, flush=True)
    sys.exit(code)
