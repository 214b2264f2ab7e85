"""Base of all training methods."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fastbound.certify.balls import check_certificate
from fastbound.train.recipes.fields import check_kinds, check_length, check_positive
from fastbound.train.recipes.step import Losses, Step
from fastbound.train.schedules import milestone_lr


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """The numbers that every run has. Times are epochs of a run of `epochs` epochs (fractions allowed); `scaled`
    stretches them."""

    method: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    # The norm of the ball to train for and to certify in.
    norm: ClassVar[str] = "linf"
    # SHA-256 of the file, for a user's own recipe.
    digest: ClassVar[str | None] = None
    # The fields, apart from milestones, that are times and scale with the run.
    times: ClassVar[tuple[str, ...]] = ()

    epochs: int = 100
    batch_size: int = 128
    lr: float = 1e-3
    lr_decay: float = 0.2
    milestones: tuple[float, ...] = (70.0, 90.0)
    weight_decay: float = 0.0
    clip_norm: float | None = None
    init: str = "default"
    # Whether the network's first layer normalises by the mean and standard deviation of the data set, if it has any.
    normalize: bool = True
    # None: the augmentation of the data set.
    flip: bool | None = None
    crop: int | None = None
    crop_mode: str | None = None
    certify_with: str = "ibp"

    def __post_init__(self) -> None:
        check_kinds(self)
        check_certificate("certify_with", self.norm, self.certify_with)
        check_positive(self, "epochs", "batch_size", "lr")
        if not 0 < self.lr_decay <= 1:
            raise ValueError(f"lr_decay: wanted a factor in (0, 1], got {self.lr_decay}.")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay: wanted 0 or more, got {self.weight_decay}.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: wanted a norm greater than 0 (or none), got {self.clip_norm}.")
        numbers = all(isinstance(epoch, (int, float)) and epoch >= 0 for epoch in self.milestones)
        if not numbers or list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones: wanted epochs in increasing order, got {list(self.milestones)}.")
        if self.milestones:
            last = self.milestones[-1]
            check_length(f"the last learning-rate milestone is epoch {last:g}", last, self.epochs)

    @abstractmethod
    def loss(self, step: Step) -> Losses:
        """The losses of one step: "loss" is minimised, the others are recorded."""

    def certificates(self) -> tuple[str, ...]:
        """The methods that certify a finished run: the first gives the report, the others add their verified errors."""
        return (self.certify_with,)

    def check_network(self, model: nn.Module) -> None:
        """Warns about a network on which the method loses its advantage; raises ValueError for one it cannot train."""
        return

    def eps(self, step: float, steps_per_epoch: int) -> float:
        """The training radius at this step."""
        return 0.0

    def eps_max(self) -> float:
        return 0.0

    def weights(self, step: float, steps_per_epoch: int) -> dict[str, float]:
        """The other scheduled numbers of the method, which `loss` reads as ``step.weights[name]``."""
        return {}

    def held_out(self) -> int:
        """How many training images (the first ones) are held out for `validation_losses`."""
        return 0

    def validation_losses(self, step: Step) -> Losses:
        """The losses of a validation batch at the current radius and weights, without gradients."""
        raise NotImplementedError(f"{type(self).__name__} has no validation_losses.")

    def adapted(self, validation: Mapping[str, float]) -> dict[str, float]:
        """Weights for the next epoch, from the mean validation losses after this one; they override `weights`."""
        return {}

    def memory(self) -> nn.Module:
        """State that the method keeps between steps, apart from the model; `loss` reads it as ``step.memory``, and
        checkpoints contain its state_dict."""
        return nn.Module()

    def lr_at(self, step: float, steps_per_epoch: int) -> float:
        return milestone_lr(step, self.lr, self.lr_decay, [round(epoch * steps_per_epoch) for epoch in self.milestones])

    def scaled(self, epochs: int) -> Recipe:
        """The same recipe over another number of epochs: every time shrinks or grows with it."""
        factor = epochs / self.epochs
        times = {name: getattr(self, name) * factor for name in self.times}
        return dataclasses.replace(self, epochs=epochs, milestones=tuple(m * factor for m in self.milestones), **times)
