"""Functions that move elements of a sample, or leave some out, which never increases the distance of two samples.

None may change the batch dimension, because a constant is that of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.derived import as_dims, as_sizes
from fastbound.domains.lipschitz.graph import Joint, LipschitzNode
from fastbound.domains.lipschitz.value import Lipschitz
from fastbound.domains.location import module_path
from fastbound.domains.rules import rule


def _view(result: Lipschitz, input: Lipschitz) -> Lipschitz:
    """Mark handles whose plain tensors would share memory, so that writing into one raises an error."""
    result._viewed = input._viewed = True
    return result


def _require_samples(name: str, input: Lipschitz, kept: bool) -> None:
    if not kept:
        raise NotImplementedError(
            f"{name}{module_path()}: it moves or mixes the samples of {tuple(input.shape)}; a Lipschitz constant "
            "is that of one sample, so leave dimension 0 alone."
        )


# ---- shape ---------------------------------------------------------------------------------------------------------


@rule(Lipschitz, torch.reshape, Tensor.reshape)
def reshape(input: Lipschitz, *shape: Any, **kwargs: Any) -> Lipschitz:
    sizes = as_sizes(shape or tuple(kwargs.values()))
    if len(sizes) == 1 and isinstance(sizes[0], torch.dtype):
        raise NotImplementedError(f"view(dtype){module_path()} has no meaning for an abstract value.")
    nominal = input.nominal.reshape(sizes)
    _require_samples("reshape", input, nominal.shape[:1] == input.shape[:1])
    return _view(input.mapped_to(nominal), input)


@rule(Lipschitz, torch.permute)
def permute(input: Lipschitz, *dims: Any, **kwargs: Any) -> Lipschitz:
    order = as_dims(as_sizes(dims or (kwargs["dims"],)), input.dim())
    _require_samples("permute", input, order[0] == 0)
    return _view(input.mapped_to(input.nominal.permute(order)), input)


@rule(Lipschitz, torch.flip)
def flip(input: Lipschitz, *dims: Any) -> Lipschitz:
    which = as_dims(as_sizes(dims), input.dim())
    _require_samples("flip", input, 0 not in which)
    return input.mapped_to(input.nominal.flip(which))


def _of_maps(function: Callable[..., Tensor]) -> Callable[..., Lipschitz]:
    def of_maps(input: Lipschitz, count: int) -> Lipschitz:
        _require_samples(function.__name__, input, input.dim() == 4)
        return input.mapped_to(function(input.nominal, count))

    return of_maps


for _function in (F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle):
    rule(Lipschitz, _function)(_of_maps(_function))


@rule(Lipschitz, F.pad)
def pad(input: Lipschitz, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Lipschitz:
    if mode != "constant":
        raise NotImplementedError(
            f"pad{module_path()}: mode {mode!r} copies elements and so changes the norm; use zero padding."
        )
    _require_samples("pad", input, len(pad) < 2 * input.dim())
    return input.mapped_to(F.pad(input.nominal, list(pad), value=value))


# ---- selection and joining -----------------------------------------------------------------------------------------


@rule(Lipschitz, Tensor.__getitem__)
def getitem(input: Lipschitz, index: Any) -> Lipschitz:
    parts = index if isinstance(index, tuple) else (index,)
    if not all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts):
        raise NotImplementedError(
            f"indexing{module_path()}: a tensor may pick an element twice, which changes the norm; use slices."
        )
    _require_samples("indexing", input, parts[:1] == (slice(None),) or parts[:1] == (Ellipsis,))
    nominal = input.nominal[index]
    _require_samples("indexing", input, nominal.shape[:1] == input.shape[:1])
    return _view(input.mapped_to(nominal), input)


@rule(Lipschitz, torch.cat)
def cat(tensors: Sequence[Any], dim: int = 0) -> Lipschitz:
    """Constants among the tensors do not change the distance of two samples."""
    values = [t for t in tensors if isinstance(t, Lipschitz)]
    _require_samples("cat", values[0], as_dims(dim, values[0].dim())[0] > 0)
    nominal = torch.cat([t.nominal if isinstance(t, Lipschitz) else t for t in tensors], dim)
    return values[0].handle(LipschitzNode(nominal, Joint(), tuple(v.node for v in values), values[0].node.flow))


# ---- sums ----------------------------------------------------------------------------------------------------------


@rule(Lipschitz, torch.mean)
def mean(input: Lipschitz, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Lipschitz:
    count, dims = _reduced("mean", input, dim, dtype)
    return input.mapped_to(input.nominal.mean(dims, keepdim), 1 / math.sqrt(count))


@rule(Lipschitz, torch.sum)
def sum_(input: Lipschitz, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Lipschitz:
    count, dims = _reduced("sum", input, dim, dtype)
    return input.mapped_to(input.nominal.sum(dims, keepdim), math.sqrt(count))


def _reduced(name: str, input: Lipschitz, dim: Any, dtype: Any) -> tuple[int, tuple[int, ...]]:
    """How many elements are reduced to one, and over which dimensions."""
    if dtype not in (None, input.dtype):
        raise NotImplementedError(f"{name}(dtype=...){module_path()}: convert it with .to first.")
    dims = tuple(range(input.dim())) if dim is None or dim == () else as_dims(dim, input.dim())
    _require_samples(name, input, 0 not in dims)
    return math.prod(input.shape[d] for d in dims), dims


# ---- the same value ------------------------------------------------------------------------------------------------


@rule(Lipschitz, Tensor.contiguous)
def contiguous(input: Lipschitz, memory_format: Any = torch.contiguous_format) -> Lipschitz:
    return _view(input.mapped_to(input.nominal.contiguous(memory_format=memory_format)), input)


@rule(Lipschitz, torch.clone)
def clone(input: Lipschitz, *, memory_format: Any = None) -> Lipschitz:
    return input.handle(input.node)


@rule(Lipschitz, torch.detach)
def detach(input: Lipschitz) -> Lipschitz:
    raise NotImplementedError(
        f"detach{module_path()}: the constant of a value keeps its gradient; read .nominal and detach that."
    )


@rule(Lipschitz, Tensor.to)
def to(input: Lipschitz, *args: Any, **kwargs: Any) -> Lipschitz:
    return _converted(input, input.nominal.to(*args, **kwargs))


@rule(Lipschitz, Tensor.float)
def float_(input: Lipschitz) -> Lipschitz:
    return _converted(input, input.nominal.float())


@rule(Lipschitz, Tensor.double)
def double(input: Lipschitz) -> Lipschitz:
    return _converted(input, input.nominal.double())


def _converted(input: Lipschitz, nominal: Tensor) -> Lipschitz:
    if not nominal.is_floating_point():
        raise TypeError(f"to{module_path()}: an abstract value cannot become integers.")
    if nominal is input.nominal:  # torch returns the tensor itself, so writing into the result must change the input
        return input
    return input.mapped_to(nominal)
