"""Models of every supported shape, and the shape of one input of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """Basic blocks with a strided shortcut, ``+=`` and in-place ReLU, as torchvision writes them."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace))
        self.conv1 = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
        self.relu = nn.ReLU(inplace)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        out = self.relu(out)
        return self.fc(torch.flatten(self.pool(out), 1))


class Dense(nn.Module):
    """Concatenation of all earlier maps, norm and ReLU before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(2, 4, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(7), nn.Conv2d(7, 3, 3, padding=1)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv0(x)
        second = self.conv1(F.relu(self.norm1(first)))
        third = self.conv2(F.relu(self.norm2(torch.cat([first, second], 1))))
        maps = torch.cat([first, second, third], dim=1)
        return self.fc(F.avg_pool2d(maps, maps.size(2)).view(maps.size(0), -1))


class Branches(nn.Module):
    """Branches of different kernels, channel split and shuffle, differences, constants of either sign."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 6, 1)
        self.b = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1))
        self.c = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 6, 1))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) - 0.5 * self.b(x)
        left, right = torch.chunk(y, 2, 1)
        z = torch.cat([right * -2.0, left / 3.0 + 1.0], 1)
        z = torch.cat([F.relu(z), 1.5 - self.c(x)], dim=1)
        return self.head(z.mean((2, 3)))


