"""DistributedDataParallel on two gloo processes: gradients of the joint batch; BatchNorm trains."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fastbound as fb

WORLD, BATCH, CLASSES = 2, 3, 4


def network(norm: bool) -> nn.Sequential:
    torch.manual_seed(5)
    middle = [nn.BatchNorm2d(3)] if norm else []
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, CLASSES)
    ).double()


class WithSpareParameter(nn.Module):
    """One branch that no sample of this step takes."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.net, self.spare = network(norm), nn.Linear(3, 3).double()

    def forward(self, x: Any) -> Any:
        return self.net(x)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    x = torch.rand(WORLD * BATCH, 1, 6, 6, generator=generator, dtype=torch.float64)
    return x, torch.arange(WORLD * BATCH) % CLASSES


def step(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    out = model(fb.linf_box(x, 0.05, 0.0, 1.0))
    bounds = fb.bound(out, method="ibp", spec=fb.margin_spec(labels, CLASSES))
    loss = nn.functional.cross_entropy(out.nominal, labels) + fb.losses.robust_cross_entropy(bounds)
    loss.backward()
    return loss.detach()


CASES = {  # name: (BatchNorm, spare parameters, converted, synchronised)
    "all used": (False, False, False, False),
    "find_unused_parameters": (False, True, False, False),
    "batch norm": (True, True, False, False),
    "batch norm, converted": (True, True, True, False),
    "synchronised batch norm": (True, False, True, True),
}


def case(rank: int, norm: bool, spare: bool, converted: bool, synchronised: bool) -> dict[str, Any]:
    model = WithSpareParameter(norm) if spare else network(norm)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if synchronised else model
    model = fb.convert(model) if converted else model
    # The wrapper refuses SyncBatchNorm on CPU: gradients are averaged by hand there.
    wrapped = model if synchronised else DistributedDataParallel(model, find_unused_parameters=spare)
    x, labels = data()
    mine = slice(rank * BATCH, (rank + 1) * BATCH)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses, first = [], []
    for repeat in range(3):
        optimizer.zero_grad()
        losses.append(step(wrapped, x[mine], labels[mine]).item())
        for parameter in model.parameters() if synchronised else ():
            dist.all_reduce(parameter.grad)
            parameter.grad /= WORLD
        if repeat == 0:
            first = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        optimizer.step()
    return {"losses": losses, "grads": first}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    try:
        torch.save({name: case(rank, *settings) for name, settings in CASES.items()}, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("torch without gloo")
    folder = tmp_path_factory.mktemp("ddp")
    mp.start_processes(worker, (str(folder),), nprocs=WORLD, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("name", ["all used", "find_unused_parameters", "synchronised batch norm"])
def test_gradients_are_those_of_the_joint_batch(results: list[dict[str, Any]], name: str) -> None:
    alone = network(norm="norm" in name)
    loss = step(alone, *data())
    assert torch.isclose(torch.tensor(sum(r[name]["losses"][0] for r in results) / WORLD).double(), loss, rtol=1e-6)
    for result in results:
        for ours, parameter in zip(result[name]["grads"], alone.parameters()):
            assert torch.allclose(ours, parameter.grad, rtol=1e-9, atol=1e-12)
    assert any(p.grad.abs().sum() > 1e-3 for p in alone.parameters())


@pytest.mark.parametrize("name", ["batch norm", "batch norm, converted"])
def test_trains_with_batch_norm(results: list[dict[str, Any]], name: str) -> None:
    for result in results:
        assert result[name]["losses"][-1] < result[name]["losses"][0]
    for a, b in zip(*(r[name]["grads"] for r in results)):
        assert (a is None and b is None) or torch.equal(a, b)


def test_wrappers_find_the_tensors_of_an_output() -> None:
    """DistributedDataParallel looks into dataclass fields for what needs a gradient."""
    from torch.nn.parallel.distributed import _find_tensors

    out = network(False)(fb.linf_box(data()[0], 0.1))
    found = list(_find_tensors(out))
    assert len(found) == 3 and all(t.requires_grad for t in found)
    assert copy.deepcopy(out).lower.shape == out.lower.shape
