"""The digits that ship with the package."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch

from fastbound.data.images import DataSet, Images


def digits() -> DataSet:
    path = Path(__file__).parents[1] / "assets" / "digits.npz"
    with numpy.load(path, allow_pickle=False) as arrays:
        part = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return DataSet(
        "digits",
        train=Images(part["train_images"], part["train_labels"].long(), scale=16),
        test=Images(part["test_images"], part["test_labels"].long(), scale=16),
    )
