"""BatchNorm: linear once its statistics are fixed."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from fastbound.domains.linear import layers
from fastbound.domains.location import module_path
from fastbound.domains.rules import rule
from fastbound.domains.zonotope.value import Zonotope


@rule(Zonotope, F.batch_norm)
def batch_norm(input: Zonotope, *args: Any, **kwargs: Any) -> Zonotope:
    training = kwargs.get("training", args[4] if len(args) > 4 else False)
    if training and input.terms.interval is not None:
        raise NotImplementedError(
            f"batch_norm{module_path()}: relaxation {input.terms.plan.relaxation!r} uses two kinds of bounds, but "
            "batch statistics can only be taken once; call model.eval(), or take relaxation='deepz'."
        )
    return layers.batch_norm(input, *args, **kwargs)  # type: ignore[return-value]
