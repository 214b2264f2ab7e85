"""The state that certification runs in: evaluation mode and IEEE float32 products, both restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """`model.eval()` inside the context; afterwards every submodule gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raises ValueError for a normalisation layer that uses statistics of the batch in evaluation mode."""
    for name, module in model.named_modules():
        if getattr(module, "track_running_stats", True) is False and isinstance(
            module, nn.modules.batchnorm._BatchNorm
        ):
            raise ValueError(
                f"model: {name or type(module).__name__} ({type(module).__name__}) has track_running_stats=False, so "
                "its output for one sample depends on the other samples of the batch and nothing can be certified for "
                "a sample alone. Train with track_running_stats=True."
            )


def precision_switches() -> list[Any]:
    """Every place that may lower the precision of a float32 product: the general one first, then those that override
    it.

    ``torch.backends.mkldnn.fp32_precision`` is not among them: assigning it changes the general switch (torch 2.13).
    """
    backends: Any = torch.backends
    return [
        backends,
        backends.cudnn,
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
    ]


def set_float32_products(precision: str) -> None:
    """Sets the precision of float32 products from now on: by the general switch, from which all others inherit.

    Setting the general switch alone is not enough: torch 2.11 leaves cuDNN's convolutions in "tf32".
    """
    general, *others = precision_switches()
    for switch in others:
        switch.fp32_precision = "none"
    general.fp32_precision = precision


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Inside the context float32 products are computed in `precision`, "ieee" or "tf32", whatever torch's flags say."""
    switches = precision_switches()
    before = []
    for switch in switches:
        before.append(switch.fp32_precision)
        # Cleared in order, so that what is read next is a switch's own value and not an inherited one.
        switch.fp32_precision = "none"
    try:
        for switch in switches:
            switch.fp32_precision = precision
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Inside the context float32 products are IEEE float32 (no TF32, no bfloat16 passes), and autocast is off."""
    with float32_products("ieee"), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def training_precision(device: torch.device | str) -> str:
    """The precision of float32 products under torch's current flags, in words, for the report of a run."""
    kind = torch.device(device).type
    backends: Any = torch.backends
    pair = (
        (backends.cuda.matmul, backends.cudnn.conv)
        if kind == "cuda"
        else (backends.mkldnn.matmul, backends.mkldnn.conv)
    )
    matmul, conv = (value if value != "none" else "ieee" for value in (switch.fp32_precision for switch in pair))
    products = matmul if matmul == conv else f"{matmul} matrix products, {conv} convolutions"
    autocast = f", autocast to {torch.get_autocast_dtype(kind)}" if torch.is_autocast_enabled(kind) else ""
    return f"float32 ({products}{autocast})"
