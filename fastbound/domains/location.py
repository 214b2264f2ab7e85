"""The place of a call in the user's model, read from the call stack only when a message needs it."""

from __future__ import annotations

import inspect
import warnings

import torch
import torch.utils.checkpoint
from torch import nn


def module_path() -> str:
    """`` in features.3 (ReLU)`` for the innermost module whose forward is running, or an empty string."""
    if torch.compiler.is_compiling():
        return ""
    modules: list[nn.Module] = []
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name in ("forward", "_call_impl"):
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and (not modules or modules[-1] is not owner):
                modules.append(owner)
        frame = frame.f_back
    if not modules:
        return ""
    inner, outer = modules[0], modules[-1]
    name = next((name for name, module in outer.named_modules() if module is inner), "")
    return f" in {name or 'the model'} ({type(inner).__name__})"


def warn_of_reentrant_checkpoint() -> None:
    """Warn if reentrant activation checkpointing is running: it drops the gradients of abstract values."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is torch.utils.checkpoint.CheckpointFunction.forward.__code__:
            warnings.warn(
                "reentrant activation checkpointing loses the gradients of bounds; pass use_reentrant=False to "
                "torch.utils.checkpoint.checkpoint.",
                stacklevel=2,
            )
            return
        frame = frame.f_back
