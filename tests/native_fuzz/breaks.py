"""Calls with one thing wrong. Each function takes a valid call and spoils it in place; it returns the name of the
argument at fault, ``ANY`` where several could be named, or None where this call cannot be spoilt in that way."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from native_fuzz.calls import MAY_BE, Argument, Call, in_memory_order, length, sizes_in_shapes

ANY, EITHER = "any", "either"  # EITHER: the call may be accepted, too, and must end
Break = Callable[[Call, random.Random], "str | None"]


def chosen(call: Call, rng: random.Random, least: int = 0) -> Argument | None:
    """One of the tensors with at least so many elements."""
    some = [a for a in call.tensors() if a.value.numel() >= least]
    return rng.choice(some) if some else None


def replaced(call: Call, one: Argument, value: Any) -> str:
    """Puts it there; a call has the type and device of its first tensor, so if that is wrong, the others are named."""
    first = call.tensors()[0]
    one.value = value
    return ANY if one is first else one.name


def wrong_length(call: Call, rng: random.Random) -> str | None:
    one = chosen(call, rng)
    if one is None:
        return None
    count = one.value.numel()
    longer = count + rng.choice((1, 1, 2, max(count, 1))) if count == 0 or rng.random() < 0.5 else None
    shorter = rng.choice((count - 1, count - 1, count // 2, 0)) if count else 0
    return replaced(call, one, one.value.new_zeros(shorter if longer is None else longer))


def wrong_dtype(call: Call, rng: random.Random) -> str | None:
    one = chosen(call, rng)
    if one is None or len(call.tensors()) < 2:
        return None
    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]
    kinds += [torch.bool, torch.complex64]
    dtype = rng.choice([k for k in kinds if k != one.value.dtype])
    others = {a.value.dtype for a in call.tensors() if a is not one}
    if one.about["element"] == "stored" and dtype in (torch.float32, torch.bfloat16) and others == {torch.float32}:
        return None  # perhaps the same call for maps in the other dtype, whose other tensors are in float32
    return replaced(call, one, one.value.to(dtype))


def expanded(call: Call, rng: random.Random) -> str | None:
    one = chosen(call, rng, 2)
    if one is None:
        return None
    axis = rng.choice([i for i, n in enumerate(one.value.shape) if n > 1])
    return replaced(call, one, one.value.narrow(axis, 0, 1).clone().expand(one.value.shape))


def strided(call: Call, rng: random.Random) -> str | None:
    """Gaps: every second element of a dimension, or rows that are longer than what is taken of them."""
    one = chosen(call, rng, 2)
    if one is None:
        return None
    axis = rng.choice([i for i, n in enumerate(one.value.shape) if n > 1])
    wide = torch.cat((one.value, one.value), axis)
    count = one.value.shape[axis]
    outermost = wide.stride(axis) * count * 2 == wide.numel()
    if rng.random() < 0.5 or outermost:  # a part along the outermost dimension has no gaps
        part = wide.as_strided(one.value.shape, [s * 2 if i == axis else s for i, s in enumerate(wide.stride())])
    else:
        part = wide.narrow(axis, 0, count)
    return replaced(call, one, part) if not fits(part, one.dims) else None


def transposed(call: Call, rng: random.Random) -> str | None:
    """As many elements in another order."""
    one = chosen(call, rng, 2)
    if one is None or len(one.dims) < 2:
        return None
    shape = rng.sample(one.dims, len(one.dims))
    other = in_memory_order(one.value).clone().view(shape)
    return None if fits(other, one.dims) else replaced(call, one, other)


def fits(x: Tensor, dims: tuple[int, ...]) -> bool:
    """Whether `x` is one block whose dimensions, in memory order, are parts or products of neighbours of `dims`."""
    axes = sorted((stride, size) for stride, size in zip(x.stride(), x.shape) if size != 1)
    ends = [1]
    for stride, size in axes:
        if stride != ends[-1]:
            return False
        ends.append(ends[-1] * size)
    cut = 1
    for size in reversed(dims):
        cut *= size
        below, above = max(e for e in ends if e <= cut), min((e for e in ends if e >= cut), default=0)
        if cut % below != 0 or above % cut != 0:
            return False
    return ends[-1] == cut


def overlapping(call: Call, rng: random.Random) -> str | None:
    """An output in the memory of another tensor, all of it or an element further on."""
    outs = [a for a in call.tensors("out") if a.value.numel() > 0]
    if not outs:
        return None
    out = rng.choice(outs)
    others = [a for a in call.tensors() if a is not out and a.value.numel() > 0]
    if not others:
        return None
    other = rng.choice(others)
    size = out.value.element_size()
    share = other.value.numel() * other.value.element_size() + out.value.numel() * size
    memory = torch.zeros(share + 16, dtype=torch.uint8)
    start = other.value.numel() * other.value.element_size()
    start = rng.choice((0, start // 2, start - 1)) // 8 * 8
    allowed = MAY_BE.get((call.name, out.name)) == other.name and start == 0
    if allowed and other.value.dtype == out.value.dtype:
        return None
    whole = memory[: other.value.numel() * other.value.element_size()].view(other.value.dtype)
    whole.copy_(in_memory_order(other.value))
    other.value, other.buffer = whole, memory
    out.value = memory[start : start + out.value.numel() * size].view(out.value.dtype)
    out.buffer = memory
    return out.name


def none(call: Call, rng: random.Random) -> str | None:
    needed = [a for a in call.arguments if not a.about.get("or_null")]
    return replaced(call, rng.choice(needed), None)


def no_tensor(call: Call, rng: random.Random) -> str | None:
    tensors = call.tensors()
    if len(tensors) < 2:
        return None
    one = rng.choice(tensors)
    return replaced(call, one, rng.choice((0, 1.5, "x", [1.0, 2.0], object(), torch.Tensor, one.value.tolist(), b"")))


def no_memory(call: Call, rng: random.Random) -> str | None:
    """Tensors whose numbers are not where their strides say."""
    one = chosen(call, rng, 2)
    if one is None or not one.value.is_floating_point():
        return None
    x = in_memory_order(one.value).clone()

    def resized() -> Tensor:
        x.untyped_storage().resize_(0)
        return x

    def odd() -> Tensor:
        raw = bytearray(x.numel() * x.element_size() + 8)
        return torch.frombuffer(raw, dtype=x.dtype, offset=1, count=x.numel())

    strange: tuple[Callable[[], Tensor], ...] = (
        lambda: x.to("meta"),
        x.to_sparse,
        lambda: torch._efficientzerotensor(x.shape, dtype=x.dtype),
        resized,
        odd,
    )
    one.value, one.buffer = rng.choice(strange)(), None
    return ANY


def wrong_size(call: Call, rng: random.Random) -> str | None:
    """Another size, so that some tensor no longer belongs to it."""
    shaping = sizes_in_shapes([a.about for a in call.arguments])
    one = rng.choice([a for a in call.arguments if a.kind == "integer" and a.name in shaping])
    far = (2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**64))
    value = rng.choice((one.value + 1, one.value - 1, -one.value or -1, -1, *far))
    within = one.about["least"] <= value <= min(one.about.get("most", math.inf), 2**63 - 1)
    if within and not spoils(call, {one.name: value}):
        return None
    one.value = value
    return ANY if within else one.name


def wrapping_size(call: Call, rng: random.Random) -> str | None:
    """A size whose product with the others is right in 64 bits: what is too much for them is lost."""
    shaping = sizes_in_shapes([a.about for a in call.arguments])
    one = rng.choice([a for a in call.arguments if a.kind == "integer" and a.name in shaping])
    value = one.value + 2 ** rng.randint(56, 62)
    if "most" in one.about or not spoils(call, {one.name: value}):
        return None
    one.value = value
    return ANY


def size_beside_zero(call: Call, rng: random.Random) -> str | None:
    """A huge size that no tensor has, because another size is 0."""
    shaping = sizes_in_shapes([a.about for a in call.arguments])
    some = [a for a in call.arguments if a.name in shaping and "most" not in a.about]
    some = [a for a in some if not spoils(call, {a.name: 2**62})]
    for one in rng.sample(some, min(len(some), 2)):
        one.value = 2 ** rng.choice((31, 40, 62))
    return EITHER if some else None


def far_window(call: Call, rng: random.Random) -> str | None:
    """Windows, strides and corners that lie far away."""
    base = next((a for a in call.tensors() if a.name == "base" and a.value.numel() > 0), None)
    if base is None:
        return None
    in_memory_order(base.value)[rng.randrange(base.value.numel())] = rng.choice((2**31, -(2**40), 2**62, -(2**63)))
    for one in call.arguments:
        if one.name.startswith(("stride", "start")) and rng.random() < 0.3:
            one.value = rng.choice((one.about["least"], one.about["most"]))
    return EITHER


def spoils(call: Call, sizes: dict[str, int]) -> bool:
    """Whether some tensor has another number of elements then."""
    sizes = {**call.sizes(), **sizes}
    return any(math.prod(length(text, sizes) for text in a.about["shape"]) != math.prod(a.dims) for a in call.tensors())


def wrong_number(call: Call, rng: random.Random) -> str | None:
    limited = [a for a in call.arguments if a.kind == "number" or (a.kind == "integer" and "most" in a.about)]
    if not limited:
        return None
    one = rng.choice(limited)
    least, most = one.about["least"], one.about["most"]
    outside = (least - 1, most + 1, -(2**62), 2**62, 2**64, 10**400, "0", [], 1j)
    one.value = rng.choice(outside + ((0.5, math.nan) if one.kind == "integer" else (math.nan, math.inf, -math.inf)))
    return one.name


def wrong_index(call: Call, rng: random.Random) -> str | None:
    some = [a for a in call.tensors() if "end" in a.about and a.value.numel() > 0]
    if not some:
        return None
    one = rng.choice(some)
    outside = (one.about["first"] - 1, length(one.about["end"], call.sizes()), 2**62, -(2**63))
    in_memory_order(one.value)[rng.randrange(one.value.numel())] = rng.choice(outside)
    return one.name


def wrong_count(call: Call, rng: random.Random) -> str | None:
    if rng.random() < 0.3:
        call.arguments.append(Argument("more", "number", {}, rng.choice((0, None, torch.zeros(3)))))
    else:
        del call.arguments[rng.choice((-1, 0, len(call.arguments) // 2)) :]
    return ANY


BREAKS: tuple[Break, ...] = (
    wrong_length,
    wrong_length,
    wrong_dtype,
    expanded,
    strided,
    transposed,
    overlapping,
    none,
    no_tensor,
    no_memory,
    wrong_size,
    wrapping_size,
    size_beside_zero,
    far_window,
    wrong_number,
    wrong_index,
    wrong_count,
)
