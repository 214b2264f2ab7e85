"""Compare bounds, gradients and times with auto_LiRPA, if it is installed. It is not a dependency of fastbound.

    python bench/compare_auto_lirpa.py            # bounds and gradients on seven networks, then times
    python bench/compare_auto_lirpa.py --no-times
    python bench/compare_auto_lirpa.py --smooth tanh sigmoid  # widths alone, on networks of these activations

Looseness is (their lower margin - ours) / scale, positive where ours is looser; scale is their bounds' mean width.
Smooth networks are compared in float64, so that widths differ by the rules and not by roundings; --float32 shows those.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb
from fastbound import data, models


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.first, self.second = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Linear(8 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.second(F.relu(self.first(x))) + x)
        return self.head(x.flatten(1))


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...], float]]:
    """Name -> network, shape of an input, eps."""
    grouped = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 12, 3, 1, 2, dilation=2, groups=3), nn.ReLU()),
        *(nn.Conv2d(12, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10)),
    )
    pooled = nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(8 * 25, 10)),
    )
    return {
        "MLP": (models.build("mlp", (1, 28, 28), 10), (1, 28, 28), 0.02),
        "DM-small": (models.build("dm-small", (1, 28, 28), 10), (1, 28, 28), 0.05),
        "CNN-7 with BN, width 4": (models.build("cnn7", (3, 16, 16), 10, width=4), (3, 16, 16), 0.02),
        "DM-large, width 4": (models.build("dm-large", (3, 16, 16), 10, width=4), (3, 16, 16), 0.02),
        "residual": (Residual(), (3, 16, 16), 0.02),
        "grouped, dilated, strided": (grouped, (3, 16, 16), 0.03),
        "max-pooling": (pooled, (1, 28, 28), 0.01),
    }


def prepared(model: nn.Module, shape: tuple[int, ...], batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    x = torch.rand(batch, *shape)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return model.eval(), x, torch.arange(batch) % 10


class Theirs:
    """The same bounds by auto_LiRPA."""

    def __init__(self, model: nn.Module, x: Tensor, eps: float, mode: str = "patches") -> None:
        from auto_LiRPA import BoundedModule, BoundedTensor
        from auto_LiRPA.perturbations import PerturbationLpNorm

        self.model = BoundedModule(copy.deepcopy(model), torch.zeros_like(x), bound_opts={"conv_mode": mode})
        ball = PerturbationLpNorm(norm=float("inf"), x_L=(x - eps).clamp(min=0), x_U=(x + eps).clamp(max=1))
        self.x = BoundedTensor(x, ball)

    def margins(self, spec: Tensor, method: str, upper: bool = False) -> tuple[Tensor, Tensor]:
        return self.model.compute_bounds(x=(self.x,), C=spec, method=method, bound_upper=upper)


def compare(name: str, model: nn.Module, shape: tuple[int, ...], eps: float) -> None:
    model, x, labels = prepared(model, shape, 4)
    spec = fb.margin_spec(labels, 10)
    grouped = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules())
    theirs = Theirs(model, x, eps, "matrix" if grouped else "patches")  # their patches do not support groups
    line = f"{name:27s}"
    for ours, other in (("crown-ibp", "CROWN-IBP"), ("crown", "CROWN")):
        lower = fb.bound(model, fb.linf_box(x, eps, 0, 1), method=ours, spec=spec).lower.detach()
        their_lower, their_upper = (t.detach() for t in theirs.margins(spec, other, upper=True))
        loose = (their_lower - lower) / (their_upper - their_lower).mean()
        line += f"  {ours}: max {loose.max():+.1e} mean {loose.mean():+.1e}"
    loss = fb.losses.robust_cross_entropy(fb.bound(model(fb.linf_box(x, eps, 0, 1)), method="crown-ibp", spec=spec))
    model.zero_grad()
    loss.backward()
    theirs.model.zero_grad()
    their_lower, _ = theirs.margins(spec, "CROWN-IBP")
    torch.logsumexp(F.pad(-their_lower, (1, 0)), 1).mean().backward()
    # Their tool renames and reorders parameters; gradients are matched by shape and closest value.
    their_gradients = [p.grad for p in theirs.model.parameters() if p.grad is not None]
    worst = 0.0
    for p in model.parameters():
        if p.grad is None:
            continue
        scale = p.grad.abs().max().clamp(min=1e-6)
        near = [((g - p.grad).abs().max() / scale).item() for g in their_gradients if g.shape == p.shape]
        worst = max(worst, min(near, default=float("nan")))
    print(f"{line}  gradients: {worst:.1e}", flush=True)


# Of the activations that both bound; auto_LiRPA 0.7.1 has no lines for softplus, nor for GELU as torch exports it.
SMOOTH: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "silu": nn.SiLU}


def mlp(activation: type[nn.Module], *sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), activation()]
    return nn.Sequential(*layers[:-1])


def smooth_networks(activation: type[nn.Module]) -> dict[str, tuple[nn.Module, Tensor]]:
    """Name -> network and inputs."""
    small = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), activation(), nn.Conv2d(8, 8, 3, 1, 1), activation()),
        *(nn.Conv2d(8, 8, 3, 2, 1), activation(), nn.Flatten(), nn.Linear(8 * 16, 10)),
    )
    dm_small = nn.Sequential(
        *(nn.Conv2d(1, 16, 4, 2), activation(), nn.Conv2d(16, 32, 4, 1), activation()),
        *(nn.Flatten(), nn.Linear(3200, 100), activation(), nn.Linear(100, 10)),
    )
    images = torch.rand(4, 1, 28, 28)
    return {
        "MLP 2 x 100": (mlp(activation, 784, 100, 100, 10), images),
        "MLP 4 x 100": (mlp(activation, 784, *[100] * 4, 10), images),
        "MLP 7 x 64": (mlp(activation, 784, *[64] * 7, 10), images),
        "CNN of 3": (small, torch.rand(4, 3, 16, 16)),
        "DM-small": (dm_small, images),
        "MLP 3 x 100, trained": trained_on_digits(mlp(activation, 64, 100, 100, 100, 10)),
    }


def trained_on_digits(model: nn.Module) -> tuple[nn.Module, Tensor]:
    digits = data.load("digits")
    x, labels = digits.train.pixels.to(torch.get_default_dtype()) / digits.train.scale, digits.train.labels
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    return model, x[:4]


def scaled(model: nn.Module, scale: float) -> nn.Module:
    model = copy.deepcopy(model).requires_grad_(False)
    for parameter in model.parameters():
        parameter *= scale
    return model


@torch.no_grad()
def compare_widths(name: str, model: nn.Module, x: Tensor, eps: float) -> list[float]:
    """Print widths of outputs, and looseness of margins; the ratios ours / theirs of mean and largest full CROWN
    width."""
    theirs, outputs = Theirs(model, x, eps), torch.eye(10).expand(len(x), 10, 10)
    margins = fb.margin_spec(torch.arange(len(x)), 10)
    line, ratios = f"{name:38s}", []
    for ours, other in (("crown", "CROWN"), ("crown-ibp", "CROWN-IBP")):
        their_lower, their_upper = theirs.margins(outputs, other, upper=True)
        found = fb.bound(model, fb.linf_box(x, eps, 0, 1), method=ours)
        width, their_width = found.upper - found.lower, their_upper - their_lower
        lower = fb.bound(model, fb.linf_box(x, eps, 0, 1), method=ours, spec=margins).lower
        loose = (theirs.margins(margins, other)[0] - lower) / their_width.mean()
        mean, most = (width.mean() / their_width.mean()).item(), (width.max() / their_width.max()).item()
        line += f"  {ours}: mean {width.mean():8.2e} / {their_width.mean():8.2e} = {mean:.5f}"
        line += f"  max {width.max():8.2e} / {their_width.max():8.2e} = {most:.5f}  margins {loose.mean():+.1e}"
        if ours == "crown":
            ratios = [mean, most]
    print(line, flush=True)
    return ratios


def compare_smooth(activation: str) -> None:
    """Every network at three eps, with weights as they are, twice and four times as large."""
    ratios = []
    for name, (model, x) in smooth_networks(SMOOTH[activation]).items():
        for scale in (1, 2, 4):
            for eps in (0.01, 0.03, 0.1):
                label = f"{activation}, {name}, x{scale}, eps {eps}"
                ratios.append(compare_widths(label, scaled(model, scale), x, eps))
    largest_mean, largest = (max(column) for column in zip(*ratios))
    print(
        f"{activation}: full CROWN ours / theirs at the most {largest_mean:.5f} (mean width), {largest:.5f} (max width)"
    )


def milliseconds(work: Callable[[], object], repeats: int = 7) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def times() -> None:
    """Full CROWN, batch 8, lower bounds of 9 margins; then CROWN-IBP steps. Medians, interleaved runs."""
    tanh = mlp(nn.Tanh, 784, *[100] * 4, 10)
    dm_small = models.build("dm-small", (1, 28, 28), 10)
    for name, model, eps in (
        ("DM-small", dm_small, 0.05),
        ("DM-small", dm_small, 0.1),
        ("tanh MLP 4 x 100", tanh, 0.03),
    ):
        model, x, labels = prepared(model, (1, 28, 28), 8)
        spec, theirs = fb.margin_spec(labels, 10), Theirs(model, x, eps)
        with torch.no_grad():
            ours_ms, their_ms = [], []
            for _ in range(3):
                ours_ms.append(
                    milliseconds(
                        lambda m=model, x=x, e=eps, s=spec: (
                            fb.bound(m, fb.linf_box(x, e, 0, 1), method="crown", spec=s).lower
                        ),
                        3,
                    )
                )
                their_ms.append(milliseconds(lambda t=theirs, s=spec: t.margins(s, "CROWN"), 3))
        a, b = statistics.median(ours_ms), statistics.median(their_ms)
        print(f"full CROWN, {name}, batch 8, eps {eps}: ours {a:.1f} ms, auto_LiRPA (patches) {b:.1f} ms, {b / a:.1f}x")
    for name, batch in (("mlp", 128), ("dm-small", 128)):
        model, x, labels = prepared(models.build(name, (1, 28, 28), 10), (1, 28, 28), batch)
        spec, theirs = fb.margin_spec(labels, 10), Theirs(model, x, 0.05)

        def our_step(model: nn.Module = model, x: Tensor = x, spec: Tensor = spec) -> None:
            out = model(fb.linf_box(x, 0.05, 0, 1))
            fb.losses.robust_cross_entropy(fb.bound(out, method="crown-ibp", spec=spec)).backward()
            model.zero_grad()

        def their_step(theirs: Theirs = theirs, spec: Tensor = spec) -> None:
            lower, _ = theirs.margins(spec, "CROWN-IBP")
            torch.logsumexp(F.pad(-lower, (1, 0)), 1).mean().backward()
            theirs.model.zero_grad()

        a, b = milliseconds(our_step), milliseconds(their_step)
        print(f"CROWN-IBP step, 9 rows, {name}, batch {batch}: ours {a:.1f} ms, auto_LiRPA {b:.1f} ms, {b / a:.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-times", action="store_true", help="bounds and gradients only")
    parser.add_argument("--smooth", nargs="+", choices=SMOOTH, default=[], help="widths with these activations only")
    parser.add_argument("--float32", action="store_true", help="smooth networks in float32")
    arguments = parser.parse_args()
    try:
        import auto_LiRPA
    except ImportError as error:
        sys.exit(f"auto_LiRPA cannot be imported ({error}); install it next to fastbound to compare.")
    print(f"auto_LiRPA {auto_LiRPA.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    torch.manual_seed(0)
    for activation in arguments.smooth:
        torch.set_default_dtype(torch.float32 if arguments.float32 else torch.float64)  # of their tables, too
        compare_smooth(activation)
    if arguments.smooth:
        return
    for name, (model, shape, eps) in networks().items():
        compare(name, model, shape, eps)
    if not arguments.no_times:
        times()


if __name__ == "__main__":
    main()
