"""`convert`: the layers of a model become fastbound's, in place."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from fastbound.nn import modules

Module = TypeVar("Module", bound=nn.Module)

REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: modules.Linear,
    nn.Conv2d: modules.Conv2d,
    nn.ReLU: modules.ReLU,
    nn.SyncBatchNorm: modules.SyncBatchNorm,
}


def convert(model: Module) -> Module:
    """Swap torch.nn layers for fastbound.nn layers, in place, and return the model.

    Boxes pass through unconverted models too. A converted one skips the dispatch of each layer, runs a convolution,
    BatchNorm and ReLU as one product and one pass over all streams, and supports an active SyncBatchNorm, whose own
    ``forward`` dispatches to no rule. Parameters, buffers, hooks and the state_dict stay the same. Subclasses of the
    layers keep their own ``forward``.

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
            module.__class__ = replacement  # same attributes, another forward: identity and sharing are kept
    return model
