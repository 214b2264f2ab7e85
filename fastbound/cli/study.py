"""fastbound study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fastbound.choices import COMPARED
from fastbound.cli.values import DataDir, Device, Threads, check_free, find_place, set_threads

if TYPE_CHECKING:
    from fastbound.study import StudiedRun, Study

FILES = ("study.json", "study.png", "controlled.png")


def study_runs(
    run: Annotated[
        list[Path], typer.Argument(help="Run folders of fastbound train, of one data set, network and eps.")
    ],
    relaxation: Annotated[
        list[str] | None,
        typer.Option(help=f"Measured beside those of the runs; {', '.join(COMPARED)} by default."),
    ] = None,
    data_dir: DataDir = None,
    limit: Annotated[int, typer.Option(help="The first test images only (tightness).")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of directions, weights and growing networks.")] = 0,
    out: Annotated[Path | None, typer.Option(help=f"Folder for {', '.join(FILES)}.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a study that is in --out.")] = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Measure tightness, continuity and sensitivity of relaxations on trained networks, beside their certificates.

    At least one run is of --method relaxation; any others are networks to measure on.
    """
    from fastbound import data
    from fastbound.study import read_runs, study

    set_threads(threads)
    check_free(out, FILES, overwrite)
    place = find_place(device)
    runs = read_runs(run, place)
    settings = runs[0].settings
    images = data.load(settings.dataset, data_dir or settings.data_dir).test.limit(limit).to(place)
    console = Console(stderr=True)
    with console.status("") as shown:
        found = study(runs, images, relaxation or COMPARED, seed=seed, on_part=shown.update)
    _print(found)
    if out is not None:
        _write(found, out)


def _print(found: Study) -> None:
    console = Console()
    if found.relaxations:
        for table in (_properties(found), _growth(found), _networks(found)):
            console.print(table)
    if found.loosened:
        console.print(_controlled(found))


def _properties(found: Study) -> Table:
    title = f"Relaxations on {len(found.fixed)} networks, {found.samples} images"
    table = Table("relaxation", "tightness", "jumps", "continuous", "sensitivity", title=title)
    for name, one in found.relaxations.items():
        continuous = "yes" if one.continuous else "no"
        table.add_row(name, f"{one.area:.4f}", f"{one.jump_share:.1%}", continuous, _number(one.sensitivity))
    return table


def _growth(found: Study) -> Table:
    from fastbound.study.sensitivity import DEPTHS

    table = Table("hidden layers", *map(str, DEPTHS), title="Sensitivity on untrained networks")
    for name, one in found.relaxations.items():
        table.add_row(name, *map(_number, one.growth))
    return table


def _networks(found: Study) -> Table:
    table = Table("run", "trained by", "clean", "certified", "best", "by", title=f"Accuracies at eps {found.eps:.4g}")
    for run in found.fixed:
        best = f"{run.by_method[run.best_method]:.2%}"
        table.add_row(str(run.path), run.trained_by, *_accuracies(run), best, run.best_method)
    return table


def _controlled(found: Study) -> Table:
    table = Table("run", "looseness", "jumps a unit", "clean", "certified", "jumps", title="Loosened intervals")
    for run in found.runs:
        if run.controlled and run.recipe is not None:
            jumps = f"{run.recipe.jumps:g}" if run.recipe.jumps else "continuous"
            share = f"{found.loosened[str(run.path)].jump_share:.1%}"
            table.add_row(str(run.path), f"{run.recipe.looseness:g}", jumps, *_accuracies(run), share)
    return table


def _accuracies(run: StudiedRun) -> tuple[str, str]:
    return f"{run.clean_accuracy:.2%}", f"{run.certified_accuracy:.2%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def _write(found: Study, out: Path) -> None:
    from fastbound.certify.report import write_json
    from fastbound.study import plot_controlled, plot_study

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "study.json", found.as_dict())
    if found.relaxations:
        plot_study(found, out / "study.png")
    if found.loosened:
        plot_controlled(found.runs, out / "controlled.png")
