"""Mean losses of held-out training images, for recipes that adapt their weights to them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fastbound.certify.modes import evaluation_mode
from fastbound.data import Loader
from fastbound.train.distributed import Processes
from fastbound.train.recipes import Recipe, Step


def mean_losses(
    recipe: Recipe,
    model: nn.Module,
    loader: Loader,
    num_classes: int,
    scheduled: Mapping[str, float],
    group: Processes,
) -> dict[str, float]:
    """`Recipe.validation_losses` over the loaders of all processes; `scheduled` holds the current eps and weights.

    The model runs in evaluation mode, restored afterwards, with the running statistics of the first process.
    """
    weights = dict(scheduled)
    eps = weights.pop("eps")
    totals: dict[str, float] = {}
    group.same_buffers(model)
    with evaluation_mode(model), torch.no_grad():
        for x, labels in loader:
            step = Step(model, x, labels, num_classes, eps, recipe.eps_max(), weights)
            for name, value in recipe.validation_losses(step).items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(x)
            totals["count"] = totals.get("count", 0.0) + len(x)
    sums = group.total(torch.tensor(list(totals.values()), dtype=torch.float64)).tolist()
    means = dict(zip(totals, sums))
    count = means.pop("count")
    return {name: total / count for name, total in means.items()}
