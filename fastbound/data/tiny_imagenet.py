"""Tiny-ImageNet: the folders of JPEG files of the original archive, decoded once and then read from a cache."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastbound.data.files import read_bytes
from fastbound.data.images import Augmentation, DataError, DataSet, Images

SIZE = 64
CACHE = "fastbound.safetensors"


def tiny_imagenet(folder: Path) -> DataSet:
    """The training and validation images below `folder` (or below its tiny-imagenet-200).

    Classes are numbered in the order of their names. The decoded pixels (1.4 GB) are kept in `CACHE` in that folder,
    and read from there while names, sizes and times of the files stay the same.
    """
    inner = folder / "tiny-imagenet-200"
    folder = inner if inner.is_dir() else folder
    classes = sorted(read_bytes(folder / "wnids.txt").decode().split())
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise DataError(f"{folder / 'wnids.txt'}: wanted at least 2 different class names, one a line.")
    number = {name: index for index, name in enumerate(classes)}
    train, test = _training_files(folder, classes), _validation_files(folder, number)
    files = [path for path, _ in (*train, *test)]
    pixels = _cached(files, folder / CACHE)
    labels = torch.tensor([label for _, label in (*train, *test)])
    return DataSet(
        "tiny-imagenet",
        train=Images(pixels[: len(train)], labels[: len(train)]),
        test=Images(pixels[len(train) :], labels[len(train) :]),
        num_classes=len(classes),
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2302, 0.2265, 0.2262),
        augmentation=Augmentation(flip=True, crop=4, mode="edge"),
        default_eps=1 / 255,
    )


def _training_files(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    found = [_jpegs(folder / "train" / name / "images") for name in classes]
    most = max(found, key=len)
    for name, files in zip(classes, found, strict=True):
        if len(files) != len(most):
            raise DataError(
                f"{folder / 'train' / name / 'images'}: {len(files)} images, but other classes have {len(most)}; "
                "unpack the archive again."
            )
    return [(path, label) for label, files in enumerate(found) for path in files]


def _validation_files(folder: Path, number: dict[str, int]) -> list[tuple[Path, int]]:
    annotations = folder / "val" / "val_annotations.txt"
    labels: dict[str, int] = {}
    for line, text in enumerate(read_bytes(annotations).decode().splitlines(), 1):
        name, _, rest = text.partition("\t")
        label = number.get(rest.partition("\t")[0])
        if label is None:
            raise DataError(f"{annotations}, line {line}: wanted a file, a tab and a class of wnids.txt, got {text!r}.")
        labels[name] = label
    files = _jpegs(folder / "val" / "images")
    unmatched = {path.name for path in files} ^ set(labels)
    if unmatched:
        raise DataError(
            f"{folder / 'val'}: {len(unmatched)} names are only in images/ or only in val_annotations.txt, such as "
            f"{min(unmatched)}; unpack the archive again."
        )
    return [(path, labels[path.name]) for path in files]


def _jpegs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder (wanted the layout of the archive tiny-imagenet-200).")
    files = sorted(folder.glob("*.JPEG"))
    if not files:
        raise DataError(f"{folder}: there is no file *.JPEG.")
    return files


def _cached(files: Sequence[Path], cache: Path) -> Tensor:  # [N, 3, SIZE, SIZE]
    digest = _digest(files, cache.parent)
    try:
        with safe_open(cache, "pt") as saved:
            if (saved.metadata() or {}).get("files") == digest:
                return saved.get_tensor("pixels")
    except (OSError, SafetensorError):
        pass  # no cache yet, or a damaged one, which is rewritten
    pixels = _decoded(files)
    partial = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        save_file({"pixels": pixels}, partial, {"files": digest})
        partial.replace(cache)
    except (OSError, SafetensorError) as problem:
        partial.unlink(missing_ok=True)
        warnings.warn(f"{cache}: cannot be written ({problem}), so every run decodes the images again.", stacklevel=2)
    return pixels


def _digest(files: Sequence[Path], folder: Path) -> str:
    """A digest of the names, sizes and times of the files."""
    digest = hashlib.sha256()
    for path in files:
        state = path.stat()
        digest.update(f"{path.relative_to(folder)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _decoded(files: Sequence[Path]) -> Tensor:  # [N, 3, SIZE, SIZE]
    pixels = torch.empty(len(files), 3, SIZE, SIZE, dtype=torch.uint8)

    def decode(index: int) -> None:
        pixels[index] = _read_image(files[index])

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(decode, range(len(files))):
            pass
    return pixels


def _read_image(path: Path) -> Tensor:  # [3, SIZE, SIZE]
    """A few of the images are grey; they get three equal channels."""
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            if image.size != (SIZE, SIZE):
                raise DataError(f"{path}: wanted {SIZE}x{SIZE} pixels, found {image.width}x{image.height}.")
            array = numpy.array(image.convert("RGB"))
    except (OSError, SyntaxError) as problem:
        raise DataError(f"{path}: cannot be decoded as a JPEG image ({problem}).") from None
    return torch.from_numpy(array).permute(2, 0, 1)
