"""The command line: fastbound train | certify | bench | info."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import torch
import typer
from rich.console import Console
from rich.table import Column, Table

from fastbound import benchmark, data, models
from fastbound.backends import show_config
from fastbound.certify import METHODS as CERTIFICATION_METHODS
from fastbound.certify import Attack, Report, SoundnessError, certify, plot_sweep
from fastbound.certify.report import write_json
from fastbound.memory import keep_freed_memory
from fastbound.train import train as train_run
from fastbound.train.configs import CONFIGS
from fastbound.train.distributed import ProcessLost, find_device
from fastbound.train.initialisation import INITIALISATIONS
from fastbound.train.interrupts import Interrupted
from fastbound.train.loop import Diverged
from fastbound.train.recipes import METHODS
from fastbound.train.runs import RunFolder, load_run, version
from fastbound.train.schedules import EPS_SCHEDULES
from fastbound.train.settings import read_settings

app = typer.Typer(
    help="Certified training and certification by bound propagation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Exit codes beyond 0 and click's 2 for bad usage.
EXIT_ERROR, EXIT_UNSOUND, EXIT_LOST, EXIT_INTERRUPTED = 2, 3, 4, 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits; what a user can get wrong is one line on standard error, not a traceback."""
    try:
        app(args=None if arguments is None else list(arguments))
    except SoundnessError as problem:
        _fail(problem, EXIT_UNSOUND)
    except ProcessLost as problem:
        _fail(f"{problem}. The checkpoint is usable: start again with --resume.", EXIT_LOST)
    except Interrupted as problem:
        _fail(problem, EXIT_INTERRUPTED)
    except (Diverged, ValueError, NotImplementedError, OSError) as problem:
        _fail(problem, EXIT_ERROR, once=True)
    sys.exit(0)


def _fail(problem: object, code: int, once: bool = False) -> NoReturn:
    # What every process of a run meets alike is said by the first one.
    if not once or os.environ.get("RANK", "0") == "0":
        print(f"fastbound: error: {problem}", file=sys.stderr, flush=True)
    sys.exit(code)


def parse_radius(text: str) -> float:
    """A number or a fraction such as 8/255."""
    parts = text.split("/")
    try:
        value = float(parts[0]) / float(parts[1]) if len(parts) == 2 else float(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"eps: wanted a number or a fraction such as 8/255, got {text!r}.") from None
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"eps: wanted a finite radius of at least 0, got {text!r}.")
    return value


def _parse_value(text: str) -> object:
    """The value of name=value: JSON where it is some, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _assignments(texts: Sequence[str] | None, option: str) -> dict[str, object]:
    pairs = [text.partition("=") for text in texts or ()]
    for name, sign, _ in pairs:
        if not name or not sign:
            raise ValueError(f"{option}: wanted name=value, got {name!r}.")
    return {name: _parse_value(value) for name, _, value in pairs}


def _given(**options: object) -> dict[str, object]:
    """The options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def _threads(count: int | None) -> None:
    if count is not None:
        if count < 1:
            raise ValueError(f"threads: wanted at least 1, got {count}.")
        torch.set_num_threads(count)


def _listing(wanted: bool) -> None:
    if not wanted:
        return
    console = Console()
    table = Table("method", "what it minimises", "source", title="training methods (--method)")
    for name, recipe in METHODS.items():
        table.add_row(name, recipe.summary, recipe.source)
    console.print(table)
    table = Table(
        Column("configuration", no_wrap=True),
        "data",
        "network",
        "method",
        "eps",
        "epochs",
        "source",
        title="published (--config)",
    )
    for name, config in CONFIGS.items():
        method = config.recipe.method
        row = (
            name,
            config.dataset,
            config.model,
            method,
            f"{config.eps:.4g}",
            str(config.recipe.epochs),
            config.source,
        )
        table.add_row(*row)
    console.print(table)
    raise typer.Exit


