"""Specifications: linear functions of the outputs whose bounds are wanted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastbound.domains.checks import recording, require
from fastbound.ops.autocast import kept_from_autocast
from fastbound.primitives.interval_margin import other_classes

# The labels of the specifications that `margin_spec` made and that are still alive, and the version of the tensor for
# which they hold.
_labels = WeakTensorKeyDictionary()


def margin_spec(labels: Tensor, num_classes: int) -> Tensor:
    """Rows e_y - e_j for the classes j != y in increasing order: the margins of the true class.

    Args:
        labels: [B], int64, in [0, num_classes).
        num_classes: K >= 2.

    Returns:
        [B, K - 1, K] in torch's default dtype. The tensor remembers its labels, so that a bound through a last linear
        layer need not multiply by it. After an in-place change it is treated like any other specification.

    Raises:
        TypeError: labels are not integers. ValueError: a shape other than [B], labels out of range, K < 2.
    """
    labels = check_labels(labels, num_classes)
    classes = torch.eye(num_classes, device=labels.device)
    spec = classes[labels].unsqueeze(1) - classes[other_classes(labels, num_classes)]
    _remember(spec, labels.clone())
    return spec


def check_labels(labels: Tensor, num_classes: int) -> Tensor:
    """The labels [B] as int64; raises like `margin_spec`."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels: wanted an integer tensor [B], got {got}.")
    if labels.dim() != 1 or num_classes < 2:
        raise ValueError(
            f"margin_spec: wanted labels [B] and num_classes >= 2, got {tuple(labels.shape)} and {num_classes}."
        )
    labels = labels.long()
    if not recording(labels):
        inside = ((labels >= 0) & (labels < num_classes)).all()
        require(inside, f"labels: wanted classes in [0, {num_classes}), got others.")
    return labels


def margin_labels(spec: Tensor) -> Tensor | None:
    """The labels [B] that `margin_spec` made ``spec`` from, or None for any other specification."""
    if torch.compiler.is_compiling() or spec.is_inference() or spec.requires_grad:
        return None
    labels, version = _labels.get(spec, (None, -1))
    return labels if version == spec._version else None


def _remember(spec: Tensor, labels: Tensor) -> None:
    """Keep the labels with the specification for as long as nobody writes to it."""
    if not torch.compiler.is_compiling() and not spec.is_inference():  # inference tensors count no versions
        _labels[spec] = labels, spec._version


def converted(spec: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``spec`` in a dtype and on a device, with its labels."""
    if spec.dtype == dtype and spec.device == device:
        return spec
    labels, spec = margin_labels(spec), spec.to(dtype=dtype, device=device)
    if labels is not None:
        _remember(spec, labels.to(device))
    return spec


def check_spec(spec: Tensor, out_shape: torch.Size) -> None:
    """Raise unless ``spec`` is [B, S, K] for outputs of shape [B, K]."""
    if not isinstance(spec, Tensor):
        raise TypeError(f"spec: wanted a tensor [B, S, K], got {type(spec).__name__}.")
    if len(out_shape) != 2:
        raise ValueError(f"spec: wanted a model output [B, K], got {tuple(out_shape)}; flatten the output first.")
    batch, classes = out_shape
    if spec.dim() != 3 or spec.shape[0] != batch or spec.shape[2] != classes:
        hint = f"; repeat it for each sample with spec.expand({batch}, -1, -1)" if spec.dim() == 2 else ""
        raise ValueError(f"spec: wanted shape [{batch}, S, {classes}], got {tuple(spec.shape)}{hint}.")


@kept_from_autocast
def specified(x: Tensor, spec: Tensor) -> Tensor:  # [B, K], [B, S, K] -> [B, S]
    """``spec @ x`` for each sample."""
    return (spec @ x.unsqueeze(-1)).squeeze(-1)
