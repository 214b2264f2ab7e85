"""Drop-in layers: torch.nn's own for tensors; for an abstract value they call its rules without dispatch.

BatchNorm needs no layer here: its rule waits for the ReLU that follows, so that both run in one pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from fastbound.domains.interval import Interval
from fastbound.domains.interval.elementwise import relu
from fastbound.domains.linear.layers import conv2d, linear
from fastbound.domains.rules import find_rule
from fastbound.domains.streams import Streams
from fastbound.primitives.batch_norm import scale_and_shift


class Linear(nn.Linear):
    """`torch.nn.Linear`."""

    def forward(self, input: Any) -> Any:
        if isinstance(input, Streams) and input.direct:
            return linear(input, self.weight, self.bias)
        return super().forward(input)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`."""

    def forward(self, input: Any) -> Any:
        if isinstance(input, Streams) and input.direct and self.padding_mode == "zeros":
            return conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return super().forward(input)


class ReLU(nn.ReLU):
    """`torch.nn.ReLU`; directly after a BatchNorm, both run in one pass over all streams."""

    def forward(self, input: Any) -> Any:
        if type(input) is Interval and not self.inplace:  # derived domains have their own ReLU
            return relu(input)
        return super().forward(input)


class SyncBatchNorm(nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm`; for abstract values, with statistics of the nominal streams of all processes."""

    def forward(self, input: Any) -> Any:
        if not isinstance(input, Streams):
            return super().forward(input)
        if not self._synchronises():  # torch's own is a plain BatchNorm then, too
            return super(nn.SyncBatchNorm, self).forward(input)  # type: ignore[arg-type]
        nominal = input.nominal
        if nominal is None:
            raise ValueError(
                "SyncBatchNorm: batch statistics need the clean activations; pass nominal=True to linf_box."
            )
        dims = [d for d in range(nominal.dim()) if d != 1]
        count = self._over_processes(nominal.new_tensor([nominal.numel() / nominal.shape[1]]))
        mean = self._over_processes(nominal.sum(dims)) / count
        # A second pass: the difference of two large sums would lose the variance of channels far from 0.
        deviation = nominal - mean.view(-1, *(1,) * (nominal.dim() - 2))
        var = self._over_processes(deviation.square().sum(dims)) / count
        self._track(mean.detach(), var.detach(), count)
        scale, shift = scale_and_shift(mean, var, self.weight, self.bias, self.eps)
        # The gradient passes through the statistics as through an affine map.
        zeros = torch.zeros_like(mean.detach())
        batch_norm = find_rule(type(input), F.batch_norm)
        return batch_norm(input, zeros, torch.ones_like(zeros), scale, shift, training=False, eps=0.0)

    def _synchronises(self) -> bool:
        """Whether statistics are those of several processes; in evaluation they never are."""
        if not (self.training and dist.is_available() and dist.is_initialized()):
            return False
        return dist.get_world_size(self.process_group) > 1

    def _over_processes(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of ``x`` over all processes, with its gradient."""
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(x, group=self.process_group if self.process_group is not None else dist.group.WORLD)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, var: torch.Tensor, count: torch.Tensor) -> None:  # [C], [C], [1]
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if momentum is None else momentum
        self.running_mean.lerp_(mean, momentum or 0.0)
        self.running_var.lerp_(var * (count / (count - 1)), momentum or 0.0)
