"""Images, augmentation and data sets as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def split(self, count: int) -> tuple[Images, Images]:
        """The first `count` images, held out for validation, and the others, of which at least one must be left."""
        if not 0 <= count < len(self):
            raise ValueError(
                f"validation: wanted fewer than the {len(self)} training images held out, got {count}; for example "
                f"--set validation={len(self) // 10}."
            )
        held_out = replace(self, pixels=self.pixels[:count], labels=self.labels[:count])
        return held_out, replace(self, pixels=self.pixels[count:], labels=self.labels[count:])


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
