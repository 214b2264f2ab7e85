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
        typer.Option(help=f"Measured in addition to those of the runs; {', '.join(COMPARED)} by default."),
    ] = None,
    data_dir: DataDir = None,
    limit: Annotated[int, typer.Option(help="The first test images only (tightness).")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of directions, weights and growing networks.")] = 0,
    out: Annotated[Path | None, typer.Option(help=f"Folder for {', '.join(FILES)}.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a study that is in --out.")] = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Measure tightness, continuity and sensitivity of relaxations on trained networks, next to their certificates.

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
    with console.status("") as status:
        result = study(runs, images, relaxation or COMPARED, seed=seed, on_part=status.update)
    _print(result)
    if out is not None:
        _write(result, out)


def _print(result: Study) -> None:
    console = Console()
    if result.relaxations:
        for table in (_properties(result), _growth(result), _networks(result)):
            console.print(table)
    if result.loosened:
        console.print(_controlled(result))


def _properties(result: Study) -> Table:
    title = f"Relaxations on {len(result.fixed)} networks, {result.samples} images"
    table = Table("relaxation", "tightness", "jumps", "continuous", "sensitivity", title=title)
    for name, one in result.relaxations.items():
        continuous = "yes" if one.continuous else "no"
        table.add_row(name, f"{one.area:.4f}", f"{one.jump_share:.1%}", continuous, _number(one.sensitivity))
    return table


def _growth(result: Study) -> Table:
    from fastbound.study.sensitivity import DEPTHS

    table = Table("hidden layers", *map(str, DEPTHS), title="Sensitivity on untrained networks")
    for name, one in result.relaxations.items():
        table.add_row(name, *map(_number, one.growth))
    return table


def _networks(result: Study) -> Table:
    table = Table("run", "trained by", "clean", "certified", "best", "by", title=f"Accuracies at eps {result.eps:.4g}")
    for run in result.fixed:
        best = f"{run.by_method[run.best_method]:.2%}"
        table.add_row(str(run.path), run.trained_by, *_accuracies(run), best, run.best_method)
    return table


def _controlled(result: Study) -> Table:
    table = Table("run", "looseness", "jumps a unit", "clean", "certified", "jumps", title="Loosened intervals")
    for run in result.runs:
        if run.controlled and run.recipe is not None:
            jumps = f"{run.recipe.jumps:g}" if run.recipe.jumps else "continuous"
            share = f"{result.loosened[str(run.path)].jump_share:.1%}"
            table.add_row(str(run.path), f"{run.recipe.looseness:g}", jumps, *_accuracies(run), share)
    return table


def _accuracies(run: StudiedRun) -> tuple[str, str]:
    return f"{run.clean_accuracy:.2%}", f"{run.certified_accuracy:.2%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def _write(result: Study, out: Path) -> None:
    from fastbound.certify.report import write_json
    from fastbound.study import plot_controlled, plot_study

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "study.json", result.as_dict())
    if result.relaxations:
        plot_study(result, out / "study.png")
    if result.loosened:
        plot_controlled(result.runs, out / "controlled.png")
