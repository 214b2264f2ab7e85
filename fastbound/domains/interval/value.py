"""`Interval`: the value of the interval domain, which an unmodified PyTorch module accepts in place of a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastbound.domains.streams import Streams
from fastbound.domains.tape import detached_node


@dataclass
class _Tensors:
    nominal: Tensor | None
    center: Tensor
    radius: Tensor


class Interval(Streams):
    """Lower and upper bounds of a tensor, with the clean activations.

    A handle on an immutable node of the tape: ``out.lower``, ``out.upper``, ``out.center``, ``out.radius`` and
    ``out.nominal`` (None if the box had none) are tensors [B, ...] in the dtype of the network. Any torch function
    with a rule accepts it; in-place functions rebind the handle, so all its aliases see the result.

    Soundness: rounded to nearest. The bounds contain the real outputs up to the rounding of float arithmetic; with
    training-mode BatchNorm they hold for the statistics of the nominal batch.

    Raises:
        MissingRuleError: for a function or attribute without a rule, naming it and the module.
    """

    # Data-parallel wrappers look for tensors in dataclass fields; these are read from the properties below.
    __dataclass_fields__ = _Tensors.__dataclass_fields__

    @staticmethod
    def from_bounds(lower: Tensor, upper: Tensor, nominal: Tensor | None = None) -> Interval:
        """An interval [lower, upper] for use in a rule; the dispatcher puts it on the tape of the rule's inputs.

        Args:
            lower, upper: [B, ...], lower <= upper.
            nominal: [B, ...] or None.
        """
        return Interval(detached_node(*streams_of(lower, upper, nominal)))

    @property
    def center(self) -> Tensor:
        """Midpoint [B, ...]."""
        return self.node.center

    @property
    def lower(self) -> Tensor:
        """Lower bound [B, ...]."""
        return self.node.lower

    @property
    def upper(self) -> Tensor:
        """Upper bound [B, ...]."""
        return self.node.upper

    def __repr__(self) -> str:
        nominal = "with" if self.nominal is not None else "without"
        return f"Interval(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device}, {nominal} nominal)"


def streams_of(lower: Tensor, upper: Tensor, nominal: Tensor | None) -> tuple[Tensor, Tensor]:
    """Stack [N, B, *S] and radius [B, *S] of the interval [lower, upper], each [B, *S]."""
    radius = (upper - lower) / 2
    if nominal is None:
        return ((lower + upper) / 2).unsqueeze(0), radius
    needs_grad = torch.is_grad_enabled() and (radius.requires_grad or nominal.requires_grad)
    if needs_grad or torch.compiler.is_compiling():
        return torch.stack((nominal, (lower + upper) / 2)), radius
    stack = radius.new_empty(2, *radius.shape)
    stack[0].copy_(nominal)
    torch.add(lower, upper, out=stack[1]).mul_(0.5)
    return stack, radius
