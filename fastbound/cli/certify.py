"""fastbound certify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from fastbound.choices import BALLS, BOUNDS
from fastbound.cli.reports import print_reports
from fastbound.cli.values import DataDir, Device, Threads, check_free, find_place, parse_radius, set_threads

if TYPE_CHECKING:
    from torch import nn

    from fastbound.certify import Attack, Report
    from fastbound.data import Loader
    from fastbound.train.settings import Trained


def certify_run(
    run: Annotated[Path, typer.Argument(help="Run folder of fastbound train.")],
    eps: Annotated[str | None, typer.Option(help="Radius; by default the one that the run was trained for.")] = None,
    norm: Annotated[
        str | None,
        typer.Option(help=f"Norm of the ball: {', '.join(BALLS)}; by default the one that the run was trained for."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"Bounds: {', '.join(BOUNDS)} (ibp by default), lp, a relaxation (fastbound train --list); for l2 "
            "lipschitz."
        ),
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Several radii, for example 0,0.05,0.1: a table and a picture.")
    ] = None,
    data_dir: DataDir = None,
    limit: Annotated[int | None, typer.Option(help="The first test images only.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images a batch.")] = 256,
    pgd_steps: Annotated[int, typer.Option(help="Steps of the attack; 0 for none.")] = 20,
    pgd_restarts: Annotated[int, typer.Option(help="Random starts of the attack.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the attack.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json (and sweep.json, sweep.png).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace reports that are in --out.")] = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Certify the model of a run folder on its test set, and attack it. Exit code 3: an attack broke a certificate."""
    from fastbound import data
    from fastbound.certify import Attack
    from fastbound.certify.balls import find_ball
    from fastbound.train.runs import RunFolder, load_run
    from fastbound.train.settings import read_trained

    set_threads(threads)
    names = ("report.json",) if sweep is None else ("sweep.json", "sweep.png")
    check_free(out, names, overwrite)
    trained = read_trained(RunFolder(run))
    norm = _norm_of(trained, norm, eps or sweep)
    method = method or find_ball(norm).default
    model = load_run(run, find_place(device))
    images = data.load(trained.dataset, data_dir or trained.data_dir).test.limit(limit)
    attack = Attack(pgd_steps, pgd_restarts) if pgd_steps else None
    radii = [trained.eps if eps is None else parse_radius(eps)] if sweep is None else _parse_radii(sweep)
    reports = [
        _with_progress(model, data.Loader(images, batch_size), radius, norm, method, attack, seed) for radius in radii
    ]
    print_reports([report.as_dict() for report in reports], str(run))
    if out is not None:
        _write_reports(out, reports, sweep is not None, f"{trained.dataset}, {trained.model}, {trained.method}")


def _with_progress(
    model: nn.Module, loader: Loader, eps: float, norm: str, method: str, attack: Attack | None, seed: int
) -> Report:
    from fastbound.certify import certify

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{method} at eps {eps:.4g}", total=len(loader))
        return certify(
            model, loader, eps, method, norm=norm, attack=attack, seed=seed, on_batch=lambda _: bar.advance(task)
        )


def _norm_of(trained: Trained, norm: str | None, radii: str | None) -> str:
    """The norm to certify in; raises ValueError if the radius of the run would be used in another norm."""
    from fastbound.certify.balls import find_ball

    if norm is not None and find_ball(norm).norm != trained.norm and radii is None:
        raise ValueError(
            f"norm: the radius of this run, {trained.eps:g}, is one of {trained.norm}; give a radius in {norm} with "
            f"--eps, or leave out --norm {norm}."
        )
    return norm or trained.norm


def _parse_radii(text: str) -> list[float]:
    radii = [parse_radius(part.strip()) for part in text.split(",") if part.strip()]
    if not radii:
        raise ValueError(f"sweep: wanted radii such as 0,0.05,0.1, got {text!r}.")
    return radii


def _write_reports(out: Path, reports: list[Report], sweep: bool, title: str) -> None:
    from fastbound.certify import plot_sweep
    from fastbound.certify.report import write_json

    out.mkdir(parents=True, exist_ok=True)
    if sweep:
        write_json(out / "sweep.json", [report.as_dict() for report in reports])
        plot_sweep(reports, out / "sweep.png", title)
    else:
        reports[0].save(out / "report.json")
