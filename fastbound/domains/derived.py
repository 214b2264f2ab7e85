"""Functions said in terms of others, once for the values of every domain."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastbound.domains.location import module_path
from fastbound.domains.rules import rule
from fastbound.domains.value import Value


def as_dims(dim: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """``dim`` as numbers from 0; raises IndexError for one that ``ndim`` dimensions do not have."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    for d in dims:
        if not -ndim <= d < ndim:
            raise IndexError(f"dimension {d} is out of range for {ndim} dimensions{module_path()}.")
    return tuple(d % ndim for d in dims)


def as_sizes(size: tuple[Any, ...]) -> tuple[int, ...]:
    """The sizes of ``reshape(2, 3)`` and of ``reshape((2, 3))``."""
    return tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size


# ---- shape -----------------------------------------------------------------------------------------------------------


@rule(Value, torch.flatten)
def flatten(input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    start, end = as_dims((start_dim, end_dim), input.dim())
    if start > end:
        raise ValueError(f"flatten{module_path()}: start_dim {start_dim} comes after end_dim {end_dim}.")
    return input.reshape(*input.shape[:start], input.shape[start : end + 1].numel(), *input.shape[end + 1 :])


@rule(Value, torch.ravel)
def ravel(input: Value) -> Value:
    return input.reshape(-1)


@rule(Value, torch.unflatten)
def unflatten(input: Value, dim: int, sizes: Sequence[int]) -> Value:
    return input.reshape(*torch.empty(input.shape, device="meta").unflatten(dim, tuple(sizes)).shape)


@rule(Value, torch.squeeze)
def squeeze(input: Value, dim: int | Sequence[int] | None = None) -> Value:
    dims = range(input.dim()) if dim is None else as_dims(dim, input.dim())
    return input.reshape([s for d, s in enumerate(input.shape) if d not in dims or s != 1])


@rule(Value, torch.unsqueeze)
def unsqueeze(input: Value, dim: int) -> Value:
    (dim,) = as_dims(dim, input.dim() + 1)
    return input.reshape(*input.shape[:dim], 1, *input.shape[dim:])


@rule(Value, Tensor.view_as, Tensor.reshape_as)
def view_as(input: Value, other: Any) -> Value:
    return input.reshape(*other.shape)


@rule(Value, Tensor.expand_as)
def expand_as(input: Value, other: Any) -> Value:
    return input.expand(*other.shape)


@rule(Value, torch.transpose)
def transpose(input: Value, dim0: int, dim1: int) -> Value:
    a, b = as_dims((dim0, dim1), input.dim())
    order = list(range(input.dim()))
    order[a], order[b] = b, a
    return input.permute(order)


@rule(Value, torch.t)
def t(input: Value) -> Value:
    if input.dim() > 2:
        raise ValueError(f"t{module_path()}: wanted at most 2 dimensions, got shape {tuple(input.shape)}.")
    return input.transpose(0, 1) if input.dim() == 2 else input


@rule(Value, torch.tile)
def tile(input: Value, *sizes: Any, dims: Any = None) -> Value:
    repeats = as_sizes(sizes or (dims,))
    return input.repeat(*(1,) * (input.dim() - len(repeats)), *repeats)


@rule(Value, torch.repeat_interleave)
def repeat_interleave(
    input: Value, repeats: int | Tensor, dim: int | None = None, *, output_size: int | None = None
) -> Value:
    if dim is None:
        return repeat_interleave(input.flatten(), repeats, 0)
    places = torch.arange(input.shape[dim], device=input.device)
    return input.index_select(dim, places.repeat_interleave(repeats, output_size=output_size))


# ---- selection and joining -------------------------------------------------------------------------------------------


@rule(Value, torch.select)
def select(input: Value, dim: int, index: int) -> Value:
    (dim,) = as_dims(dim, input.dim())
    return input[(slice(None),) * dim + (index,)]


@rule(Value, torch.narrow)
def narrow(input: Value, dim: int, start: int, length: int) -> Value:
    (dim,) = as_dims(dim, input.dim())
    size = input.shape[dim]
    first = start + size if start < 0 else start
    if not 0 <= first <= first + length <= size:
        raise IndexError(f"narrow{module_path()}: {length} elements from {start} are not within {size}.")
    return input[(slice(None),) * dim + (slice(first, first + length),)]


@rule(Value, torch.split)
def split(
    input: Value, split_size_or_sections: int | Sequence[int] = 0, dim: int = 0, *, split_size: Any = None
) -> tuple[Value, ...]:
    (dim,) = as_dims(dim, input.dim())
    total = input.shape[dim]
    size = split_size_or_sections if split_size is None else split_size
    if (isinstance(size, int) and size <= 0) or (not isinstance(size, int) and sum(size) != total):
        raise ValueError(f"split{module_path()}: wanted a size > 0 or sizes that add up to {total}, got {size}.")
    sections = [min(size, total - i) for i in range(0, total, size)] if isinstance(size, int) else list(size)
    starts = [sum(sections[:i]) for i in range(len(sections))]
    return tuple(narrow(input, dim, start, length) for start, length in zip(starts, sections, strict=True))


@rule(Value, torch.chunk)
def chunk(input: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    (dim,) = as_dims(dim, input.dim())
    if chunks <= 0:
        raise ValueError(f"chunk{module_path()}: wanted a number of chunks > 0, got {chunks}.")
    return split(input, max(1, -(-input.shape[dim] // chunks)), dim)


@rule(Value, torch.unbind)
def unbind(input: Value, dim: int = 0) -> tuple[Value, ...]:
    (dim,) = as_dims(dim, input.dim())
    return tuple(select(input, dim, i) for i in range(input.shape[dim]))


@rule(Value, torch.hstack)
def hstack(tensors: Sequence[Any]) -> Any:
    return torch.cat(tuple(tensors), 0 if tensors[0].dim() == 1 else 1)


@rule(Value, torch.vstack)
def vstack(tensors: Sequence[Any]) -> Any:
    return torch.cat([x.unsqueeze(0) if x.dim() == 1 else x for x in tensors], 0)


@rule(Value, torch.where)
def where(condition: Tensor, input: Any, other: Any) -> Any:
    """By a constant condition: each side times its mask of zeros and ones."""
    if not isinstance(condition, Tensor) or condition.dtype != torch.bool:
        raise NotImplementedError(f"where{module_path()}: wanted a constant condition, a tensor of booleans.")
    like = input if isinstance(input, Value) else other
    mask = condition.to(like.dtype)
    sides = []
    for side, share in ((input, mask), (other, 1 - mask)):
        constant = not isinstance(side, Value)
        sides.append(torch.where(share > 0, side, 0.0) if constant else side * share)
    return sides[0] + sides[1]


@rule(Value, Tensor.where)
def where_method(input: Any, condition: Tensor, other: Any) -> Any:
    return where(condition, input, other)


@rule(Value, torch.masked_fill)
def masked_fill(input: Value, mask: Tensor, value: float | Tensor) -> Value:
    if isinstance(value, Tensor) and value.dim() > 0:
        raise ValueError(f"masked_fill{module_path()}: wanted one number, got a tensor {tuple(value.shape)}.")
    return where(mask, torch.as_tensor(value, dtype=input.dtype, device=input.device), input)


# ---- sums and products with constants --------------------------------------------------------------------------------


@rule(Value, torch.matmul)
def matmul(input: Any, other: Any) -> Any:
    """By a constant from either side; batches of matrices as `einsum` takes them."""
    if isinstance(input, Value) == isinstance(other, Value):
        raise NotImplementedError(f"matmul{module_path()}: wanted a constant as one of the two, got abstract values.")
    if isinstance(input, Value) and other.dim() <= 2:
        out = torch.nn.functional.linear(input, other.T if other.dim() == 2 else other.unsqueeze(0))  # type: ignore[arg-type]
        return out if other.dim() == 2 else out.squeeze(-1)
    if isinstance(other, Value) and other.dim() == 1:
        return torch.nn.functional.linear(other, input)  # type: ignore[arg-type]
    if isinstance(other, Value) and input.dim() <= 2:
        return matmul(other.mT, input.T).mT if input.dim() == 2 else matmul(other.mT, input)
    if isinstance(input, Value) and input.dim() == 1:
        return matmul(input.unsqueeze(0), other).squeeze(-2)
    batch = torch.broadcast_shapes(input.shape[:-2], other.shape[:-2])
    both = [x if x.shape[:-2] == batch else x.expand(*batch, *x.shape[-2:]) for x in (input, other)]
    letters = string.ascii_lowercase[: len(batch)]
    return einsum(f"{letters}xy,{letters}yz->{letters}xz", *both)


@rule(Value, torch.mm)
def mm(input: Any, mat2: Any) -> Any:
    return _product("mm", 2, input, mat2)


@rule(Value, torch.bmm)
def bmm(input: Any, mat2: Any) -> Any:
    return _product("bmm", 3, input, mat2)


def _product(name: str, dim: int, input: Any, mat2: Any) -> Any:
    if input.dim() != dim or mat2.dim() != dim:
        shapes = f"{tuple(input.shape)} and {tuple(mat2.shape)}"
        raise ValueError(f"{name}{module_path()}: wanted {dim} dimensions each, got {shapes}.")
    return torch.matmul(input, mat2)


@rule(Value, torch.addmm)
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    product = torch.matmul(mat1, mat2)
    if beta == 0:  # torch does not read the input then
        return product * alpha
    return (input if beta == 1 else input * beta) + (product if alpha == 1 else product * alpha)


@rule(Value, torch.addcmul)
def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
    return input + (tensor1 * tensor2 if value == 1 else value * (tensor1 * tensor2))


@rule(Value, torch.lerp)
def lerp(input: Any, end: Any, weight: float | Tensor) -> Any:
    return input * (1 - weight) + end * weight


@rule(Value, Tensor.__rpow__)
def rpow(input: Any, base: float) -> Any:
    if not isinstance(base, (int, float)) or base <= 0:
        raise NotImplementedError(f"pow{module_path()}: wanted a number > 0 to an abstract power, got {base!r}.")
    return torch.exp(input * math.log(base))


@rule(Value, torch.tensordot)
def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    if isinstance(dims, int):
        dims = (list(range(a.dim() - dims, a.dim())), list(range(dims)))
    first, second = (as_dims(d, x.dim()) for d, x in zip(dims, (a, b), strict=True))
    letters = iter(string.ascii_letters)
    left = [next(letters) for _ in range(a.dim())]
    right = [left[first[second.index(d)]] if d in second else next(letters) for d in range(b.dim())]
    rest = [x for d, x in enumerate(left) if d not in first] + [x for d, x in enumerate(right) if d not in second]
    return einsum(f"{''.join(left)},{''.join(right)}->{''.join(rest)}", a, b)


@rule(Value, torch.einsum)
def einsum(equation: str, *operands: Any) -> Any:
    """One abstract operand times constants: a linear layer where no letter of both is kept, else products and sums."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    terms, kept = _parsed(equation, operands)
    (place,) = (i for i, x in enumerate(operands) if isinstance(x, Value))
    value, letters = operands[place], terms[place]
    others = [(term, x) for i, (term, x) in enumerate(zip(terms, operands)) if i != place]
    shared = set("".join(term for term, _ in others))
    # The constants as one tensor, of the letters that the value or the result has.
    rest = "".join(x for x in dict.fromkeys("".join(term for term, _ in others)) if x in letters or x in kept)
    constant = torch.einsum(f"{','.join(t for t, _ in others)}->{rest}", *(x for _, x in others)) if others else None
    dropped = [x for x in letters if x not in kept and x not in shared]
    if dropped:
        value = value.sum([letters.index(x) for x in dropped])
        letters = "".join(x for x in letters if x not in dropped)
    if constant is not None:
        value, letters = _contracted(value, letters, constant, rest, kept)
    return value if letters == kept else value.permute([letters.index(x) for x in kept])


def _contracted(value: Value, letters: str, constant: Tensor, rest: str, kept: str) -> tuple[Value, str]:
    """The product of a value and a constant, summed over the letters that are not kept."""
    summed = [x for x in rest if x not in kept]
    new = [x for x in rest if x not in letters]
    if all(x in summed or x in new for x in rest):
        own = [x for x in letters if x not in summed]
        shapes = {**dict(zip(letters, value.shape)), **dict(zip(rest, constant.shape))}
        rows = value.permute([letters.index(x) for x in (*own, *summed)])
        rows = rows.reshape([*(shapes[x] for x in own), torch.Size(shapes[x] for x in summed).numel()])
        matrix = constant.permute([rest.index(x) for x in (*new, *summed)]).reshape(-1, rows.shape[-1])
        out = torch.nn.functional.linear(rows, matrix)  # type: ignore[arg-type]
        return out.reshape([shapes[x] for x in (*own, *new)]), "".join((*own, *new))  # type: ignore[return-value]
    order = letters + "".join(new)
    present = sorted(range(len(rest)), key=lambda d: order.index(rest[d]))
    sizes = [constant.shape[rest.index(x)] if x in rest else 1 for x in order]
    product = value.reshape(*value.shape, *(1,) * len(new)) * constant.permute(present).reshape(sizes)
    product = product.sum([order.index(x) for x in summed]) if summed else product
    return product, "".join(x for x in order if x not in summed)


def _parsed(equation: str, operands: tuple[Any, ...]) -> tuple[list[str], str]:
    """The letters of every operand, and of the result."""
    if not isinstance(equation, str):
        raise NotImplementedError(f"einsum{module_path()}: wanted an equation, a string before the operands.")
    inputs, arrow, kept = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if sum(isinstance(x, Value) for x in operands) != 1 or len(terms) != len(operands):
        raise NotImplementedError(f"einsum{module_path()}: wanted one abstract operand, and constants as the others.")
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        raise NotImplementedError(f"einsum{module_path()}: wanted every letter once an operand and no '...'.")
    sizes: dict[str, int] = {}
    for term, x in zip(terms, operands):
        known = {letter: sizes.get(letter, size) for letter, size in zip(term, x.shape)}
        if len(term) != x.dim() or tuple(known.values()) != tuple(x.shape):
            raise ValueError(f"einsum{module_path()}: {term!r} of {equation!r} does not fit shape {tuple(x.shape)}.")
        sizes.update(known)
    if not set(kept) <= set(sizes):
        raise ValueError(f"einsum{module_path()}: {kept!r} of {equation!r} has letters that no operand has.")
    if not arrow:
        kept = "".join(sorted(x for x in set("".join(terms)) if "".join(terms).count(x) == 1))
    return terms, kept


# ---- type and place; plain tensors of the same kind ------------------------------------------------------------------


@rule(Value, Tensor.type_as)
def type_as(input: Value, other: Any) -> Value:
    return input.to(dtype=other.dtype, device=other.device)


@rule(Value, Tensor.cpu)
def cpu(input: Value, memory_format: Any = None) -> Value:
    return input.to("cpu")


@rule(Value, Tensor.cuda)
def cuda(input: Value, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Value:
    return input.to("cuda" if device is None else torch.device("cuda", device) if isinstance(device, int) else device)


def _like(input: Value, kwargs: dict[str, Any]) -> dict[str, Any]:
    known = {name: kwargs[name] for name in ("dtype", "device", "requires_grad") if kwargs.get(name) is not None}
    return {"dtype": input.dtype, "device": input.device, **known}


@rule(Value, torch.zeros_like)
def zeros_like(input: Value, **kwargs: Any) -> Tensor:
    return torch.zeros(input.shape, **_like(input, kwargs))


@rule(Value, torch.ones_like)
def ones_like(input: Value, **kwargs: Any) -> Tensor:
    return torch.ones(input.shape, **_like(input, kwargs))


@rule(Value, torch.full_like)
def full_like(input: Value, fill_value: float, **kwargs: Any) -> Tensor:
    return torch.full(input.shape, fill_value, **_like(input, kwargs))


@rule(Value, torch.empty_like)
def empty_like(input: Value, **kwargs: Any) -> Tensor:
    return torch.empty(input.shape, **_like(input, kwargs))


@rule(Value, Tensor.new_zeros)
def new_zeros(input: Value, *size: Any, **kwargs: Any) -> Tensor:
    return torch.zeros(as_sizes(size or (kwargs["size"],)), **_like(input, kwargs))


@rule(Value, Tensor.new_ones)
def new_ones(input: Value, *size: Any, **kwargs: Any) -> Tensor:
    return torch.ones(as_sizes(size or (kwargs["size"],)), **_like(input, kwargs))


@rule(Value, Tensor.new_full)
def new_full(input: Value, size: Any, fill_value: float, **kwargs: Any) -> Tensor:
    return torch.full(as_sizes((size,)), fill_value, **_like(input, kwargs))


@rule(Value, Tensor.new_tensor)
def new_tensor(input: Value, data: Any, **kwargs: Any) -> Tensor:
    return torch.tensor(data, **_like(input, kwargs))
