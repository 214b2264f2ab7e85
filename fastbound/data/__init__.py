"""Data sets as tensors, and the loader that shards, shuffles and augments them.

A whole data set lives in memory as unsigned bytes (on the device of the run); a batch becomes float32 in [0, 1] when it
is read. The order of an epoch and every random crop depend on (seed, epoch, batch) alone, so a run can stop and
continue at any batch.
"""

from __future__ import annotations

from pathlib import Path

from fastbound.choices import DATASETS
from fastbound.data.cifar import read_cifar_binary as read_cifar_binary
from fastbound.data.idx import read_idx as read_idx
from fastbound.data.images import Augmentation as Augmentation
from fastbound.data.images import DataError as DataError
from fastbound.data.images import DataSet as DataSet
from fastbound.data.images import Images as Images
from fastbound.data.loader import Loader as Loader
from fastbound.data.loader import mixed_seed as mixed_seed


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted(DATASETS)


def load(name: str, data_dir: str | Path | None = None) -> DataSet:
    """The data set `name`.

    ``digits`` ships with the package (UCI Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, CC BY
    4.0). The others are read from `data_dir`: ``mnist`` and ``fashion-mnist`` as IDX files, gzipped or not, ``cifar10``
    as its binary version, ``tiny-imagenet`` as its folders of JPEG files.

    Raises:
        ValueError: unknown name, or no `data_dir` if one is needed.
        DataError: a missing or damaged file, named with what was wrong.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset: there is no data set {name!r}; known: {', '.join(names())}.")
    if name == "digits":
        return DATASETS[name]()
    if data_dir is None:
        raise ValueError(
            f"data_dir: {name} does not ship with fastbound; name the folder that holds its files (--data-dir)."
        )
    folder = Path(data_dir)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder (wanted the files of {name}).")
    return DATASETS[name](folder)