Threads = Annotated[int | None, typer.Option(help="Threads of PyTorch and of the native code; PyTorch's default.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the files of the data set (digits needs none).")]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    dataset: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(data.names())}; digits ships with the package.")
    ] = None,
    data_dir: DataDir = None,
    method: Annotated[str | None, typer.Option(help=f"Training method: {', '.join(METHODS)}; ibp by default.")] = None,
    config: Annotated[
        str | None, typer.Option(help="A published configuration (see --list); other options override it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Network: {', '.join(models.names())}; one that fits by default.")
    ] = None,
    model_option: Annotated[
        list[str] | None, typer.Option(help="Option of the network as name=value, for example width=16.")
    ] = None,
    eps: Annotated[
        str | None, typer.Option(help="Radius to certify at, in pixels of [0, 1]; a number or 8/255.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Length of the run; every default time scales with it.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, over all processes.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam.")] = None,
    lr_decay: Annotated[float | None, typer.Option(help="Factor on the learning rate at each milestone.")] = None,
    milestones: Annotated[
        str | None, typer.Option(help="Epochs at which the learning rate decays, for example 50,60.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay of Adam.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    init: Annotated[str | None, typer.Option(help=f"Initialisation: {', '.join(INITIALISATIONS)}.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Epochs at eps 0.")] = None,
    ramp: Annotated[float | None, typer.Option(help="Epochs in which eps grows to its training value.")] = None,
    eps_schedule: Annotated[str | None, typer.Option(help=f"Shape of the ramp: {', '.join(EPS_SCHEDULES)}.")] = None,
    eps_train: Annotated[str | None, typer.Option(help="Radius to train at when it is not the one of --eps.")] = None,
    kappa_start: Annotated[float | None, typer.Option(help="Weight of the clean loss before the ramp.")] = None,
    kappa_end: Annotated[float | None, typer.Option(help="Weight of the clean loss after the ramp.")] = None,
    beta_end: Annotated[
        float | None, typer.Option(help="Weight of CROWN-IBP margins after the ramp (crown-ibp).")
    ] = None,
    fuse_loss: Annotated[bool | None, typer.Option(help="One backward row a sample (crown-ibp).")] = None,
    flip: Annotated[
        bool | None, typer.Option(help="Random horizontal flips; by default as the data set has it.")
    ] = None,
    crop: Annotated[
        int | None, typer.Option(help="Random crops of images padded by this many pixels; 0 for none.")
    ] = None,
    crop_mode: Annotated[str | None, typer.Option(help="Padding of the crops: edge or zero.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other field of the recipe as name=value.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation; 0 by default.")] = None,
    limit: Annotated[int | None, typer.Option(help="Train on the first images only.")] = None,
    test_limit: Annotated[int | None, typer.Option(help="Evaluate on the first test images only.")] = None,
    pgd_steps: Annotated[int | None, typer.Option(help="Steps of the final attack; 20 by default, 0 for none.")] = None,
    pgd_restarts: Annotated[int | None, typer.Option(help="Restarts of the final attack; 1 by default.")] = None,
    device: Device = None,
    threads: Threads = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Checkpoints at ends of epochs, at least this far apart.")
    ] = 30.0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out, to the same numbers.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the final table.")] = False,
    list_: Annotated[
        bool,
        typer.Option("--list", is_eager=True, callback=_listing, help="List methods and published configurations."),
    ] = False,
) -> None:
    """Train a network, certify it, and leave a run folder.

    Several processes: torchrun --nproc-per-node 2 -m fastbound train ...
    """
    _threads(threads)
    keep_freed_memory()
    given = _given(
        dataset=dataset,
        data_dir=None if data_dir is None else str(data_dir),
        method=method,
        config=config,
        model=model,
        model_options=_assignments(model_option, "--model-option") or None,
        eps=None if eps is None else parse_radius(eps),
        seed=seed,
        limit=limit,
        test_limit=test_limit,
        pgd_steps=pgd_steps,
        pgd_restarts=pgd_restarts,
        device=device,
    )
    overrides = _given(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        lr_decay=lr_decay,
        milestones=_parse_epochs(milestones),
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        init=init,
        warmup=warmup,
        ramp=ramp,
        eps_schedule=eps_schedule,
        eps_train=None if eps_train is None else parse_radius(eps_train),
        kappa_start=kappa_start,
        kappa_end=kappa_end,
        beta_end=beta_end,
        fuse_loss=fuse_loss,
        flip=flip,
        crop=crop,
        crop_mode=crop_mode,
    ) | _assignments(set_, "--set")
    report = train_run(
        out, given, overrides, resume=resume, overwrite=overwrite, checkpoint_seconds=checkpoint_seconds, quiet=quiet
    )
    if os.environ.get("RANK", "0") == "0":
        _print_reports([report], f"{out}")


def _parse_epochs(text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"milestones: wanted epochs such as 50,60, got {text!r}.") from None