class Scaled(nn.Conv2d):
    """A subclass of a module."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input * 2.0) + 1.0


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def sequence(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


def conv_net(channels: int, **settings: object) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Conv2d(channels, 6, 3, **settings),  # type: ignore[arg-type]
        nn.ReLU(),
        nn.Conv2d(6, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def norm_net(**settings: object) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Conv2d(2, 5, 3),
        nn.BatchNorm2d(5, **settings),  # type: ignore[arg-type]
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(8),
        nn.BatchNorm1d(8, **settings),  # type: ignore[arg-type]
        nn.ReLU(),
        nn.Linear(8, 3),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)), (7,)),
    "cnn": (conv_net(2, padding=1), (2, 7, 6)),
    "strided": (conv_net(2, stride=2), (2, 11, 9)),
    "strided unevenly": (conv_net(2, stride=(2, 1), padding=(0, 2)), (2, 9, 7)),
    "dilated": (conv_net(3, dilation=2), (3, 9, 9)),
    "dilated unevenly": (conv_net(3, dilation=(1, 3), padding=2), (3, 7, 9)),
    "grouped": (conv_net(4, groups=2, padding=1), (4, 6, 6)),
    "depthwise": (conv_net(3, groups=3), (3, 6, 6)),
    "no bias": (conv_net(2, bias=False), (2, 6, 6)),
    "same": (conv_net(2, padding="same"), (2, 6, 6)),
    "same, even kernel": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, (4, 2), padding="same"), nn.ReLU(), nn.Conv2d(4, 2, 3, padding="valid")),
        (2, 6, 6),
    ),
    "same, dilated": (conv_net(2, padding="same", dilation=(2, 3)), (2, 9, 9)),
    "reflect": (conv_net(2, padding=2, padding_mode="reflect"), (2, 6, 6)),
    "replicate": (conv_net(2, padding=(1, 2), padding_mode="replicate"), (2, 6, 6)),
    "circular": (conv_net(2, padding=1, padding_mode="circular", stride=2), (2, 7, 7)),
    "reflect, same": (conv_net(2, padding="same", padding_mode="reflect"), (2, 6, 6)),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 5, 3, stride=2, padding=1, dilation=2),
            nn.ReLU(),
            nn.Conv1d(5, 4, 2, padding="same"),
            nn.AvgPool1d(2),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
        (3, 17),
    ),
    "conv3d": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 4, (2, 3, 2), stride=(1, 2, 1), padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
        (2, 4, 5, 4),
    ),
    "conv_transpose2d": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 4, (2, 3), groups=2, dilation=2, bias=False),
            nn.ReLU(),
            nn.Conv2d(4, 2, 3),
        ),
        (3, 4, 5),
    ),
    "conv_transpose1d": (
        lambda: nn.Sequential(nn.ConvTranspose1d(2, 3, 3, stride=3, padding=1), nn.ReLU(), nn.Conv1d(3, 2, 2)),
        (2, 6),
    ),
    "conv_transpose3d": (
        lambda: nn.Sequential(nn.ConvTranspose3d(2, 3, 2, stride=(1, 2, 1)), nn.ReLU(), nn.Conv3d(3, 2, 2)),
        (2, 3, 2, 3),
    ),
    "batch norm": (norm_net(), (2, 6, 6)),
    "batch norm, not affine": (norm_net(affine=False), (2, 6, 6)),
    "batch norm, momentum None": (norm_net(momentum=None), (2, 6, 6)),
    "batch norm, no running statistics": (norm_net(track_running_stats=False), (2, 6, 6)),
    "batch norm 1d of maps, first": (
        lambda: nn.Sequential(
            nn.BatchNorm1d(3), nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4), nn.LeakyReLU(0.2), nn.BatchNorm1d(4)
        ),
        (3, 8),
    ),
    "batch norm 3d": (
        lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)),
        (2, 3, 3, 3),
    ),
    "residual": (Residual, (3, 8, 8)),
    "residual, out of place": (lambda: Residual(inplace=False), (3, 8, 8)),
    "dense": (Dense, (2, 6, 6)),
    "branches": (Branches, (4, 6, 6)),
    "subclass": (lambda: nn.Sequential(Scaled(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)), (2, 6, 6)),
    "max pool": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
            nn.ReLU(),
            nn.MaxPool2d((2, 1), stride=1, dilation=(1, 2)),
            nn.AdaptiveMaxPool2d((2, 3)),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
        (2, 10, 9),
    ),
    "average pool": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
            nn.ReLU(),
            nn.AvgPool2d((2, 1), stride=1, divisor_override=3),
            nn.AdaptiveAvgPool2d((2, 3)),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
        (2, 10, 9),
    ),
    "upsampling": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3),
            nn.Upsample(scale_factor=2),
            nn.ReLU(),
            nn.Conv2d(3, 3, 3),
            nn.Upsample(size=(7, 9), mode="bilinear", align_corners=True),
            nn.ReLU(),
            nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=False),
            nn.Conv2d(3, 2, 2),
        ),
        (2, 5, 6),
    ),
    "activations": (
        lambda: nn.Sequential(
            nn.Linear(5, 12),
            nn.LeakyReLU(0.3),
            nn.Linear(12, 12),
            nn.Sigmoid(),
            nn.Linear(12, 12),
            nn.ELU(0.7),
            nn.Linear(12, 12),
            nn.ReLU6(),
            nn.Linear(12, 12),
            nn.Softplus(),
            nn.Linear(12, 12),
            nn.Hardtanh(),
            nn.Linear(12, 3),
        ),
        (5,),
    ),
    "sequence": (
        lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Flatten(), nn.Linear(24, 3)),
        (4, 5),
    ),
}

NORMALISING = [name for name in MODELS if name.startswith(("batch norm", "residual", "dense"))]


def build(name: str, batch: int = 4, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """The model in evaluation mode with lived-in norms, weights of both signs with some zeros, and inputs in [0, 1]."""
    make, shape = MODELS[name]
    torch.manual_seed(sum(map(ord, name)))
    x = torch.rand(batch, *shape)
    model = make()
    with torch.no_grad():
        model(x)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                if module.running_mean is not None and module.running_var is not None:
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.3, 2)
                if module.affine:
                    module.weight.normal_()
                    module.bias.normal_()
            elif getattr(module, "weight", None) is not None:
                module.weight[torch.rand_like(module.weight) < 0.1] = 0
    return model.eval().to(dtype), x.to(dtype)
