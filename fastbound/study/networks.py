"""The networks of a study, read from run folders: how each one was trained and certified, and its accuracies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fastbound.train.recipes.relaxation import RelaxationRecipe
from fastbound.train.runs import RunError, RunFolder, load_run
from fastbound.train.settings import Settings, read_settings


@dataclass(frozen=True)
class StudiedRun:
    """A trained network, and the accuracies of its report (fractions in [0, 1])."""

    path: Path
    model: nn.Module
    settings: Settings
    certified_by: str
    clean_accuracy: float
    certified_accuracy: float
    by_method: dict[str, float]  # certified accuracies, `certified_by` among them

    @property
    def recipe(self) -> RelaxationRecipe | None:
        """The recipe of a run of ``--method relaxation``; None for other runs, whose networks are only measured on."""
        return self.settings.recipe if isinstance(self.settings.recipe, RelaxationRecipe) else None

    @property
    def trained_by(self) -> str:
        """The relaxation, or the training method of a run without one."""
        return self.settings.recipe.method if self.recipe is None else self.recipe.relaxation

    @property
    def controlled(self) -> bool:
        """Whether it belongs to the experiment with artificially loosened intervals."""
        return self.recipe is not None and self.recipe.looseness > 0

    @property
    def best_method(self) -> str:
        return max(self.by_method, key=lambda method: self.by_method[method])

    def as_dict(self) -> dict[str, object]:
        loosened = {} if self.recipe is None else {"looseness": self.recipe.looseness, "jumps": self.recipe.jumps}
        return {
            "trained_by": self.trained_by,
            **loosened,
            "certified_by": self.certified_by,
            "clean_accuracy": self.clean_accuracy,
            "certified_accuracy": self.certified_accuracy,
            "certified_accuracy_by": self.by_method,
        }


def read_runs(paths: Sequence[str | Path], device: torch.device | str = "cpu") -> list[StudiedRun]:
    """The runs in the folders ``paths``: at least one of ``--method relaxation``, all of one data set, network and eps.

    Raises:
        ValueError: no run, one given twice, runs that cannot be compared, none that a relaxation has trained.
        RunError (a ValueError): a missing, unfinished or damaged run folder.
    """
    if not paths:
        raise ValueError("RUN: wanted at least one run folder of fastbound train --method relaxation.")
    seen = [Path(path).resolve() for path in paths]
    for place, path in enumerate(paths):
        if seen[place] in seen[:place]:
            raise ValueError(f"RUN: {path} is given twice; name each run once.")
    runs = [_read(Path(path), device) for path in paths]
    for run in runs:
        _check_comparable(runs[0], run)
    if all(run.recipe is None for run in runs):
        raise ValueError(
            "RUN: none of these runs was trained by a relaxation, so there is no certified accuracy to compare "
            "with the properties; add runs of fastbound train --method relaxation --relaxation NAME."
        )
    return runs


def _read(path: Path, device: torch.device | str) -> StudiedRun:
    folder = RunFolder(path)
    settings = read_settings(folder)
    if settings.recipe.norm != "linf":
        raise ValueError(
            f"RUN: {path} was trained by {settings.recipe.method} for {settings.recipe.norm} balls, and relaxations "
            "bound boxes; leave it out."
        )
    model = load_run(path, device)
    report = _read_report(folder)
    try:
        own, error = str(report["method"]), float(report["verified_error"])
        errors = {own: error, **report.get("verified_error_by", {})}
        return StudiedRun(
            path,
            model,
            settings,
            certified_by=own,
            clean_accuracy=1 - float(report["clean_error"]),
            certified_accuracy=1 - error,
            by_method={method: 1 - float(found) for method, found in errors.items()},
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise RunError(f"{folder.report}: the report is damaged ({type(problem).__name__}: {problem}).") from None


def _read_report(folder: RunFolder) -> dict:
    if not folder.report.is_file():
        raise RunError(
            f"{folder.report}: there is no report, so the run is not finished; finish it with fastbound train --resume "
            f"--out {folder.path}."
        )
    try:
        return dict(json.loads(folder.report.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as problem:
        raise RunError(f"{folder.report}: the file is damaged ({problem}).") from None


def _check_comparable(first: StudiedRun, other: StudiedRun) -> None:
    for what, kind in (("dataset", "data set"), ("model", "network"), ("model_options", "network"), ("eps", "eps")):
        one, two = getattr(first.settings, what), getattr(other.settings, what)
        if one != two:
            raise ValueError(
                f"RUN: a study compares runs of one {kind}, and {what} is {one} in {first.path}, {two} in "
                f"{other.path}; study them apart."
            )