@app.command("certify")
def certify_run(
    run: Annotated[Path, typer.Argument(help="Run folder of fastbound train.")],
    eps: Annotated[str | None, typer.Option(help="Radius; by default the one that the run was trained for.")] = None,
    method: Annotated[str, typer.Option(help=f"Bounds: {', '.join(CERTIFICATION_METHODS)}.")] = "ibp",
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
    _threads(threads)
    names = ("report.json",) if sweep is None else ("sweep.json", "sweep.png")
    _check_free(out, names, overwrite)
    settings = read_settings(RunFolder(run))
    model = load_run(run, find_device(device or "auto"))
    images = data.load(settings.dataset, data_dir or settings.data_dir).test.limit(limit)
    attack = Attack(pgd_steps, pgd_restarts) if pgd_steps else None
    radii = [settings.eps if eps is None else parse_radius(eps)] if sweep is None else _parse_radii(sweep)
    reports = [_with_progress(model, data.Loader(images, batch_size), radius, method, attack, seed) for radius in radii]
    _print_reports([report.as_dict() for report in reports], str(run))
    if out is not None:
        _write_reports(
            out, reports, sweep is not None, f"{settings.dataset}, {settings.model}, {settings.recipe.method}"
        )


def _with_progress(
    model: torch.nn.Module, loader: data.Loader, eps: float, method: str, attack: Attack | None, seed: int
) -> Report:
    from rich.progress import Progress

    console = Console(stderr=True)
    shown = Progress(console=console, transient=True, disable=not console.is_terminal)
    with shown:
        task = shown.add_task(f"{method} at eps {eps:.4g}", total=len(loader))
        return certify(model, loader, eps, method, attack=attack, seed=seed, on_batch=lambda _: shown.advance(task))


def _parse_radii(text: str) -> list[float]:
    radii = [parse_radius(part.strip()) for part in text.split(",") if part.strip()]
    if not radii:
        raise ValueError(f"sweep: wanted radii such as 0,0.05,0.1, got {text!r}.")
    return radii


def _check_free(out: Path | None, names: Sequence[str], overwrite: bool) -> None:
    taken = [str(out / name) for name in names if out is not None and (out / name).exists()]
    if taken and not overwrite:
        raise ValueError(
            f"out: {', '.join(taken)} exists already; name another folder, or replace it with --overwrite."
        )


def _write_reports(out: Path, reports: list[Report], sweep: bool, title: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if sweep:
        write_json(out / "sweep.json", [report.as_dict() for report in reports])
        plot_sweep(reports, out / "sweep.png", title)
    else:
        reports[0].save(out / "report.json")


def _print_reports(reports: Sequence[dict], title: str) -> None:
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


@app.command()
def bench(
    network: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(benchmark.NETWORKS)}; all by default.")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(benchmark.STEPS)}; all by default.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Measured rounds; every round takes each step once.")] = 20,
    device: Device = None,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file for the figures and the description of the machine.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")] = False,
) -> None:
    """Measure whole training steps as multiples of the natural step."""
    _threads(threads)
    keep_freed_memory()
    if out is not None and out.exists() and not overwrite:
        raise ValueError(f"out: {out} exists already; name another file, or replace it with --overwrite.")
    place = find_device(device or "auto")
    timings, missing = benchmark.measure(
        network or benchmark.NETWORKS, variant or benchmark.STEPS, rounds=rounds, device=place
    )
    table = Table("network", "batch", "step", "median ms", "20% to 80%", "x natural", title=_machine_line(place))
    for timing in timings:
        spread = f"{timing.low_ms:.1f} to {timing.high_ms:.1f}"
        row = (
            timing.network,
            str(timing.batch),
            timing.variant,
            f"{timing.median_ms:.2f}",
            spread,
            f"{timing.multiple:.2f}",
        )
        table.add_row(*row, end_section=timing.variant == list(benchmark.STEPS)[-1])
    Console().print(table)
    for name, reason in missing.items():
        print(f"{name}: not available ({reason})")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, benchmark.as_data(timings, missing, place))


def _machine_line(device: torch.device) -> str:
    content = benchmark.machine(device)
    return f"{content.get('gpu', content['processor'])}, {content['threads']} threads, {content['precision']}"


@app.command()
def info() -> None:
    """Show versions, and which backend serves which operator."""
    print(f"fastbound {version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    show_config()
