"""Training methods as data: a recipe holds every number of a run and gives the loss of one step.

A new method is one frozen dataclass with a `loss` and one entry in `METHODS`; a published configuration is one entry in
`configs.CONFIGS`. The trainer asks the recipe and never its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from fastbound import losses
from fastbound.bounds import METHODS as CERTIFICATION_METHODS
from fastbound.bounds import bound
from fastbound.domains.box import linf_box
from fastbound.domains.interval import Interval
from fastbound.domains.lazy import Bounds
from fastbound.spec import margin_spec
from fastbound.train.schedules import EPS_SCHEDULES, linear_in_eps, linear_in_step, milestone_lr, ramp

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """What a recipe sees of one training step.

    `eps` is the radius now, `eps_max` the one that the ramp ends with, `progress` the share of the ramp that is done.
    """

    model: nn.Module
    x: Tensor  # [B, ...] in [0, 1]
    labels: Tensor  # [B]
    num_classes: int
    eps: float
    eps_max: float
    progress: float

    def spec(self) -> Tensor:  # [B, K-1, K]
        return margin_spec(self.labels, self.num_classes)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers that every run has. Times are epochs of a run of `epochs` epochs (fractions allowed); `scaled`
    stretches them."""

    method: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]

    epochs: int = 100
    batch_size: int = 128
    lr: float = 1e-3
    lr_decay: float = 0.2
    milestones: tuple[float, ...] = (70.0, 90.0)
    weight_decay: float = 0.0
    clip_norm: float | None = None
    init: str = "default"
    # None: as the data set has it.
    flip: bool | None = None
    crop: int | None = None
    crop_mode: str | None = None
    certify_with: str = "ibp"

    def __post_init__(self) -> None:
        _check_kinds(self)
        if self.certify_with not in CERTIFICATION_METHODS:
            raise ValueError(f"certify_with: wanted {', '.join(CERTIFICATION_METHODS)}, got {self.certify_with!r}.")
        for name in ("epochs", "batch_size", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: wanted a number greater than 0, got {getattr(self, name)}.")
        if not 0 < self.lr_decay <= 1:
            raise ValueError(f"lr_decay: wanted a factor in (0, 1], got {self.lr_decay}.")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay: wanted 0 or more, got {self.weight_decay}.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: wanted a norm greater than 0 (or none), got {self.clip_norm}.")
        numbers = all(isinstance(epoch, (int, float)) and epoch >= 0 for epoch in self.milestones)
        if not numbers or list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones: wanted epochs in increasing order, got {list(self.milestones)}.")
        if self.milestones and self.milestones[-1] > self.epochs:
            raise ValueError(
                _too_long(
                    f"the last learning-rate milestone is epoch {self.milestones[-1]:g}",
                    self.epochs,
                    self.milestones[-1],
                )
            )

    def loss(self, step: Step) -> Losses:
        """The losses of one step: "loss" is minimised, the others are recorded."""
        raise NotImplementedError(f"{type(self).__name__} has no loss.")

    def eps(self, step: float, steps_per_epoch: int) -> float:
        """The training radius at this step."""
        return 0.0

    def eps_max(self) -> float:
        return 0.0

    def progress(self, step: float, steps_per_epoch: int) -> float:
        """The share of the eps ramp that is done at this step."""
        return 0.0

    def lr_at(self, step: float, steps_per_epoch: int) -> float:
        return milestone_lr(step, self.lr, self.lr_decay, [epoch * steps_per_epoch for epoch in self.milestones])

    def scaled(self, epochs: int) -> Recipe:
        """The same recipe over another number of epochs: every time shrinks or grows with it."""
        factor = epochs / self.epochs
        times = {name: getattr(self, name) * factor for name in ("warmup", "ramp") if hasattr(self, name)}
        return dataclasses.replace(self, epochs=epochs, milestones=tuple(m * factor for m in self.milestones), **times)


@dataclass(frozen=True, kw_only=True)
class Natural(Recipe):
    """Cross-entropy on clean inputs: the uncertified baseline."""

    method: ClassVar[str] = "natural"
    summary: ClassVar[str] = "cross-entropy on clean inputs; no certificate to expect"
    source: ClassVar[str] = "-"

    def loss(self, step: Step) -> Losses:
        return natural_loss(step)


@dataclass(frozen=True, kw_only=True)
class CertifiedRecipe(Recipe):
    """A recipe whose radius is 0 for `warmup` epochs and then grows for `ramp` epochs up to `eps_train`.

    `eps_train` None: `eps_factor` times the radius that the run certifies at. `clip_box`: boxes end at 0 and 1.
    """

    warmup: float = 2.0
    ramp: float = 40.0
    eps_schedule: str = "smoothed"
    mid: float = 0.25
    eps_train: float | None = None
    eps_factor: float = 1.0
    clip_box: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps_schedule not in EPS_SCHEDULES:
            raise ValueError(f"eps_schedule: there is no {self.eps_schedule!r}; known: {', '.join(EPS_SCHEDULES)}.")
        if not 0 <= self.mid < 1:
            raise ValueError(f"mid: wanted a share of the ramp in [0, 1), got {self.mid}.")
        if self.warmup < 0 or self.ramp < 0:
            raise ValueError(f"warmup and ramp: wanted 0 or more epochs, got {self.warmup} and {self.ramp}.")
        if self.eps_train is not None and not self.eps_train > 0:
            raise ValueError(
                f"eps_train: wanted a radius greater than 0, got {self.eps_train} (--method natural trains without "
                "one)."
            )
        end = self.warmup + self.ramp
        if end > self.epochs * (1 + 1e-9):
            raise ValueError(
                _too_long(
                    f"{self.warmup:g} epochs at eps 0 and a ramp of {self.ramp:g} epochs make {end:g}", self.epochs, end
                )
            )

    def eps(self, step: float, steps_per_epoch: int) -> float:
        start, end = self._ramp(steps_per_epoch)
        shape = {"mid": self.mid} if self.eps_schedule == "smoothed" else {}
        return EPS_SCHEDULES[self.eps_schedule](step, start, end, self.eps_max(), **shape)

    def eps_max(self) -> float:
        if self.eps_train is None:
            raise ValueError("eps_train: not resolved; use fastbound.train.recipes.resolve.")
        return self.eps_train

    def progress(self, step: float, steps_per_epoch: int) -> float:
        return ramp(step, *self._ramp(steps_per_epoch))

    def _ramp(self, steps_per_epoch: int) -> tuple[int, int]:
        return round(self.warmup * steps_per_epoch), round((self.warmup + self.ramp) * steps_per_epoch)

    def loss(self, step: Step) -> Losses:
        return natural_loss(step) if step.eps == 0 else self.certified_loss(step)

    def certified_loss(self, step: Step) -> Losses:
        """The loss at a radius greater than 0."""
        raise NotImplementedError(f"{type(self).__name__} has no certified_loss.")

    def bounded_output(self, step: Step, kappa: float) -> Interval:  # [B, K]
        """The model's output on the box of the step; with a nominal stream only where something reads it."""
        lower, upper = (0.0, 1.0) if self.clip_box else (None, None)
        nominal = kappa > 0 or uses_batch_statistics(step.model)
        return step.model(linf_box(step.x, step.eps, lower, upper, nominal=nominal))


@dataclass(frozen=True, kw_only=True)
class IBP(CertifiedRecipe):
    """kappa CE(clean) + (1 - kappa) CE(worst case by interval bounds); kappa linear in step over the ramp."""

    method: ClassVar[str] = "ibp"
    summary: ClassVar[str] = "interval bound propagation, margins elided into the last layer"
    source: ClassVar[str] = "Gowal et al., 2018, arXiv 1810.12715"

    kappa_start: float = 1.0
    kappa_end: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shares(self, "kappa_start", "kappa_end")

    def certified_loss(self, step: Step) -> Losses:
        kappa = linear_in_step(step.progress, self.kappa_start, self.kappa_end)
        out = self.bounded_output(step, kappa)
        robust = losses.robust_cross_entropy(bound(out, method="ibp", spec=step.spec()))
        return mixed(out, step.labels, robust, kappa)


@dataclass(frozen=True, kw_only=True)
class CrownIBP(CertifiedRecipe):
    """Margins beta CROWN-IBP + (1 - beta) IBP, or one fused row a sample; kappa and beta linear in eps."""

    method: ClassVar[str] = "crown-ibp"
    summary: ClassVar[str] = "interval bounds inside, one backward pass for the margins"
    source: ClassVar[str] = "Zhang et al., 2019, arXiv 1906.06316; loss fusion: Xu et al., 2020, arXiv 2002.12920"

    kappa_start: float = 1.0
    kappa_end: float = 0.5
    beta_end: float = 0.0
    fuse_loss: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shares(self, "kappa_start", "kappa_end", "beta_end")

    def certified_loss(self, step: Step) -> Losses:
        kappa = linear_in_eps(step.eps, step.eps_max, self.kappa_start, self.kappa_end)
        beta = linear_in_eps(step.eps, step.eps_max, 1.0, self.beta_end)
        out = self.bounded_output(step, kappa)
        if self.fuse_loss:
            robust = losses.fused_cross_entropy(out, step.labels, beta)
        else:
            robust = losses.robust_cross_entropy(_blended(out, step.spec(), beta))
        return mixed(out, step.labels, robust, kappa)


def _blended(out: Interval, spec: Tensor, beta: float) -> Interval:  # [B, K-1]
    """Margins beta CROWN-IBP + (1 - beta) IBP: a convex combination of two bounds is a bound."""
    if beta < 1e-5:
        return bound(out, method="ibp", spec=spec)
    crown = bound(out, method="crown-ibp", spec=spec)
    if beta == 1:
        return crown
    ibp = bound(out, method="ibp", spec=spec)
    return Bounds(
        crown.shape,
        lower=lambda: beta * crown.lower + (1 - beta) * ibp.lower,
        upper=lambda: beta * crown.upper + (1 - beta) * ibp.upper,
        nominal=lambda: ibp.nominal,
    )


def natural_loss(step: Step) -> Losses:
    loss = F.cross_entropy(step.model(step.x), step.labels)
    return {"loss": loss, "natural_loss": loss.detach()}


def mixed(out: Interval, labels: Tensor, robust: Tensor, kappa: float) -> Losses:
    """kappa CE(clean logits) + (1 - kappa) robust; the clean part is left out where kappa is 0."""
    if kappa == 0:
        return {"loss": robust, "robust_loss": robust.detach()}
    assert out.nominal is not None  # bounded_output carries the clean stream wherever kappa > 0
    natural = F.cross_entropy(out.nominal, labels)
    return {
        "loss": kappa * natural + (1 - kappa) * robust,
        "natural_loss": natural.detach(),
        "robust_loss": robust.detach(),
    }


def uses_batch_statistics(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in model.modules())


_KINDS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "None": type(None),
    "tuple[float, ...]": tuple,
}


