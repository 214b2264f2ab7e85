"""Reading data files, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fastbound.data.images import DataError


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror or problem}).") from None


def checked_labels(labels: Tensor, path: Path, num_classes: int = 10) -> Tensor:
    wrong = (labels >= num_classes).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise DataError(
            f"{path}: label {int(labels[index])} of image {index} is out of range, wanted 0 to {num_classes - 1}."
        )
    return labels.long()
