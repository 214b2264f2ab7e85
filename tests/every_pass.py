"""Calls of every pass that `_C.passes` lists, drawn from what it says of their arguments: a new pass needs no line.

Run as a program, it prints a hash of every output, by which instruction sets are compared. Inputs are of two kinds:
"rounded" ones, whose results show every rounding, and "exact" ones, powers of two whose sums are exact in any order.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from native_calls import run, shape_of, size_of
from torch import Tensor

from fastbound import _C
from fastbound.native import HALVES

DTYPES = (torch.float32, torch.float64, *HALVES)
KINDS = ("rounded", "exact")
SMALL, WIDE = (1, 1, 2, 3, 5, 9), (17, 64, 300, 1100, 17003)  # two threads share the work from 16384 elements on
MOST = 60000  # elements of a tensor: more than of three vectors of the widest size
TRIES = 10000  # at sizes that fit MOST and that the pass takes
CALLS = 32  # of a pass, in one dtype and of one kind, for its choices; there may be more for its sizes

# Outputs that a loop over a vector adds up: in "rounded" calls the order of their terms shows.
SUMS = {
    "crown_concretize_fwd": {"out"},
    "crown_relu_bwd": {"out_channels"},
    "crown_relu_fwd": {"bias"},
    "crown_windows_concretize": {"out"},
    "crown_windows_lines": {"bias"},
    "interval_margin_fwd": {"out"},
    "interval_norm_relu_bwd_sums": {"sum_scale", "sum_shift"},
    "interval_norm_relu_moments_bwd_sums": {"sum_scale", "sum_shift"},
    "interval_norm_relu_moments_fwd": {"moments"},
    "norm_statistics": {"mean", "var"},
    "singleprop_norm_relu_bwd_sums": {"sum_scale", "sum_shift"},
}
# Sums of quotients, which are rounded even for powers of two: an input that is 0 in "exact" calls keeps them away.
QUOTIENTS: dict[str, Callable[[dict[str, Any]], str | None]] = {
    "crown_relu_bwd": lambda call: "radius" if call["scale"] is None else None,
    "interval_norm_relu_moments_bwd_sums": lambda call: "moments",
    "singleprop_norm_relu_bwd_sums": lambda call: "radius" if call["activation"] == 2 else None,
}


def is_size(field: dict[str, Any]) -> bool:
    return field["kind"] == "integer" and "most" not in field


def choices(field: dict[str, Any]) -> list[Any]:
    """The values of an argument that calls choose from; none for sizes, and for tensors that must be there."""
    if field["kind"] == "number":
        least, most = field["least"], field["most"]
        return [least, least + 0.375 * (most - least), most]
    if field["kind"] == "integer":
        few = "most" in field and field["most"] - field["least"] < 10
        return list(range(field["least"], field["most"] + 1)) if few else []
    return [..., None] if field["or_null"] else []


@cache
def combinations(name: str) -> list[dict[str, Any]]:
    """The choices that a pass takes, in an order of its own."""
    options = {field["name"]: values for field in _C.passes[name] if (values := choices(field))}
    drawn = Drawn(name, torch.float32, "rounded")
    tried = [dict(zip(options, values)) for values in itertools.product(*options.values())]
    taken = [chosen for chosen in tried if drawn.outputs(drawn.arguments(chosen, {})) is not None]
    assert taken, f"{name} takes nothing that was drawn"
    return random.Random(name).sample(taken, len(taken))


class Drawn:
    """Calls of one pass, in one dtype and of one kind, the same at every run."""

    def __init__(self, name: str, dtype: torch.dtype, kind: str) -> None:
        self.name, self.dtype, self.kind = name, dtype, kind
        self.fields = _C.passes[name]
        self.sizes = [field["name"] for field in self.fields if is_size(field)]
        self.draw, self.generator = random.Random(name), torch.Generator().manual_seed(len(name))

    def calls(self) -> Iterator[dict[str, Tensor]]:
        """The outputs of calls that go through the choices which the pass takes."""
        taken, wide = combinations(self.name), list(itertools.product(self.sizes, WIDE))
        for turn in range(max(len(wide), min(CALLS, len(taken)))):
            chosen, size = taken[turn % len(taken)], dict([wide[turn % len(wide)]])
            tried = (self.outputs(self.arguments(chosen, size)) for _ in range(TRIES))
            made = next((outputs for outputs in tried if outputs is not None), None)
            assert made is not None, f"{self.name} takes no shape with {size}"
            yield made

    def arguments(self, chosen: dict[str, Any], wide: dict[str, int]) -> dict[str, Any]:
        """By name; of the outputs, those that are None. Sizes are 1 if none is ``wide``, else the others are small."""
        numbers = self.numbers(wide)
        call: dict[str, Any] = {}
        for field in self.fields:
            key = field["name"]
            if field["kind"] in ("integer", "number"):
                call[key] = chosen.get(key, numbers.get(key))
            elif chosen.get(key, ...) is None:
                call[key] = None
            elif field["kind"] == "in":
                call[key] = self.tensor(field, call)
        zero = QUOTIENTS[self.name](call) if self.kind == "exact" and self.name in QUOTIENTS else None
        if zero is not None:
            call[zero].zero_()
        return call

    def numbers(self, wide: dict[str, int]) -> dict[str, int]:
        for _ in range(TRIES):
            found = {}
            for field in self.fields:
                if is_size(field):
                    found[field["name"]] = wide.get(field["name"], self.draw.choice(SMALL) if wide else 1)
                elif field["kind"] == "integer":
                    found[field["name"]] = max(field["least"], self.draw.randint(-2, 3))
            shapes = [shape_of(field, found) for field in self.fields if "shape" in field]
            if max(torch.Size(shape).numel() for shape in shapes) <= MOST:
                return found
        raise AssertionError(f"{self.name} has tensors of more than {MOST} elements for all that was drawn with {wide}")

    def tensor(self, field: dict[str, Any], call: dict[str, Any]) -> Tensor:
        shape = shape_of(field, call)
        if field["element"] == "int64":
            first, end = max(field["first"], -2), size_of(field["end"], call)
            return torch.randint(first, 6 if first < 0 else end, shape, generator=self.generator)
        if self.kind == "exact":
            powers = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
            values = powers[torch.randint(7, shape, generator=self.generator)]
        else:
            values = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        narrow = field["element"] == "computed" and self.dtype in HALVES
        return values.to(torch.float32 if narrow else self.dtype)

    def outputs(self, call: dict[str, Any]) -> dict[str, Tensor] | None:
        """By name; None if the pass refuses the call."""
        outputs = [field["name"] for field in self.fields if field["kind"] == "out"]
        inputs = [value for key, value in call.items() if key not in outputs]
        try:
            made = run(self.name, *inputs, without=[output for output in outputs if output in call])
        except ValueError:
            return None
        return dict(zip((output for output in outputs if output not in call), made))


def serves(name: str, dtype: torch.dtype) -> bool:
    """Whether a pass has code on a processor for maps in ``dtype``; all have it for single and double precision."""
    drawn = Drawn(name, dtype, KINDS[0])
    try:
        drawn.outputs(drawn.arguments(combinations(name)[0], {}))
    except TypeError as error:
        if dtype not in HALVES or "has no code for" not in str(error):
            raise
        return False
    return True


def digests() -> dict[str, str]:
    """A hash of each output of each pass in each dtype that it serves on a processor, over all its calls."""
    found: dict[str, Any] = defaultdict(hashlib.sha256)
    for name, dtype, kind in itertools.product(_C.passes, DTYPES, KINDS):
        if not serves(name, dtype):
            continue
        for made in Drawn(name, dtype, kind).calls():
            for output, result in made.items():
                if kind == "exact" or output not in SUMS.get(name, ()):
                    found[f"{name} {dtype} {output} {kind}"].update(result.view(torch.uint8).numpy().tobytes())
    return {key: value.hexdigest() for key, value in found.items()}


if __name__ == "__main__":
    print(json.dumps({"isa": _C.isa, **digests()}))
