"""Data sets as tensors, and the loader that shards, shuffles and augments them.

A whole data set lives in memory as unsigned bytes (on the device of the run); a batch becomes float32 in [0, 1] when it
is read. The order of an epoch and every random crop depend on (seed, epoch, batch) alone, so a run can stop and
continue at any batch.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor


class DataError(ValueError):
    """A data file is missing or damaged; the message names the file and what was wrong with it."""


@dataclass(frozen=True)
class Images:
    """Labelled images: `pixels` uint8 [N, C, H, W] with values 0..`scale`, `labels` int64 [N]."""

    pixels: Tensor
    labels: Tensor
    scale: int = 255

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Images:
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def limit(self, count: int | None) -> Images:
        """The first `count` images; all of them for None."""
        if count is None:
            return self
        if count < 1:
            raise ValueError(f"limit: wanted at least 1 image, got {count}.")
        return replace(self, pixels=self.pixels[:count], labels=self.labels[:count])


@dataclass(frozen=True)
class Augmentation:
    """Random horizontal flip, and a random crop of the image padded by `crop` pixels on every side ("edge" or
    "zero")."""

    flip: bool = False
    crop: int = 0
    mode: str = "edge"

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"crop: wanted a padding of 0 or more pixels, got {self.crop}.")
        if self.mode not in ("edge", "zero"):
            raise ValueError(f"crop mode: wanted 'edge' or 'zero', got {self.mode!r}.")

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:  # [B, C, H, W]
        if self.crop:
            pixels = self._cropped(pixels, generator)
        if self.flip:
            flip = torch.rand(len(pixels), 1, 1, 1, generator=generator, device=pixels.device) < 0.5
            pixels = torch.where(flip, pixels.flip(-1), pixels)
        return pixels

    def _cropped(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        batch, _, height, width = pixels.shape
        device = pixels.device
        offset = torch.randint(-self.crop, self.crop + 1, (2, batch, 1), generator=generator, device=device)
        rows = torch.arange(height, device=device) + offset[0]  # [B, H]
        columns = torch.arange(width, device=device) + offset[1]  # [B, W]
        inside = _inside(rows, height).unsqueeze(-1) & _inside(columns, width).unsqueeze(-2)  # [B, H, W]
        # A clamped index reads the edge pixel: the padded image is never built.
        picked = pixels[
            torch.arange(batch, device=device).view(-1, 1, 1),
            :,
            rows.clamp(0, height - 1).unsqueeze(-1),
            columns.clamp(0, width - 1).unsqueeze(-2),
        ].permute(0, 3, 1, 2)
        return picked if self.mode == "edge" else picked * inside.unsqueeze(1)


def _inside(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)


@dataclass(frozen=True)
class DataSet:
    """Training and test images with what a run needs to know about them."""

    name: str
    train: Images
    test: Images
    num_classes: int = 10
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augmentation: Augmentation = Augmentation()
    default_eps: float = 0.1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.train.pixels.shape[1:])


class Loader:
    """Iterates (x float32 [B, C, H, W] in [0, 1], labels int64 [B]) over `images`; usable as ``loader`` of
    ``fastbound.certify``.

    Args:
        images: the images; batches stay on their device.
        batch_size: images a step over all processes; a process reads `batch_size` / `world_size` of them.
        shuffle: a new order in every epoch, drawn from (seed, epoch).
        drop_last: leave out the last images of an epoch that do not fill a batch (never the only batch).
        augmentation: applied to every batch, drawn from (seed, epoch, batch, rank).
        rank, world_size: this process and their number: every global batch is split among them.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: wanted at least 1, got {batch_size}.")
        if batch_size % world_size:
            raise ValueError(f"batch_size: {batch_size} is not divisible by the {world_size} processes that share it.")
        if not len(images):
            raise ValueError("images: there is no image to load.")
        self.images, self.batch_size, self.shuffle = images, batch_size, shuffle
        self.augmentation, self.seed = augmentation, seed
        self.rank, self.world_size = rank, world_size
        self._drop_last = drop_last and len(images) >= batch_size

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of `epoch` from `first_batch` on: the same ones whether or not the earlier ones were read."""
        order = self._order(epoch)
        for batch in range(first_batch, len(self)):
            mine = order[batch * self.batch_size : (batch + 1) * self.batch_size][self.rank :: self.world_size]
            if len(mine):
                yield self._read(mine, epoch, batch)

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.images), device=self.images.pixels.device)
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        return torch.randperm(len(self.images), generator=generator).to(self.images.pixels.device)

    def _read(self, index: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        pixels = self.images.pixels[index]
        if self.augmentation is not None:
            generator = torch.Generator(pixels.device).manual_seed(mixed_seed(self.seed, epoch, batch, self.rank))
            pixels = self.augmentation(pixels, generator)
        return pixels.float() / self.images.scale, self.images.labels[index]


def mixed_seed(*numbers: int) -> int:
    """One seed from several numbers; different tuples give different streams."""
    state = 0xCBF29CE484222325
    for number in numbers:
        state = ((state ^ (number + 0x9E3779B9)) * 0x100000001B3) % 2**63
    return state


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted(_SETS)


def load(name: str, data_dir: str | Path | None = None) -> DataSet:
    """The data set `name`.

    ``digits`` ships with the package (UCI Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, CC BY
    4.0); ``mnist`` and ``fashion-mnist`` are read as IDX files, gzipped or not, ``cifar10`` as its binary version, from
    `data_dir`.

    Raises:
        ValueError: unknown name, or no `data_dir` where one is needed.
        DataError: a missing or damaged file, named with what was wrong.
    """
    if name not in _SETS:
        raise ValueError(f"dataset: there is no data set {name!r}; known: {', '.join(names())}.")
    if name == "digits":
        return _digits(None)
    if data_dir is None:
        raise ValueError(
            f"data_dir: {name} does not ship with fastbound; name the folder that holds its files (--data-dir)."
        )
    folder = Path(data_dir)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder (wanted the files of {name}).")
    return _SETS[name](folder)


def _digits(_: Path | None) -> DataSet:
    import numpy

    path = Path(__file__).parent / "assets" / "digits.npz"
    with numpy.load(path, allow_pickle=False) as arrays:
        part = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return DataSet(
        "digits",
        train=Images(part["train_images"], part["train_labels"].long(), scale=16),
        test=Images(part["test_images"], part["test_labels"].long(), scale=16),
    )


def _mnist(folder: Path) -> DataSet:
    return DataSet("mnist", train=_idx_pair(folder, "train"), test=_idx_pair(folder, "t10k"), default_eps=0.3)


def _fashion_mnist(folder: Path) -> DataSet:
    return replace(_mnist(folder), name="fashion-mnist", default_eps=0.1)


def _cifar10(folder: Path) -> DataSet:
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


_SETS: dict[str, Callable[[Path], DataSet]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
}


def _idx_pair(folder: Path, part: str) -> Images:
    images_path = _find_idx(folder, f"{part}-images", 3)
    labels_path = _find_idx(folder, f"{part}-labels", 1)
    pixels = read_idx(images_path, 3)
    labels = read_idx(labels_path, 1)
    if tuple(pixels.shape[1:]) != (28, 28):
        raise DataError(f"{images_path}: wanted images of 28x28 pixels, found {pixels.shape[1]}x{pixels.shape[2]}.")
    if len(pixels) != len(labels):
        raise DataError(f"{labels_path}: {len(labels)} labels for the {len(pixels)} images of {images_path.name}.")
    return Images(pixels.unsqueeze(1), _checked_labels(labels, labels_path))


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

    Raises DataError for a wrong magic number, a truncated archive, or a size that is not the header's.
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
    content = _read(path)
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror or problem}).") from None


def read_cifar_binary(path: Path, records: int = 10_000) -> Images:
    """One file of the binary version of CIFAR-10: `records` times a label byte and 3072 pixel bytes."""
    content = _read(path)
    record = 1 + 3 * 32 * 32
    if len(content) != records * record:
        raise DataError(
            f"{path}: {len(content)} bytes, wanted {records * record} ({records} records of {record} bytes)."
        )
    table = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(records, record)
    return Images(table[:, 1:].reshape(records, 3, 32, 32), _checked_labels(table[:, 0], path))


def _checked_labels(labels: Tensor, path: Path, num_classes: int = 10) -> Tensor:
    wrong = (labels >= num_classes).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise DataError(
            f"{path}: label {int(labels[index])} of image {index} is out of range, wanted 0 to {num_classes - 1}."
        )
    return labels.long()
