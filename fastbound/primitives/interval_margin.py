"""`interval_margin`: the order of the margins of a sample."""

from __future__ import annotations

import torch
from torch import Tensor


def other_classes(labels: Tensor, classes: int) -> Tensor:  # [B] -> [B, K - 1]
    """The classes other than the label, in increasing order."""
    index = torch.arange(classes - 1, device=labels.device).expand(labels.shape[0], -1)
    return index + (index >= labels.unsqueeze(1)).long()
