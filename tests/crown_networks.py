"""Networks of every shape that CROWN knows, points of a box, and the check that bounds contain their outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb

METHODS = ("crown-ibp", "crown")


class SumAndDifference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, 1, 1)
        self.second = nn.Conv2d(4, 4, 3, 1, 1)
        self.third = nn.Conv2d(4, 4, 3, 1, 1)
        self.skip = nn.Conv2d(4, 6, 1, 2)
        self.down = nn.Conv2d(4, 6, 3, 2, 1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(x + self.third(F.relu(self.second(x))))
        x = F.relu(self.norm(self.down(x)) - self.skip(x) * 0.5)
        return self.head(x.flatten(1))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 3, 3, 1, 1), nn.Conv2d(2, 3, 5, 1, 2)
        self.mix = nn.Conv2d(8, 4, 3, 2)
        self.head = nn.Linear(4 * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([F.relu(self.left(x)), F.relu(self.right(x)), x], 1)
        y = F.relu(self.mix(F.pad(y, (0, 1, 1, 0)))[..., :3, :3])
        return self.head(y.flatten(1)) + 0.1


class Sequence(nn.Module):
    """Linear layers over the last of three dimensions, a mean over the middle one, constants on all sides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.scale = torch.tensor([[0.5], [-1.0]] * 4).view(1, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x.transpose(1, 2)[:, :8]) * self.scale + 0.1)
        x = F.leaky_relu(self.second(x) - x, 0.2)
        return self.head(x.mean(1))


def cnn7(width: int = 3) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 2
    for out, stride in ((width, 1), (width, 1), (2 * width, 2), (2 * width, 1)):
        layers += [nn.Conv2d(channels, out, 3, stride, 1), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    head = [nn.Flatten(), nn.Linear(channels * 16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 5)]
    return nn.Sequential(*layers, *head)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4)), (9,)),
    "dm-small": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 4, 4, 2), nn.ReLU(), nn.Conv2d(4, 6, 4, 1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(54, 20), nn.ReLU(), nn.Linear(20, 5)),
        ),
        (1, 14, 14),
    ),
    "cnn-7": (cnn7, (2, 8, 8)),
    "residual": (SumAndDifference, (2, 8, 8)),
    "concat": (Concat, (2, 8, 8)),
    "grouped, dilated, strided": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 6, 3, (2, 1), (0, 2), dilation=(1, 2), groups=2), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(6, 6, (3, 2), 1, 1, groups=3), nn.ReLU(), nn.Conv2d(6, 4, 2, 2, dilation=2), nn.ReLU()),
            *(nn.Flatten(), nn.LazyLinear(4)),
        ),
        (2, 9, 9),
    ),
    "max-pooling": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
            *(nn.Conv2d(4, 4, 2), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(4)),
        ),
        (2, 9, 9),
    ),
    "average pooling": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2, padding=1), nn.Conv2d(4, 4, 2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        ),
        (2, 8, 8),
    ),
    "clamps": (
        lambda: nn.Sequential(
            *(nn.Linear(6, 12), nn.ReLU6(), nn.Linear(12, 12), nn.Hardtanh(-0.2, 0.3), nn.Linear(12, 3)),
            nn.Hardtanh(-1, 0.2),
        ),
        (6,),
    ),
    "smooth": (
        lambda: nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Sigmoid(), nn.Linear(12, 3)),
        (6,),
    ),
    "transposed": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.ReLU()),
            *(nn.Flatten(), nn.LazyLinear(4)),
        ),
        (1, 7, 7),
    ),
    "one-dimensional": (
        lambda: nn.Sequential(
            *(nn.Conv1d(2, 4, 3, 2, 1), nn.ReLU(), nn.ConvTranspose1d(4, 3, 3, 2), nn.ReLU(), nn.MaxPool1d(2)),
            *(nn.Flatten(), nn.LazyLinear(4)),
        ),
        (2, 9),
    ),
    "three-dimensional": (
        lambda: nn.Sequential(
            *(nn.Conv3d(1, 3, 2), nn.ReLU(), nn.Conv3d(3, 2, 2, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
        ),
        (1, 5, 4, 4),
    ),
    "sequence": (Sequence, (8, 9)),
    "steep leaky relu": (lambda: nn.Sequential(nn.Linear(5, 9), nn.LeakyReLU(2.5), nn.Linear(9, 3)), (5,)),
}  # fmt: skip
every_network = pytest.mark.parametrize("name", NETWORKS)


def build(name: str, batch: int = 3, double: bool = False) -> tuple[nn.Module, Tensor]:
    """A network with weights large enough for unstable neurons, BatchNorm with statistics of its own, and inputs."""
    torch.manual_seed(1)
    make, shape = NETWORKS[name]
    model = make()
    x = torch.rand(batch, *shape)
    model(x)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_(0, 0.3)
    model.eval()
    return (model.double(), x.double()) if double else (model, x)


def points(model: nn.Module, box: fb.Interval, spec: Tensor, count: int) -> list[Tensor]:
    """Random points, corners, and for each row of the specification the end of an attack in both directions."""
    low, high = box.lower, box.upper
    found = []
    for i in range(count):
        unit = torch.rand_like(low)
        found.append(low + (high - low) * (unit.round() if i % 2 else unit))
    for sign in (1.0, -1.0):
        for row in range(spec.shape[1]):
            x = (low + high) / 2
            for step in range(8):
                x = x.detach().requires_grad_()
                goal = (spec[:, row] * model(x).flatten(1)).sum()
                (gradient,) = torch.autograd.grad(goal, x)
                x = x + sign * gradient.sign() * (high - low) / (step + 2)
                x = torch.minimum(torch.maximum(x, low), high)
            found.append(x.detach())
    return found


def assert_contains(b: fb.Interval, values: Tensor) -> None:  # [B, S], [P, B, S]
    slack = 1e-5 + 1e-4 * values.abs().amax()
    assert (values >= b.lower - slack).all(), f"below the lower bound by {(b.lower - values).max():.3g}"
    assert (values <= b.upper + slack).all(), f"above the upper bound by {(values - b.upper).max():.3g}"
