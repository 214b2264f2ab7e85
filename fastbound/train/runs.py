"""The run folder that `fastbound train` leaves; it is read back without unpickling.

config.json         everything that rebuilds the model and the run
metrics.jsonl       a line per epoch
model.safetensors   the weights of the trained model
report.json         the final numbers
curves.png          the metrics as a picture
checkpoint/         the state to resume from
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fastbound import models
from fastbound.certify.report import write_json
from fastbound.train.checkpoint import write_safetensors

FORMAT = 1


class RunError(ValueError):
    """A run folder is missing, damaged, of another version, or would be overwritten."""


def version() -> str:
    """The installed version of fastbound."""
    try:
        return metadata.version("fastbound")
    except metadata.PackageNotFoundError:
        return "unknown"


class RunFolder:
    """The paths of a run folder, and the functions that read and write them."""

    FILES = (
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.json",
        "curves.png",
        "checkpoint/state.safetensors",
    )

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config, self.metrics, self.model, self.report, self.curves, self.checkpoint = (
            self.path / name for name in self.FILES
        )

    def check_free(self, overwrite: bool) -> None:
        """Raises RunError if a new run would overwrite something."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: this is a file; name a folder for the run.")
        if self.config.exists() and not overwrite:
            raise RunError(
                f"{self.path}: there is a run already; continue it with --resume, or replace it with --overwrite."
            )
        if not self.config.exists() and self.path.is_dir() and any(self.path.iterdir()):
            raise RunError(f"{self.path}: the folder is not empty and holds no run; name another folder.")

    def start(self, config: dict[str, object]) -> None:
        """Creates the folder; removes the files of an earlier run, but nothing else."""
        for name in self.FILES:
            (self.path / name).unlink(missing_ok=True)
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.config, {"format": FORMAT, "fastbound": version(), **config})

    def read_config(self) -> dict:
        """config.json as a dictionary. Raises RunError: no such folder, no run in it, damaged, or of another
        version."""
        if not self.path.is_dir():
            raise RunError(f"{self.path}: there is no such run folder.")
        if not self.config.is_file():
            raise RunError(f"{self.path}: there is no config.json, so this is no run folder of fastbound.")
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
        except ValueError as problem:
            raise RunError(f"{self.config}: the file is damaged ({problem}).") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            written = content.get("format") if isinstance(content, dict) else None
            by = content.get("fastbound", "unknown") if isinstance(content, dict) else "unknown"
            raise RunError(
                f"{self.config}: run format {written} (written by fastbound {by}); this version, {version()}, reads "
                f"format {FORMAT}. Read it with the version that wrote it, or train again."
            )
        return content

    def append_metrics(self, record: dict[str, object]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read_metrics(self) -> list[dict]:
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def keep_metrics(self, epochs: int) -> None:
        """Drops the lines after `epochs` epochs: a resumed run writes them again."""
        kept = [record for record in self.read_metrics() if record["epoch"] <= epochs]
        partial = self.metrics.with_name(self.metrics.name + ".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        partial.replace(self.metrics)

    def write_model(self, model: nn.Module) -> None:
        write_safetensors(self.model, model.state_dict())


def load_run(path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The trained model of the run folder `path`, rebuilt from its config.json and model.safetensors, in evaluation
    mode.

    Raises RunError (a ValueError): missing folder or file, damaged content, another version, weights that do not fit.
    """
    folder = RunFolder(path)
    model = build_model(folder.read_config(), folder.config)
    if not folder.model.is_file():
        raise RunError(
            f"{folder.model}: there are no trained weights; finish the run with fastbound train --resume --out "
            f"{folder.path}."
        )
    try:
        model.load_state_dict(load_file(folder.model))
    except (SafetensorError, OSError) as problem:
        raise RunError(f"{folder.model}: the file is damaged ({problem}).") from None
    except RuntimeError as problem:
        raise RunError(f"{folder.model}: the weights do not fit the network of config.json: {problem}") from None
    return model.to(device).eval()


def build_model(config: dict, source: Path) -> nn.Sequential:
    """The untrained network that a config.json describes."""
    try:
        entry = dict(config["model"])
        return models.build(
            entry["name"],
            entry["input_shape"],
            entry["num_classes"],
            mean=entry["mean"],
            std=entry["std"],
            **entry["options"],
        )
    except (KeyError, TypeError) as problem:
        raise RunError(
            f"{source}: the description of the model is damaged ({type(problem).__name__}: {problem})."
        ) from None
