"""The precision in which a run trains; its certificate is IEEE float32 in any case."""

from __future__ import annotations

import contextlib
import warnings

import torch

from fastbound.certify.modes import float32_products, training_precision
from fastbound.choices import PRECISIONS


class TrainingPrecision:
    """One of `PRECISIONS` on a device, for a run as a whole and for the losses of its steps.

    Raises ValueError for an unknown name, and for TF32 on a CPU. Warns if a CPU has no instructions for bfloat16.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name not in PRECISIONS:
            raise ValueError(f"precision: wanted {', '.join(PRECISIONS)}, got {name!r}.")
        if name == "tf32" and device.type == "cpu":
            raise ValueError("precision: a CPU has no TF32; use ieee, or bf16 for speed.")
        if name == "bf16" and device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            warnings.warn("precision: this processor has no bfloat16 instructions; bf16 will be slower.", stacklevel=2)
        self.name, self.device = name, device

    def run(self) -> contextlib.AbstractContextManager[None]:
        """A context for the whole run that sets how products of float32 tensors are computed."""
        return float32_products(self.name) if self.name in ("ieee", "tf32") else contextlib.nullcontext()

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The dtype of products inside the losses, by autocast; None leaves autocast as it is."""
        return torch.bfloat16 if self.name == "bf16" else None

    def in_words(self) -> str:
        """The precision as text, for the report of a run."""
        with self.run(), autocast_to(self.autocast_dtype, self.device):
            return training_precision(self.device)


def autocast_to(dtype: torch.dtype | None, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """``torch.autocast`` to a dtype; None leaves autocast as it is."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)
