"""`convert`: the layers of a model become fastbound's, in place."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from fastbound.nn import layers

Module = TypeVar("Module", bound=nn.Module)

REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: layers.Linear,
    nn.Conv2d: layers.Conv2d,
    nn.ReLU: layers.ReLU,
    nn.SyncBatchNorm: layers.SyncBatchNorm,
}


def convert(model: Module) -> Module:
    """Swap torch.nn layers for fastbound.nn layers, in place, and return the model.

    Boxes flow through unconverted models too; a converted one skips the dispatch of each layer, and an active
    SyncBatchNorm, which dispatches to nothing, works. Parameters, buffers, hooks and the state_dict stay what they are.
    Conv-BatchNorm-ReLU runs as one product and one pass over all streams. Subclasses of the layers are left alone:
    their own ``forward`` runs.

    Args:
        model: any module. Converting twice changes nothing.

    Raises:
        TypeError: not a module.

    Soundness: bounds are those of the unconverted model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: wanted a torch.nn.Module, got {type(model).__name__}.")
    for module in model.modules():
        replacement = REPLACEMENTS.get(type(module))
        if replacement is not None:
            module.__class__ = replacement  # same attributes, another forward: identity and sharing survive
    return model
