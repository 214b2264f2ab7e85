"""The step that a run repeats: losses of the recipe, gradients, optimiser; run eagerly or as CUDA graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fastbound.choices import CUDA_GRAPH
from fastbound.train.capture import Captured, capture
from fastbound.train.distributed import Processes
from fastbound.train.precision import autocast_to
from fastbound.train.recipes import Losses, Recipe, Step
from fastbound.train.schedules import Scheduled


@dataclass(frozen=True)
class TrainingStep:
    """One update of `model`'s parameters with the loss of `recipe`.

    `memory` is the state that the recipe keeps between steps, `autocast_dtype` the dtype of products inside the losses
    (None leaves autocast as it is).
    """

    recipe: Recipe
    model: nn.Module
    optimizer: torch.optim.Optimizer
    num_classes: int
    memory: nn.Module = field(default_factory=nn.Module)
    autocast_dtype: torch.dtype | None = None

    def __call__(self, x: Tensor, labels: Tensor, scheduled: Mapping[str, Scheduled]) -> Losses:
        """The losses at x [B, ...], labels [B], without gradients; `scheduled` is `scheduled_at` this step."""
        weights = dict(scheduled)
        eps, eps_max = weights.pop("eps"), self.recipe.eps_max()
        step = Step(self.model, x, labels, self.num_classes, eps, eps_max, weights, self.memory)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast_to(self.autocast_dtype, x.device):  # not around backward(), whose dtypes follow
            losses = self.recipe.loss(step)
        losses["loss"].backward()
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}


class CapturedByPhase:
    """A `TrainingStep` as CUDA graphs, one for each phase of the schedules.

    A phase is the set of scheduled numbers that are exactly 0 or 1. A recipe may skip work at these values (the clean
    part at kappa 0), so they stay numbers, and each phase has a graph of its own. All other numbers are inputs of it.
    """

    def __init__(self, step: TrainingStep) -> None:
        self._step = step
        self._captured: dict[tuple[tuple[str, float], ...], Captured] = {}

    def __call__(self, x: Tensor, labels: Tensor, scheduled: Mapping[str, float]) -> Losses:
        """As `TrainingStep`; the losses are overwritten by the next step."""
        fixed = {name: value for name, value in scheduled.items() if value in (0, 1)}
        varying = {name: value for name, value in scheduled.items() if name not in fixed}
        phase = tuple(fixed.items())
        if phase not in self._captured:

            def step(x: Tensor, labels: Tensor, *values: Tensor) -> Losses:
                return self._step(x, labels, {**fixed, **dict(zip(varying, values))})

            self._captured[phase] = capture(step, (x, labels, *varying.values()))
        return self._captured[phase](x, labels, *varying.values())


def scheduled_at(recipe: Recipe, step: int, steps_per_epoch: int) -> dict[str, float]:
    """The scheduled numbers of this step: "eps" and the weights of the recipe."""
    return {"eps": recipe.eps(step, steps_per_epoch), **recipe.weights(step, steps_per_epoch)}


def make_optimizer(recipe: Recipe, model: nn.Module, device: torch.device, captured: bool) -> torch.optim.Adam:
    """The optimiser of a run. For captured steps its learning rate and its step count live on the device."""
    if not captured:
        return torch.optim.Adam(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    lr = torch.tensor(recipe.lr, device=device)
    return torch.optim.Adam(model.parameters(), lr=lr, weight_decay=recipe.weight_decay, capturable=True, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives every group the learning rate `lr`, in place if it is a tensor that a graph reads."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def why_eager(mode: str, group: Processes) -> str | None:
    """Why a run with this --cuda-graph mode takes its steps eagerly; None if it captures them.

    Raises ValueError for a mode that is not in `CUDA_GRAPH`, and for "on" if no graph is possible.
    """
    if mode not in CUDA_GRAPH:
        raise ValueError(f"cuda_graph: wanted {', '.join(CUDA_GRAPH)}, got {mode!r}.")
    if mode == "off":
        return "asked for"
    reason = None
    if group.device.type != "cuda":
        reason = f"the run is on {group.device}"
    elif group.world_size > 1:
        reason = f"gradients are averaged over {group.world_size} processes"
    if reason is not None and mode == "on":
        raise ValueError(f"cuda_graph: a CUDA graph was asked for, but {reason}; use --cuda-graph auto or off.")
    return reason
