"""MNIST and Fashion-MNIST: IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fastbound.data.files import checked_labels, read_bytes
from fastbound.data.images import DataError, DataSet, Images


def mnist(folder: Path) -> DataSet:
    return DataSet("mnist", train=_idx_pair(folder, "train"), test=_idx_pair(folder, "t10k"), default_eps=0.3)


def fashion_mnist(folder: Path) -> DataSet:
    return replace(mnist(folder), name="fashion-mnist", default_eps=0.1)


def _idx_pair(folder: Path, part: str) -> Images:
    images_path = _find_idx(folder, f"{part}-images", 3)
    labels_path = _find_idx(folder, f"{part}-labels", 1)
    pixels = read_idx(images_path, 3)
    labels = read_idx(labels_path, 1)
    if tuple(pixels.shape[1:]) != (28, 28):
        raise DataError(f"{images_path}: wanted images of 28x28 pixels, found {pixels.shape[1]}x{pixels.shape[2]}.")
    if len(pixels) != len(labels):
        raise DataError(f"{labels_path}: {len(labels)} labels for the {len(pixels)} images of {images_path.name}.")
    return Images(pixels.unsqueeze(1), checked_labels(labels, labels_path))


def _find_idx(folder: Path, stem: str, rank: int) -> Path:
    spellings = [f"{stem}{join}idx{rank}-ubyte{end}" for join in "-." for end in ("", ".gz")]
    for place in (folder, folder / "raw", folder / "MNIST" / "raw", folder / "FashionMNIST" / "raw"):
        for spelling in spellings:
            if (place / spelling).is_file():
                return place / spelling
    raise DataError(
        f"{folder / spellings[0]}: there is no such file, and none ending in .gz (an IDX file is wanted here)."
    )


def read_idx(path: Path, dimensions: int) -> Tensor:
    """An IDX file of unsigned bytes with this many dimensions, gzipped or not, as a uint8 tensor.

    Raises DataError for a wrong magic number, a truncated archive, or a size that differs from the header's.
    """
    content = _unpacked(path)
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path}: {len(content)} bytes are too few for the header of an IDX file ({header} bytes).")
    magic, *sizes = struct.unpack(f">{1 + dimensions}I", content[:header])
    if magic != 0x800 + dimensions:
        raise DataError(
            f"{path}: magic number {magic:#010x}, wanted {0x800 + dimensions:#010x} (unsigned bytes, {dimensions} "
            "dimensions)."
        )
    count = math.prod(sizes)
    wanted = header + count
    if len(content) != wanted:
        raise DataError(
            f"{path}: {len(content)} bytes, but its header announces {'x'.join(map(str, sizes))} values, which makes "
            f"{wanted}."
        )
    if not count:
        raise DataError(f"{path}: its header announces no values ({'x'.join(map(str, sizes))}).")
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).view(*sizes)


def _unpacked(path: Path) -> bytes:
    content = read_bytes(path)
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as archive:
            return archive.read()
    except EOFError:
        raise DataError(
            f"{path}: the gzip archive is truncated ({len(content)} bytes); fetch the file again."
        ) from None
    except (OSError, zlib.error) as problem:
        raise DataError(f"{path}: the gzip archive is damaged ({problem}); fetch the file again.") from None
