"""Errors for nodes that a backward walk cannot pass, raised before it starts."""

from __future__ import annotations

import torch

from fastbound.domains.records import LinearMap, Opaque, Scale, Shift, Sum, tensors
from fastbound.domains.tape import Node
from fastbound.errors import MissingRuleError, TapeError


def require_gradients(node: Node) -> None:
    """Raise `TapeError` if gradients are enabled now but the node was computed without."""
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors(node.record))
    if wanted and not node.requires_grad:
        raise TapeError(
            f"the output was computed under no_grad ({type(node.record).__name__} recorded no gradient), but its bound "
            "is computed with gradients enabled; run the model with gradients, or bound under torch.no_grad()."
        )


def refuse_missing_rule(node: Node) -> None:
    """Raise `MissingRuleError` for a function without a backward rule."""
    record = node.record
    name, where = (record.name, record.where) if isinstance(record, Opaque) else (type(record).__name__, "")
    raise MissingRuleError(
        f"{name}{where} has no backward rule (CROWN); use method='ibp', or fallback='ibp' to stop the backward walk "
        "there at interval bounds."
    )


def require_separate_samples(node: Node) -> None:
    """Raise `MissingRuleError` if a function moves values between the samples of the batch."""
    record = node.record
    broadcasts = isinstance(record, (Sum, Scale, Shift))
    for parent in node.inputs:
        if parent.shape[:1] != node.shape[:1] or (broadcasts and len(parent.shape) != len(node.shape)):
            name = getattr(record, "name", type(record).__name__)
            raise MissingRuleError(
                f"{name} changes {tuple(parent.shape)} to {tuple(node.shape)} and so moves the batch dimension; the "
                "backward walk keeps samples apart."
            )
    if isinstance(record, LinearMap) and node.shape[0] > 1:
        _require_unmixed_samples(record, node)


@torch.no_grad()
def _require_unmixed_samples(record: LinearMap, node: Node) -> None:
    """Raise unless scaling the input of each sample by a number of its own scales the outputs by the same numbers."""
    ones = [torch.ones_like(parent.radius) for parent in node.inputs]
    sizes = torch.arange(1, node.shape[0] + 1, device=node.device, dtype=node.dtype).sqrt()
    marked = record.function(*(one * sizes.view(-1, *(1,) * (one.dim() - 1)) for one in ones))
    expected = record.function(*ones) * sizes.view(-1, *(1,) * (marked.dim() - 1))
    if not torch.allclose(marked, expected, rtol=1e-4, atol=0):
        raise MissingRuleError(f"{record.name} mixes samples of the batch; the backward walk keeps them apart.")
