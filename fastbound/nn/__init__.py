"""Drop-in layers and `convert`."""

from torch.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d

from fastbound.nn.convert import convert
from fastbound.nn.minmax import MinMax
from fastbound.nn.modules import Conv2d, Linear, ReLU, SyncBatchNorm
from fastbound.nn.normalize import Normalize

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv2d",
    "Linear",
    "MinMax",
    "Normalize",
    "ReLU",
    "SyncBatchNorm",
    "convert",
]
