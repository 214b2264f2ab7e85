"""Compare bounds, gradients and times with auto_LiRPA, if it is installed. It is not a dependency of fastbound.

    python bench/compare_auto_lirpa.py            # bounds and gradients on seven networks, then times
    python bench/compare_auto_lirpa.py --no-times

Looseness is (their lower margin - ours) / scale, positive where ours is looser; scale is their bounds' mean width.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb
from fastbound import models


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


def milliseconds(work: Callable[[], object], repeats: int = 7) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def times() -> None:
    """Full CROWN of DM-small, batch 8, lower bounds of 9 margins; then CROWN-IBP steps. Medians, interleaved runs."""
    model, x, labels = prepared(models.build("dm-small", (1, 28, 28), 10), (1, 28, 28), 8)
    spec = fb.margin_spec(labels, 10)
    for eps in (0.05, 0.1):
        theirs = Theirs(model, x, eps)
        with torch.no_grad():
            ours_ms, their_ms = [], []
            for _ in range(3):
                ours_ms.append(
                    milliseconds(
                        lambda e=eps: fb.bound(model, fb.linf_box(x, e, 0, 1), method="crown", spec=spec).lower, 3
                    )
                )
                their_ms.append(milliseconds(lambda t=theirs: t.margins(spec, "CROWN"), 3))
        a, b = statistics.median(ours_ms), statistics.median(their_ms)
        print(
            f"full CROWN, DM-small, batch 8, eps {eps}: ours {a:.1f} ms, auto_LiRPA (patches) {b:.1f} ms, {b / a:.1f}x"
        )
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
    arguments = parser.parse_args()
    try:
        import auto_LiRPA
    except ImportError as error:
        sys.exit(f"auto_LiRPA cannot be imported ({error}); install it next to fastbound to compare.")
    print(f"auto_LiRPA {auto_LiRPA.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    torch.manual_seed(0)
    for name, (model, shape, eps) in networks().items():
        compare(name, model, shape, eps)
    if not arguments.no_times:
        times()


if __name__ == "__main__":
    main()
