"""The balls in which inputs may move: for each norm, the bounds that certify and the attack that checks them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fastbound.bounds import bound
from fastbound.certify.pgd import Attack, pgd_attack
from fastbound.certify.pgd_l2 import pgd_attack_l2
from fastbound.choices import BALLS
from fastbound.domains.interval.box import linf_box
from fastbound.domains.lipschitz import Lipschitz, LipschitzState, lipschitz
from fastbound.methods import METHODS, check_method
from fastbound.spec import margin_spec

# Methods for certification only, unknown to `fastbound.bound`.
LP, LIPSCHITZ = "lp", "lipschitz"
ZONOTOPE_BATCH = 32


class Verdict(NamedTuple):
    """The certified margins of a batch."""

    logits: Tensor  # [B, K]
    margins: Tensor  # [B, K - 1], lower bounds of label logit minus every other
    rejected: Tensor | None = None  # [B] bool: no certificate for the predicted class; None if not computed


class Ball(Protocol):
    """A ball in some norm, with the range of valid inputs."""

    norm: ClassVar[str]
    default: ClassVar[str]  # the method when none is named

    def __init__(self, lower: float | None, upper: float | None) -> None: ...

    @staticmethod
    def certified_by(method: str) -> bool:
        """Whether the method certifies such balls."""

    def judge(self, model: nn.Module, x: Tensor, labels: Tensor, eps: float, method: str) -> Verdict:
        """The margins of x [B, ...] within eps, labels [B]."""

    def attack(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        eps: float,
        attack: Attack,
        generator: torch.Generator,
    ) -> Tensor:
        """Which samples the attack breaks within eps [B] bool."""

    def precision(self, method: str, dtype: torch.dtype) -> str:
        """The precision of the margins, in words."""


@dataclass(frozen=True)
class LinfBall:
    """Every pixel moves by at most eps."""

    norm: ClassVar[str] = "linf"
    default: ClassVar[str] = "ibp"

    lower: float | None
    upper: float | None

    @staticmethod
    def certified_by(method: str) -> bool:
        return method in METHODS or method == LP

    def judge(self, model: nn.Module, x: Tensor, labels: Tensor, eps: float, method: str) -> Verdict:
        logits = model(x)
        _check_loader_labels(labels, logits)
        if method == LP:
            from fastbound.certify.lp import triangle_margins  # loads SciPy's solvers, which no other method needs

            return Verdict(logits, triangle_margins(model, x, labels, eps, lower=self.lower, upper=self.upper))
        # The samples of a batch share the budget of error terms; in small parts they keep as many as in training.
        size = ZONOTOPE_BATCH if METHODS[method].kind == "zonotope" else len(x)
        parts = []
        for part, own in zip(x.split(size), labels.split(size), strict=True):
            box = linf_box(part, eps, self.lower, self.upper, nominal=False)
            parts.append(bound(model, box, method=method, spec=margin_spec(own, logits.shape[1])).lower)
        return Verdict(logits, torch.cat(parts))

    def attack(
        self, model: nn.Module, x: Tensor, labels: Tensor, eps: float, attack: Attack, generator: torch.Generator
    ) -> Tensor:
        low, high = _limits(self.lower, self.upper)
        return pgd_attack(model, x, labels, eps, attack=attack, lower=low, upper=high, generator=generator)[1]

    def precision(self, method: str, dtype: torch.dtype) -> str:
        return f"{_name(torch.float64 if method == LP else dtype)} (ieee), rounded to nearest"


@dataclass(frozen=True)
class L2Ball:
    """The image moves by at most eps in Euclidean distance; certificates hold without regard to the valid range."""

    norm: ClassVar[str] = "l2"
    default: ClassVar[str] = LIPSCHITZ

    lower: float | None
    upper: float | None
    state: LipschitzState = field(default_factory=LipschitzState)

    @staticmethod
    def certified_by(method: str) -> bool:
        return method == LIPSCHITZ

    def judge(self, model: nn.Module, x: Tensor, labels: Tensor, eps: float, method: str) -> Verdict:
        out = model(lipschitz(x, self.state))
        if not isinstance(out, Lipschitz):
            raise TypeError(f"model: wanted one Lipschitz value as its output, got {type(out).__name__}.")
        logits = out.nominal
        _check_loader_labels(labels, logits)
        rejected = ~(out.certified_margins(logits.argmax(1), eps) > 0).all(1)
        return Verdict(logits, out.certified_margins(labels, eps), rejected)

    def attack(
        self, model: nn.Module, x: Tensor, labels: Tensor, eps: float, attack: Attack, generator: torch.Generator
    ) -> Tensor:
        low, high = _limits(self.lower, self.upper)
        return pgd_attack_l2(model, x, labels, eps, attack=attack, lower=low, upper=high, generator=generator)[1]

    def precision(self, method: str, dtype: torch.dtype) -> str:
        return f"constants proven in float64; logits in {_name(dtype)} (ieee), rounded to nearest"


def find_ball(norm: str) -> type[Ball]:
    if norm not in BALLS:
        raise ValueError(f"norm: wanted one of {', '.join(BALLS)}, got {norm!r}.")
    return BALLS[norm]


def check_certificate(argument: str, norm: str, method: str) -> None:
    """Raises ValueError, naming ``argument``, unless ``method`` exists and certifies balls of this norm."""
    if find_ball(norm).certified_by(method):
        return
    other = next((ball for ball in BALLS.values() if ball.certified_by(method)), None)
    if other is None:
        check_method(argument, method, LP, LIPSCHITZ)
    else:
        raise ValueError(
            f"{argument}: {method} certifies {other.norm} balls, and the norm is {norm}; use {BALLS[norm].default}, or "
            f"norm {other.norm} with a radius in that norm."
        )


def _check_loader_labels(labels: Tensor, logits: Tensor) -> None:
    """Raises unless labels [B] are classes of logits [B, K]."""
    if logits.dim() != 2 or logits.shape[0] != len(labels) or labels.dim() != 1:
        raise ValueError(
            f"loader: wanted labels [B] for logits [B, K], got labels {list(labels.shape)} and logits "
            f"{list(logits.shape)}."
        )
    if labels.is_floating_point():
        raise TypeError(f"loader: wanted integer labels, got {labels.dtype}.")
    wrong = ((labels < 0) | (labels >= logits.shape[1])).nonzero().flatten()
    if len(wrong):
        raise ValueError(f"loader: label {int(labels[wrong[0]])} is out of range for {logits.shape[1]} classes.")


def _limits(lower: float | None, upper: float | None) -> tuple[float, float]:
    return -math.inf if lower is None else lower, math.inf if upper is None else upper


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
