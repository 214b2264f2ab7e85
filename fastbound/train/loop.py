"""The training loop: steps, epochs, evaluation, checkpoints. The recipe says what a step minimises."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fastbound import data as datasets
from fastbound.certify import Attack, Report, certify
from fastbound.certify.report import write_json
from fastbound.data import DataSet, Images, Loader
from fastbound.errors import CaptureError, Diverged, Interrupted
from fastbound.train import checkpoint, settings
from fastbound.train.checkpoint import Position
from fastbound.train.curves import plot_curves
from fastbound.train.distributed import Processes, processes
from fastbound.train.initialisation import initialise
from fastbound.train.interrupts import Interrupts
from fastbound.train.precision import TrainingPrecision
from fastbound.train.progress import Display
from fastbound.train.recipes import Losses
from fastbound.train.runs import RunFolder, build_model
from fastbound.train.settings import Settings
from fastbound.train.steps import CapturedByPhase, TrainingStep, make_optimizer, scheduled_at, set_lr, why_eager
from fastbound.train.validation import mean_losses

EVALUATION_BATCH = 256


def train(
    out: str | Path,
    given: Mapping[str, object],
    overrides: Mapping[str, object] | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    checkpoint_seconds: float = 30.0,
    quiet: bool = False,
) -> dict[str, object]:
    """Trains into the run folder `out` and returns its final report (the content of report.json).

    Args:
        out: the run folder; see `fastbound.train.runs`.
        given: options of the run, for example {"dataset": "digits", "method": "ibp", "eps": 0.1}.
        overrides: fields of the recipe, for example {"epochs": 20, "lr": 1e-3}.
        resume: continue the run in `out` from its checkpoint, to the numbers of an uninterrupted run.
        overwrite: replace a run that is in `out`.
        checkpoint_seconds: a checkpoint is written at the end of an epoch when the last one is older than this.

    Raises:
        ValueError: bad options; Interrupted, ProcessLost, Diverged: the run ended early, its checkpoint is usable.
    """
    overrides = overrides or {}
    folder = RunFolder(out)
    if resume:
        chosen = settings.read_settings(folder)
        settings.check_unchanged(chosen, given, overrides, str(folder.path))
        moved = {name: given[name] for name in settings.MAY_CHANGE if name in given}
        chosen = replace(chosen, **moved)  # type: ignore[arg-type]
        given = {"dataset": chosen.dataset, "data_dir": chosen.data_dir, "device": chosen.device}
    else:
        folder.check_free(overwrite)
    with processes(str(given.get("device", "auto"))) as group:
        data = datasets.load(settings.dataset_name(given), given.get("data_dir"))  # type: ignore[arg-type]
        if not resume:
            chosen = settings.resolve(given, overrides, data)
        trainer = Trainer(chosen, data, group, folder, checkpoint_seconds)
        trainer.start(resume)
        return trainer.run(quiet)


class Trainer:
    """One run in one process: model, optimiser, loaders and the position of the run."""

    def __init__(
        self, chosen: Settings, data: DataSet, group: Processes, folder: RunFolder, checkpoint_seconds: float
    ) -> None:
        self.settings, self.recipe, self.group, self.folder = chosen, chosen.recipe, group, folder
        self.eager_because = why_eager(chosen.cuda_graph, group)
        self.config = {"settings": chosen.as_data(), "model": chosen.model_entry(data)}
        torch.manual_seed(chosen.seed)
        model = build_model(self.config, folder.config)
        self.recipe.check_network(model)
        initialise(model, self.recipe.init, torch.zeros(1, *data.input_shape))
        self.model = model.to(group.device)
        self.parallel = group.wrap(self.model)
        captured = self.eager_because is None
        self.optimizer = make_optimizer(self.recipe, self.model, group.device, captured)
        self.precision = TrainingPrecision(chosen.precision, group.device)
        self.memory = self.recipe.memory()
        self._eager_step = TrainingStep(
            self.recipe, self.parallel, self.optimizer, data.num_classes, self.memory, self.precision.autocast_dtype
        )
        self._captured_step = CapturedByPhase(self._eager_step) if captured else None
        held_out, training = data.train.limit(chosen.limit).split(self.recipe.held_out())
        self.loader = Loader(
            training.to(group.device),
            self.recipe.batch_size,
            shuffle=True,
            drop_last=True,
            augmentation=chosen.augmentation,
            seed=chosen.seed,
            rank=group.rank,
            world_size=group.world_size,
        )
        self.validation = _evaluation_loader(held_out, group, "validation") if self.recipe.held_out() else None
        self.test = _evaluation_loader(data.test.limit(chosen.test_limit), group, "test_limit")
        self.num_classes = data.num_classes
        self.at = Position()
        self._interrupts = Interrupts()
        self._checkpoint_seconds, self._saved_at = checkpoint_seconds, time.monotonic()

    def start(self, resume: bool) -> None:
        """Creates the run folder, or restores the run from its checkpoint."""
        self.group.wait()
        if resume:
            self.at = checkpoint.load(self.folder.checkpoint, self.model, self.memory, self.optimizer)
        if self.group.writes and resume:
            self.folder.keep_metrics(self.at.epoch)
        elif self.group.writes:
            environment = {
                "torch": torch.__version__,
                "device": str(self.group.device),
                "threads": torch.get_num_threads(),
                "processes": self.group.world_size,
                "training_precision": self.precision.in_words(),
                "cuda_graph": self._cuda_graph(),
            }
            self.folder.start({**self.config, "environment": environment})
            self.save()
        self.group.wait()

    def run(self, quiet: bool = False) -> dict[str, object]:
        """Trains the remaining epochs, certifies, writes what a finished run leaves, and returns the report."""
        batches, epochs = len(self.loader), self.recipe.epochs
        display = Display(epochs, epochs * batches, self.at.step, quiet=quiet or not self.group.writes)
        if self.eager_because is not None and self.group.device.type == "cuda":
            display.note(f"steps run eagerly: {self.eager_because}")
        with display, self._interrupts, self.precision.run():
            for epoch in range(self.at.epoch, epochs):
                self._epoch(epoch, display)
            report = self._final_report()
        if self.group.writes:
            self._finish(report)
        self.group.wait()  # no process returns, or ends, before the folder is complete
        return report

    def _epoch(self, epoch: int, display: Display) -> None:
        started, before = time.perf_counter(), self.at.seconds
        if self.at.batch == 0:
            torch.manual_seed(datasets.mixed_seed(self.settings.seed, epoch, self.group.rank))
        self.parallel.train()
        for x, labels in self.loader.epoch(epoch, self.at.batch):
            losses = self._step(x, labels, display)
            for name, value in losses.items():
                self.at.sums.setdefault(name, value.new_zeros((), dtype=torch.float64)).add_(value)
            self.at.batch += 1
            self.at.step += 1
            self.at.seconds = before + time.perf_counter() - started
            display.advance(epoch, self._finite(losses["loss"]) if display.due() else None)
            self._stop_if_asked()
        if self.group.device.type == "cuda":
            torch.cuda.synchronize(self.group.device)  # what is still queued belongs to this epoch's seconds
            self.at.seconds = before + time.perf_counter() - started
        validation = self._validation_losses()
        record = self._record(epoch, validation)
        self.at = Position(epoch=epoch + 1, step=self.at.step, weights=self.recipe.adapted(validation))
        if self.group.writes:
            self.folder.append_metrics(record)
            if epoch + 1 == self.recipe.epochs or time.monotonic() - self._saved_at >= self._checkpoint_seconds:
                self.save()
        display.epoch(record)

    def _step(self, x: Tensor, labels: Tensor, display: Display) -> Losses:
        set_lr(self.optimizer, self.recipe.lr_at(self.at.step, len(self.loader)))
        scheduled = self._scheduled(self.at.step)
        if self._captured_step is not None:
            try:
                return self._captured_step(x, labels, scheduled)
            except CaptureError as problem:
                if self.settings.cuda_graph == "on":
                    raise
                self._captured_step, self.eager_because = None, str(problem)
                display.note(f"steps run eagerly: {problem}")
        return self._eager_step(x, labels, scheduled)

    def _scheduled(self, step: int) -> dict[str, float]:
        """eps and the weights of a step of this epoch; weights adapted to the validation losses take precedence."""
        return {**scheduled_at(self.recipe, step, len(self.loader)), **self.at.weights}

    def _cuda_graph(self) -> str:
        return "on" if self.eager_because is None else f"off ({self.eager_because})"

    def _finite(self, loss: Tensor) -> float:
        value = float(loss)
        if not math.isfinite(value):
            raise Diverged(
                f"the loss is {value} in epoch {self.at.epoch + 1} (step {self.at.step}). Try a smaller --lr, a longer "
                f"--ramp or --clip-norm; the checkpoint in {self.folder.checkpoint.parent} is from before."
            )
        return value

    def _validation_losses(self) -> dict[str, float]:
        """Mean losses of the held-out images at the end of an epoch; empty if none are held out."""
        if self.validation is None:
            return {}
        scheduled = self._scheduled(self.at.step - 1)
        return mean_losses(self.recipe, self.model, self.validation, self.num_classes, scheduled, self.group)

    def _record(self, epoch: int, validation: Mapping[str, float]) -> dict[str, object]:
        """The metrics of an epoch: last radius, learning rate and weights, mean losses over all processes, errors over
        the whole test set."""
        count = self.at.batch * self.group.world_size
        means = {name: self._finite(self.group.total(total.clone()) / count) for name, total in self.at.sums.items()}
        step = self.at.step - 1
        certified = self._certify(None)
        errors = self._errors(certified)
        errors.pop("num_samples")
        return {
            "epoch": epoch + 1,
            **self._scheduled(step),
            "lr": self.recipe.lr_at(step, len(self.loader)),
            **means,
            **{f"validation_{name}": value for name, value in validation.items()},
            **errors,
            "seconds": round(self.at.seconds, 3),
            "certification_seconds": round(certified.seconds, 3),
        }

    def _certify(self, attack: Attack | None, method: str | None = None) -> Report:
        self.group.same_buffers(self.model)
        return certify(
            self.model,
            self.test,
            self.settings.eps,
            method,
            norm=self.recipe.norm,
            attack=attack,
            seed=self.group.rank,
            on_batch=lambda _: self._stop_if_asked(),
        )

    def _errors(self, report: Report) -> dict[str, object]:
        """The errors over the whole test set, from the shards of all processes."""
        masks = {"clean_error": ~report.clean_correct, "verified_error": ~report.certified}
        if report.attacked_correct is not None:
            masks["pgd_error"] = ~report.attacked_correct
        if report.rejected is not None:
            masks["rejected_fraction"] = report.rejected
        counts = self.group.total(torch.tensor([report.num_samples, *(int(mask.sum()) for mask in masks.values())]))
        samples, *sums = counts.tolist()
        errors = {name: count / samples for name, count in zip(masks, sums, strict=True)}
        vra = {} if report.rejected is None else {"vra": 1 - errors["verified_error"]}
        return {"num_samples": samples, **errors, **vra}

    def _final_report(self) -> dict[str, object]:
        attack = (
            Attack(steps=self.settings.pgd_steps, restarts=self.settings.pgd_restarts)
            if self.settings.pgd_steps
            else None
        )
        first, *others = self.recipe.certificates()
        report = self._certify(attack, first)
        by_method = self._verified_error_by(report, others)
        how = {"training_precision": self.precision.in_words(), "cuda_graph": self._cuda_graph()}
        return {**report.as_dict(), **self._errors(report), **by_method, **how}

    def _verified_error_by(self, report: Report, methods: Sequence[str]) -> dict[str, object]:
        """The verified errors of the report's method and of further ones, all checked against the report's attack."""
        if not methods:
            return {}
        found = {report.method: report}
        for method in methods:
            certified = self._certify(None, method)
            found[method] = dataclasses.replace(certified, attacked_correct=report.attacked_correct).check()
        return {"verified_error_by": {method: self._errors(one)["verified_error"] for method, one in found.items()}}

    def _finish(self, report: dict[str, object]) -> None:
        self.folder.write_model(self.model)
        run = self.settings
        title = f"{run.dataset}, {run.model}, {self.recipe.method}, certified at eps {run.eps:.4g}"
        plot_curves(self.folder.read_metrics(), self.folder.curves, title)
        write_json(self.folder.report, report)

    def _stop_if_asked(self) -> None:
        """Stops after Ctrl-C, when the state of the run is consistent: between two steps, or during an evaluation."""
        if self._interrupts.requested is None:
            return
        where = (
            f"epoch {self.at.epoch + 1} of {self.recipe.epochs}, after {self.at.batch} of {len(self.loader)} batches"
        )
        if self.at.epoch == self.recipe.epochs:
            where = "the final certification"
        if self.group.world_size == 1:
            self.save()
        else:
            # The processes stop at different batches; only at the end of an epoch do they share one state.
            where += "; the checkpoint is from the end of an epoch"
        raise Interrupted(
            f"stopped by {self._interrupts.requested} in {where}. Continue with: fastbound train --out "
            f"{self.folder.path} --resume"
        )

    def save(self) -> None:
        """Writes a checkpoint of the current state."""
        checkpoint.save(self.folder.checkpoint, self.model, self.memory, self.optimizer, self.at)
        self._saved_at = time.monotonic()


def _evaluation_loader(images: Images, group: Processes, option: str) -> Loader:
    """Batches of this process's share of `images`; `option` is the one that set their number, for the error."""
    if len(images) < group.world_size:
        raise ValueError(f"{option}: {len(images)} images are too few for {group.world_size} processes.")
    share = slice(group.rank, None, group.world_size)
    shard = Images(images.pixels[share], images.labels[share], images.scale)
    return Loader(shard.to(group.device), EVALUATION_BATCH)
