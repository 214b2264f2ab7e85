"""CIFAR-10: the binary version."""

from __future__ import annotations

from pathlib import Path

import torch

from fastbound.data.files import checked_labels, read_bytes
from fastbound.data.images import Augmentation, DataError, DataSet, Images


def cifar10(folder: Path) -> DataSet:
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    parts = [read_cifar_binary(folder / f"data_batch_{number}.bin") for number in range(1, 6)]
    train = Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))
    return DataSet(
        "cifar10",
        train=train,
        test=read_cifar_binary(folder / "test_batch.bin"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        augmentation=Augmentation(flip=True, crop=4, mode="zero"),
        default_eps=8 / 255,
    )


def read_cifar_binary(path: Path, records: int = 10_000) -> Images:
    """One file of the binary version of CIFAR-10: `records` times a label byte and 3072 pixel bytes."""
    content = read_bytes(path)
    record = 1 + 3 * 32 * 32
    if len(content) != records * record:
        raise DataError(
            f"{path}: {len(content)} bytes, wanted {records * record} ({records} records of {record} bytes)."
        )
    table = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(records, record)
    return Images(table[:, 1:].reshape(records, 3, 32, 32), checked_labels(table[:, 0], path))
