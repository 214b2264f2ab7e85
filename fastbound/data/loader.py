"""The loader: it shards, shuffles and augments, and yields the same batches whether or not a run was interrupted."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastbound.data.images import Augmentation, Images


class Loader:
    """Iterates (x float32 [B, C, H, W] in [0, 1], labels int64 [B]) over `images`; usable as ``loader`` of
    ``fastbound.certify``.

    Args:
        images: the images; batches stay on their device.
        batch_size: images a step over all processes; a process reads `batch_size` / `world_size` of them.
        shuffle: a new order in every epoch, drawn from (seed, epoch).
        drop_last: leave out the last images of an epoch that do not fill a batch (never the only batch).
        augmentation: applied to every batch, drawn from (seed, epoch, batch, rank).
        rank, world_size: number of this process and of all processes, among which every global batch is split.
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
