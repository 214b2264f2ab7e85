"""Valid calls of the passes, drawn from what `_C.passes` says of them.

Numbers are drawn so that float32 computes every sum of theirs without rounding: small powers of two, and in large calls
and where a pass divides by what it reads -1, 0 and 1 alone. The result in float64 differs by the last
rounding only.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

FENCE, MARK = math.nan, 12345.0  # around inputs and outputs that lie inside larger buffers
MOST = 100_000  # elements of a tensor
PROFILES = {
    "tiny": (0, 1, 1, 2, 3),
    "small": (1, 1, 2, 3, 5, 7, 8, 13, 16, 17, 31),
    "wrapping": (4, 8, 16),  # products with a size near 2^62 leave 64 bits
    "large": (1, 1, 2, 3, 5),
}
LARGE = (16411, 16384, 4099, 1031, 33013)
STORED = (torch.float32, torch.float64, torch.bfloat16)

# What `fields` requires beyond the fields themselves.
TOGETHER = (("scale", "shift"), ("nominal_mul", "nominal_add"), ("out_center", "out_radius"))
MAY_BE = {("signed_weight_grad", "sum"): "grad"}  # outputs that may take the memory of an input


@dataclass
class Argument:
    name: str
    kind: str
    about: dict[str, Any]
    value: Any = None
    dims: tuple[int, ...] = ()
    buffer: Tensor | None = None  # the whole of the memory


@dataclass
class Call:
    name: str
    stored: torch.dtype
    arguments: list[Argument] = field(default_factory=list)
    threads: int = 1

    @property
    def values(self) -> list[Any]:
        return [a.value for a in self.arguments]

    def tensors(self, kind: str = "") -> list[Argument]:
        return [a for a in self.arguments if isinstance(a.value, Tensor) and kind in ("", a.kind)]

    def sizes(self) -> dict[str, int]:
        return {a.name: a.value for a in self.arguments if a.kind == "integer"}

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{a.name}={described(a.value)}' for a in self.arguments)})"


def described(value: Any) -> str:
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested:
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} strides {list(value.stride())}"
    return repr(value)[:80] if not isinstance(value, Tensor) else f"{type(value).__name__} {value.layout}"


def length(text: str, sizes: dict[str, int]) -> int:
    """An entry of a shape: "8", "channels", "classes - 1"."""
    found = re.fullmatch(r"(\w+)(?: ([+-]) (\d+))?", text)
    assert found, f"cannot read the shape {text!r}"
    base = int(found[1]) if found[1].isdigit() else sizes[found[1]]
    return base + int((found[2] or "+") + (found[3] or "0"))


def sizes_in_shapes(fields: list[dict[str, Any]]) -> set[str]:
    words = {word for f in fields for text in f.get("shape", ()) for word in re.findall(r"[a-z]\w*", text)}
    return words


def consistent(name: str, sizes: dict[str, int], absent: set[str], names: set[str]) -> bool:
    """Whether a pass takes these sizes while the optional arguments `absent` are None."""
    given = names - absent
    pairs = [pair for pair in TOGETHER if names.issuperset(pair) and not name.startswith("crown_relu")]
    if any((a in given) != (b in given) for a, b in pairs):
        return False
    if "nominal_mul" in given and ("scale" not in given or sizes.get("streams") == 1):
        return False
    if name.endswith("_bwd_sums") and "scale" not in given and sizes["channels"] > 0:
        return False
    if name.startswith("crown_relu"):
        return sizes["inner"] == 1 or sizes["outer"] == 1
    if name == "norm_statistics":
        return sizes["channels"] == 0 or sizes["outer"] * sizes["inner"] > 0
    return True


def draw(
    name: str, fields: list[dict[str, Any]], rng: random.Random, profile: str = "", sound: bool = True
) -> Call | None:
    """A call that must be accepted; not `sound`: one whose arguments do not go together, or None if all do."""
    stored = rng.choice(served(name))
    names, optional = {f["name"] for f in fields}, [f["name"] for f in fields if f.get("or_null")]
    for _ in range(1000):
        sizes = draw_sizes(fields, rng, profile or rng.choice([*PROFILES, "tiny", "small"]))
        share = rng.choice((0.0, 0.5, 1.0))
        absent = {one for one in optional if rng.random() < share}
        if consistent(name, sizes, absent, names) == sound:
            break
    else:
        return None
    call = Call(name, stored, threads=rng.choice((1, 1, 2, 3)))
    total = max(math.prod(length(t, sizes) for t in f["shape"]) for f in fields if "shape" in f)
    coarse = total > 512 or name == "crown_relu_bwd" or sizes.get("activation") == 2  # these divide
    generator = torch.Generator().manual_seed(rng.getrandbits(60))
    for about in fields:
        one = Argument(about["name"], about["kind"], about)
        if one.kind == "integer":
            one.value = sizes[one.name]
        elif one.kind == "number":
            one.value = rng.choice((about["least"], about["most"], *(() if coarse else (0.25, 0.5))))
        elif one.name not in absent:
            one.dims = tuple(length(text, sizes) for text in about["shape"])
            if one.kind == "in":
                values = draw_values(one, sizes, total, coarse, generator)
                one.value, one.buffer = placed(values.to(dtype_of(about, stored)), one.dims, FENCE, rng)
            else:
                values = torch.full((math.prod(one.dims),), math.nan, dtype=dtype_of(about, stored))
                one.value, one.buffer = placed(values, one.dims, MARK, rng)
        call.arguments.append(one)
    for one in call.arguments:
        source = next((a for a in call.arguments if a.name == MAY_BE.get((name, one.name))), None)
        if source is not None and stored != torch.bfloat16 and rng.random() < 0.3:
            one.value, one.buffer = source.value, source.buffer
    return call


def served(name: str) -> tuple[torch.dtype, ...]:
    """The types of maps that a pass serves on a CPU."""
    narrow = name.startswith(("crown_", "interval_margin", "swap_axes"))
    return STORED[:2] if narrow else STORED


def dtype_of(about: dict[str, Any], stored: torch.dtype) -> torch.dtype:
    if about["element"] == "int64":
        return torch.int64
    half = about["element"] == "computed" and stored == torch.bfloat16
    return torch.float32 if half else stored


def draw_sizes(fields: list[dict[str, Any]], rng: random.Random, profile: str) -> dict[str, int]:
    shaping, sizes = sizes_in_shapes(fields), {}
    free = []
    for about in fields:
        if about["kind"] != "integer":
            continue
        least, most = about["least"], about.get("most", math.inf)
        if about["name"] in shaping and most == math.inf:
            sizes[about["name"]] = max(least, rng.choice(PROFILES[profile]))
            free.append(about["name"])
        else:
            low = max(least, -3)
            sizes[about["name"]] = rng.randint(low, int(min(most, low + 6)))
    if profile == "large":
        sizes[rng.choice(free)] = rng.choice(LARGE)
    if {"inner", "outer"} <= sizes.keys() and rng.random() < 0.6:
        sizes[rng.choice(("inner", "outer"))] = 1
    shapes = [f["shape"] for f in fields if "shape" in f]
    while max(math.prod(length(t, sizes) for t in shape) for shape in shapes) > MOST:
        widest = max(free, key=lambda one: sizes[one] if rng.random() < 0.7 else 0)
        sizes[widest] = max(1, sizes[widest] // 2)
    return sizes


def draw_values(
    one: Argument, sizes: dict[str, int], total: int, coarse: bool, generator: torch.Generator
) -> Tensor:  # flat
    count = math.prod(one.dims)
    if one.about["element"] == "int64":
        low, high = (0, length(one.about["end"], sizes)) if "end" in one.about else (-4, 5)
        return torch.randint(low, high, (count,), generator=generator)
    steps = (0.0, 1.0) if coarse else (0.0, 0.5, 1.0, 2.0)
    choice = torch.tensor(steps, dtype=torch.float64)[torch.randint(len(steps), (count,), generator=generator)]
    if one.name == "radius":
        return choice
    values = choice * (torch.randint(2, (count,), generator=generator) * 2 - 1)
    if one.name == "moments":  # divided by the number of elements
        return values * (sizes["outer"] * sizes["channels"] * sizes["inner"])
    return values


def placed(values: Tensor, dims: tuple[int, ...], fence: float, rng: random.Random) -> tuple[Tensor, Tensor]:
    """The values in memory of their own, or inside a larger buffer at an odd offset, as some view of `dims`."""
    count = values.numel()
    before, after = rng.choice(((0, 0), (0, 0), (1, 3), (67, 5), (64, 33)))
    filled = fence if values.is_floating_point() else 2**62
    buffer = torch.full((before + count + after,), filled, dtype=values.dtype)
    inside = buffer[before : before + count]
    inside.copy_(values)
    return viewed(inside, dims, rng), buffer


def viewed(flat: Tensor, dims: tuple[int, ...], rng: random.Random) -> Tensor:
    """A tensor whose memory order is `dims`: its dimensions merged, split by ones, or permuted."""
    if flat.numel() == 0:
        return rng.choice((flat, flat.view(dims), flat.view(0, 3), flat.view(5, 0, 1)))
    shape = list(dims)
    while len(shape) > 1 and rng.random() < 0.3:
        at = rng.randrange(len(shape) - 1)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    while rng.random() < 0.2:
        shape.insert(rng.randint(0, len(shape)), 1)
    view = flat.view(shape)
    strides = [rng.choice((s, 1, 977)) if n == 1 else s for n, s in zip(view.shape, view.stride())]
    view = view.as_strided(shape, strides)
    return view.permute(rng.sample(range(len(shape)), len(shape))) if rng.random() < 0.3 else view


def plain(call: Call) -> Call:
    """The same call in float64, on memory in the order of the shapes, by one thread."""
    wide = Call(call.name, torch.float64)
    for one in call.arguments:
        copy = Argument(one.name, one.kind, one.about, one.value, one.dims)
        if isinstance(one.value, Tensor):
            memory = in_memory_order(one.value)
            copy.value = memory.to(torch.float64 if memory.is_floating_point() else memory.dtype, copy=True)
            if one.kind == "out":
                copy.value = torch.full_like(copy.value, math.nan)
            copy.buffer = copy.value
        wide.arguments.append(copy)
    return wide


def in_memory_order(x: Tensor) -> Tensor:
    """The elements of a dense tensor, in the order of their addresses."""
    return x.as_strided((x.numel(),), (1,))
