"""Training in several processes under torchrun: rank and device of this process, and the few sums that all share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from fastbound.errors import ProcessLost


@dataclass(frozen=True)
class Processes:
    """This process among `world_size`; the first one writes."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with its gradients averaged over the processes."""
        return DistributedDataParallel(model) if self.world_size > 1 else model

    def same_buffers(self, model: nn.Module) -> None:
        """Gives every process the running statistics of the first one."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, on every process."""
        if self.world_size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """The processes of this run: those that torchrun started, or this one alone. `device`: "auto", "cpu", "cuda",
    "cuda:1"."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    place = find_device(device)
    if world_size == 1:
        yield Processes(0, 1, place)
        return
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    group = Processes(dist.get_rank(), world_size, place)
    try:
        yield group
    except RuntimeError as problem:
        if _is_communication(problem):
            reason = str(problem).splitlines()[0].split(". ")[0]
            raise ProcessLost(
                f"a training process was lost (noticed by process {group.rank} of {world_size}: {reason[:160]})"
            ) from problem
        raise
    finally:
        # Fails if another process of the group is gone.
        with suppress(RuntimeError):
            dist.destroy_process_group()


def find_device(name: str) -> torch.device:
    """The device of --device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1"; ValueError for others."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
    except RuntimeError:
        place = None
    if place is None or place.type not in ("cpu", "cuda"):
        raise ValueError(f"device: wanted auto, cpu, cuda or cuda:N, got {name!r}.")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: {name} was asked for, but PyTorch sees {torch.cuda.device_count()} CUDA devices; use --device "
            "cpu."
        )
    return place


def _is_communication(problem: RuntimeError) -> bool:
    words = ("connection", "gloo", "nccl", "peer", "socket", "process group", "timed out")
    return isinstance(problem, dist.DistError) or any(word in str(problem).lower() for word in words)
