"""Checkpoints: one safetensors file with the whole state of a run, replaced in one step, so never half written.

The file holds the weights ("model."), the state that the method keeps between steps ("memory."), the optimiser's
tensors ("optimizer."), the sums of the current epoch ("sums.") and the states of the random generators ("rng.");
counters are JSON in its header. The optimiser's groups follow from the recipe and the device, so they are not saved.
Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FORMAT = 1


@dataclass
class Position:
    """The position of a run: `batch` batches of `epoch` (from 0) are done, `step` steps in all.

    `sums` are the summed losses of the epoch so far; `weights` are those that the recipe adapted to the validation
    losses of the previous epoch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    weights: dict[str, float] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)


def save(path: Path, model: nn.Module, memory: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Writes the state of a run to `path`, replacing an earlier file in one step."""
    state = optimizer.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"memory.{name}": tensor for name, tensor in memory.state_dict().items()}
    for index, entries in state["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in entries.items()}
    tensors |= {f"sums.{name}": value for name, value in position.sums.items()}
    tensors |= {f"rng.{name}": value for name, value in _generator_states().items()}
    counters = {name: value for name, value in asdict(position).items() if name != "sums"}
    header = {"format": FORMAT, "position": counters}
    write_safetensors(path, tensors, {"fastbound": json.dumps(header)})


def load(path: Path, model: nn.Module, memory: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Puts the state at `path` into model, memory, optimiser and random generators; returns the position of the run.

    Raises ValueError for a missing or damaged file, another format, or the state of another network.
    """
    header, tensors = _read(path)
    try:
        model.load_state_dict(_under("model.", tensors))
        memory.load_state_dict(_under("memory.", tensors))
    except RuntimeError as problem:
        raise ValueError(f"{path}: this checkpoint belongs to another network: {problem}") from None
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer.", tensors).items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    _restore_generators(_under("rng.", tensors))
    device = next(model.parameters()).device
    sums = {name: value.to(device) for name, value in _under("sums.", tensors).items()}
    return Position(**header["position"], sums=sums)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes `tensors` to a temporary file next to `path`, flushes it to the disk, then renames it to `path`."""
    partial = path.with_name(path.name + ".partial")
    # clone: safetensors refuses tensors that share memory.
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, partial, metadata)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no checkpoint to resume from.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("fastbound", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError) as problem:
        raise ValueError(f"{path}: the checkpoint is damaged ({problem}).") from None
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {header.get('format')}, this version of fastbound reads format {FORMAT}."
        )
    return header, tensors


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _generator_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_generators(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
