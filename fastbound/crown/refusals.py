"""Errors for nodes that a backward walk cannot pass, raised before it starts."""

from __future__ import annotations

import torch

from fastbound.domains.records import Opaque, tensors
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
