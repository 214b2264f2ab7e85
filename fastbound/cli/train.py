"""fastbound train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fastbound.choices import CUDA_GRAPH, DATASETS, EPS_SCHEDULES, INITIALISATIONS, METHODS, NETWORKS, PRECISIONS
from fastbound.cli.reports import print_reports
from fastbound.cli.values import DataDir, Device, Threads, assignments, given, parse_epochs, parse_radius, set_threads
from fastbound.memory import keep_freed_memory


def _print_list(requested: bool) -> None:
    if requested:
        from fastbound.cli.listing import print_listing

        print_listing()
        raise typer.Exit


def train(
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    dataset: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(DATASETS)}; digits ships with the package.")
    ] = None,
    data_dir: DataDir = None,
    method: Annotated[
        str | None,
        typer.Option(help=f"Training method: {', '.join(METHODS)}, or path/to/file.py:Class; ibp by default."),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="A published configuration (see --list); other options override it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Network: {', '.join(NETWORKS)}; one that fits by default.")
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
    eps_train: Annotated[str | None, typer.Option(help="Radius to train at, if it is not that of --eps.")] = None,
    kappa_start: Annotated[float | None, typer.Option(help="Weight of the clean loss before the ramp.")] = None,
    kappa_end: Annotated[float | None, typer.Option(help="Weight of the clean loss after the ramp.")] = None,
    beta_end: Annotated[
        float | None, typer.Option(help="Weight of CROWN-IBP margins after the ramp (crown-ibp).")
    ] = None,
    relaxation: Annotated[
        str | None, typer.Option(help="Relaxation to train with (--method relaxation); --list prints the names.")
    ] = None,
    fuse_loss: Annotated[bool | None, typer.Option(help="One backward row a sample (crown-ibp).")] = None,
    flip: Annotated[
        bool | None, typer.Option(help="Random horizontal flips; by default as usual for the data set.")
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
    cuda_graph: Annotated[
        str | None,
        typer.Option(help=f"Steps as CUDA graphs: {', '.join(CUDA_GRAPH)}; auto, the default, if there is one GPU."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help=f"Products in training: {', '.join(PRECISIONS)}; default leaves torch's flags. Certificates are IEEE "
            "float32 in any case."
        ),
    ] = None,
    threads: Threads = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Checkpoints at ends of epochs, at least this far apart.")
    ] = 30.0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out, to the same numbers.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the final table.")] = False,
    list_: Annotated[
        bool,
        typer.Option("--list", is_eager=True, callback=_print_list, help="List methods and published configurations."),
    ] = False,
) -> None:
    """Train a network, certify it, and leave a run folder.

    Several processes: torchrun --nproc-per-node 2 -m fastbound train ...
    """
    from fastbound.train import train as train_run

    set_threads(threads)
    keep_freed_memory()
    options = given(
        dataset=dataset,
        data_dir=None if data_dir is None else str(data_dir),
        method=method,
        config=config,
        model=model,
        model_options=assignments(model_option, "--model-option") or None,
        eps=None if eps is None else parse_radius(eps),
        seed=seed,
        limit=limit,
        test_limit=test_limit,
        pgd_steps=pgd_steps,
        pgd_restarts=pgd_restarts,
        device=device,
        cuda_graph=cuda_graph,
        precision=precision,
    )
    overrides = given(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        lr_decay=lr_decay,
        milestones=parse_epochs(milestones),
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
        relaxation=relaxation,
        fuse_loss=fuse_loss,
        flip=flip,
        crop=crop,
        crop_mode=crop_mode,
    ) | assignments(set_, "--set")
    report = train_run(
        out, options, overrides, resume=resume, overwrite=overwrite, checkpoint_seconds=checkpoint_seconds, quiet=quiet
    )
    if os.environ.get("RANK", "0") == "0":
        print_reports([report], f"{out}")