def _check_kinds(recipe: Recipe) -> None:
    """Raises ValueError for a field of another kind than it is declared with: --set and config.json take anything."""
    for entry in dataclasses.fields(recipe):
        value, wanted = getattr(recipe, entry.name), str(entry.type).split(" | ")
        if not isinstance(value, tuple(_KINDS[kind] for kind in wanted)) or (
            isinstance(value, bool) and "bool" not in wanted
        ):
            raise ValueError(f"{entry.name}: wanted {' or '.join(wanted)}, got {value!r}.")


def _check_shares(recipe: Recipe, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(recipe, name) <= 1:
            raise ValueError(f"{name}: wanted a number in [0, 1], got {getattr(recipe, name)}.")


def _too_long(what: str, epochs: int, wanted: float) -> str:
    return (
        f"schedule: {what}, but the run has {epochs} epochs. Train for at least {wanted:g} epochs, or leave the times "
        "out: "
        "the defaults scale with the number of epochs."
    )


METHODS: dict[str, type[Recipe]] = {recipe.method: recipe for recipe in (Natural, IBP, CrownIBP)}


def find_method(name: str) -> type[Recipe]:
    if name not in METHODS:
        raise ValueError(f"method: there is no training method {name!r}; known: {', '.join(METHODS)}.")
    return METHODS[name]


def resolve(recipe: Recipe, eps: float, overrides: Mapping[str, object]) -> Recipe:
    """The recipe of one run: stretched to its number of epochs, then with the explicit `overrides`, and eps_train as a
    number.

    Raises ValueError for an override that the method does not have, or an explicit time that the run is too short for.
    """
    known = {entry.name for entry in dataclasses.fields(recipe)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ValueError(
            f"{recipe.method} has no option {', '.join(unknown)}; its options: {', '.join(sorted(known))}."
        )
    rest = dict(overrides)
    epochs = rest.pop("epochs", None)
    if epochs is not None:
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(f"epochs: wanted a whole number of at least 1, got {epochs}.")
        recipe = recipe.scaled(epochs)
    milestones = rest.get("milestones")
    if isinstance(milestones, list):
        rest["milestones"] = tuple(milestones)
    recipe = dataclasses.replace(recipe, **rest)  # type: ignore[arg-type]
    if isinstance(recipe, CertifiedRecipe) and recipe.eps_train is None:
        recipe = dataclasses.replace(recipe, eps_train=eps * recipe.eps_factor)
    return recipe


def as_data(recipe: Recipe) -> dict[str, object]:
    """The recipe as JSON takes it; `from_data` reads it back."""
    return {"method": recipe.method, **dataclasses.asdict(recipe)}


def from_data(content: Mapping[str, object]) -> Recipe:
    values = dict(content)
    recipe = find_method(str(values.pop("method")))
    values["milestones"] = tuple(values["milestones"])  # type: ignore[arg-type]
    return recipe(**values)  # type: ignore[arg-type]
