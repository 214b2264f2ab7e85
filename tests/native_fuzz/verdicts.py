"""Runs one call, and says what is wrong with what came of it."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from native_fuzz import breaks
from native_fuzz.calls import MARK, Call, draw, in_memory_order, plain

PROFILES = {breaks.wrapping_size: "wrapping", breaks.size_beside_zero: "tiny"}  # of sizes
REFUSALS = (ValueError, TypeError)


def one_call(module: Any, rng: random.Random, tell: Any = lambda text: None) -> tuple[str, str, str | None]:
    """Draws a call, and judges it: its pass, "accepted" or the way in which it was spoilt, and a problem or None.

    `tell` is told of the call before it is made: what is the matter if the process ends.
    """
    name = rng.choice(sorted(module.passes))
    fields = module.passes[name]
    if rng.random() < 0.4:
        call = draw(name, fields, rng)
        assert call is not None
        tell(f"valid {call}")
        return name, "accepted", judged(module, call)
    while True:
        how = rng.choice((*breaks.BREAKS, None))
        if how is None:
            call, blamed = draw(name, fields, rng, "small", sound=False), breaks.ANY
        else:
            call = draw(name, fields, rng, PROFILES.get(how, ""))
            assert call is not None
            blamed = how(call, rng)
        if call is not None and blamed is not None:
            break
    what = "inconsistent" if how is None else how.__name__
    tell(f"{what} {call}")
    return name, what, refused(module, call, blamed)


def raw(x: Tensor) -> Tensor:
    """The bytes of a buffer."""
    return x.view(torch.uint8) if x.numel() else x.new_empty(0, dtype=torch.uint8)


def judged(module: Any, call: Call) -> str | None:
    """A valid call: accepted, nothing but its outputs written, and these as the same pass gives them in float64."""
    buffers = [a.buffer for a in call.tensors()]
    before = [raw(b).clone() for b in buffers]
    wide = plain(call)
    torch.set_num_threads(call.threads)
    try:
        getattr(module, call.name)(*call.values)
        torch.set_num_threads(1)
        getattr(module, call.name)(*wide.values)
    except Exception as error:
        return f"refused by {type(error).__name__}: {error}"
    outputs = {a.value.data_ptr() for a in call.tensors("out")}
    for one, old in zip(call.tensors(), before):
        if one.kind == "in" and one.value.data_ptr() not in outputs and not torch.equal(raw(one.buffer), old):
            return f"{one.name}, an input, was changed"
    for one, exact in zip(call.tensors(), wide.tensors()):
        if one.kind != "out" or one.value.numel() == 0:
            continue
        found, wanted = in_memory_order(one.value).double(), exact.value
        at = one.value.storage_offset()
        outside = torch.cat((one.buffer[:at], one.buffer[at + one.value.numel() :]))
        if one.value.data_ptr() not in {a.value.data_ptr() for a in call.tensors("in")} and (outside != MARK).any():
            return f"memory beside {one.name} was written"
        if found.isnan().any():
            return f"{one.name}: {int(found.isnan().sum())} of {found.numel()} elements are NaN or were not written"
        # Every sum is exact (see calls.py); what remains are a quotient, and the rounding to what is stored.
        error, allowed = (found - wanted).abs(), 2 * torch.finfo(one.value.dtype).eps * wanted.abs()
        if not bool((error <= allowed).all()):
            worst = int((error - allowed).argmax())
            return f"{one.name}[{worst}] is {found[worst].item()}, and {wanted[worst].item()} in float64"
    return None


def refused(module: Any, call: Call, blamed: str) -> str | None:
    """A spoilt call: refused by an error that names the pass and the argument, and nothing written."""
    buffers = [b for b in {id(a.buffer): a.buffer for a in call.arguments}.values() if b is not None]
    before = [raw(b).clone() for b in buffers]
    torch.set_num_threads(call.threads)
    elsewhere = any(isinstance(v, Tensor) and (v.layout != torch.strided or v.is_meta) for v in call.values)
    try:
        getattr(module, call.name)(*call.values)
    except Exception as error:
        if not elsewhere and not isinstance(error, REFUSALS):
            return f"refused by {type(error).__name__} instead of ValueError or TypeError: {error}"
        if not elsewhere and call.name not in str(error):
            return f"the refusal does not name the pass: {error}"
        if blamed not in (breaks.ANY, breaks.EITHER) and blamed not in str(error):
            return f"the refusal does not name {blamed}: {error}"
    else:
        return None if blamed == breaks.EITHER else "accepted"
    for buffer, old in zip(buffers, before):
        if not torch.equal(raw(buffer), old):
            return "refused, but memory was written"
    return None
