"""That the fuzzer of `make fuzz-native` notices: a pass written in Python, sound and with one fault."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from native_fuzz import verdicts
from native_fuzz.breaks import fits
from native_fuzz.calls import in_memory_order
from torch import Tensor

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Casting complex")]  # thousands of calls

CALLS = 400
FIELDS: list[dict[str, Any]] = [
    {"name": "rows", "kind": "integer", "least": 0},
    {"name": "columns", "kind": "integer", "least": 0},
    {"name": "slope", "kind": "number", "least": 0.0, "most": 1.0},
    *(
        {"name": name, "kind": kind, "shape": shape, "element": "stored", "or_null": False}
        for name, kind, shape in (("x", "in", ["rows", "columns"]), ("y", "in", ["rows"]), ("out", "out", ["rows"]))
    ),
]


def sound(faults: frozenset[str], *arguments: Any) -> None:
    """``out = x.sum(1) + slope y``, on whatever _C accepts."""

    def wants(condition: bool, name: str, fault: str = "") -> None:
        if not condition and fault not in faults:
            raise ValueError(f"made_up: {name}")

    wants(len(arguments) == len(FIELDS), "arguments")
    rows, columns, slope, *tensors = arguments
    for name, size in (("rows", rows), ("columns", columns)):
        wants(isinstance(size, int) and 0 <= size < 2**63, name)
    wants(isinstance(slope, (int, float)) and 0 <= slope <= 1, "slope", "number")
    for name, t, dims in zip(["x", "y", "out"], tensors, ((rows, columns), (rows,), (rows,))):
        wants(isinstance(t, Tensor), name)
        wants(t.layout == torch.strided and not t.is_neg() and not t.is_meta and not t._is_zerotensor(), name)
        wants(t.dtype == tensors[0].dtype and t.dtype in (torch.float32, torch.float64, torch.bfloat16), name, "dtype")
        count = dims[0] if len(dims) == 1 else rows * columns
        wants(t.numel() == count, name, "length" if name == "y" else "")
        wants(count == 0 or fits(t, dims) or t.numel() != count, name, "order")
        wants(count == 0 or (t.untyped_storage().nbytes() > 0 and t.data_ptr() % t.element_size() == 0), name)
    x, y, out = (in_memory_order(t) for t in tensors)
    if "early" in faults:
        out.zero_()
    begin = [t.data_ptr() for t in (x, y, out)]
    end = [t.data_ptr() + t.numel() * t.element_size() for t in (x, y, out)]
    apart = all(begin[2] >= end[i] or begin[i] >= end[2] for i in (0, 1) if begin[i] < end[i] and begin[2] < end[2])
    wants(apart, "out, x and y", "overlap")
    wide = torch.float32 if x.dtype == torch.bfloat16 else x.dtype
    total = x.view(rows, columns).to(wide).sum(1) + slope * y[:rows].to(wide)
    if "value" in faults and x.dtype == torch.float32 and rows > 3:
        total[3] += 1
    if "unwritten" in faults:
        total = total[: rows - 1]
    out[: len(total)] = total
    if "input" in faults and len(y):
        y[0] = 3
    if "beside" in faults and tensors[2].storage_offset() > 0:
        out.as_strided((1,), (1,), out.storage_offset() - 1).zero_()


def problems(*faults: str) -> list[str]:
    """What the fuzzer says about a module with these faults."""
    module = SimpleNamespace(passes={"made_up": FIELDS}, made_up=lambda *args: sound(frozenset(faults), *args))
    return [f"{what}: {problem}" for _, what, problem in (verdict(module, n) for n in range(CALLS)) if problem]


def verdict(module: Any, number: int) -> tuple[str, str, str | None]:
    return verdicts.one_call(module, random.Random(f"7:{number}"))


@pytest.fixture(autouse=True)
def own_threads() -> Any:
    yield
    torch.set_num_threads(1)


def test_nothing_is_found_in_a_sound_pass() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    "fault, wanted",
    [
        ("value", "accepted: out[3] is"),
        ("unwritten", "were not written"),
        ("input", "y, an input, was changed"),
        ("beside", "memory beside out was written"),
        ("length", "wrong_length: accepted"),
        ("dtype", "wrong_dtype: accepted"),
        ("order", "strided: accepted"),
        ("number", "wrong_number: accepted"),
        ("overlap", "overlapping: accepted"),
        ("early", "refused, but memory was written"),
    ],
)
def test_a_fault_is_found(fault: str, wanted: str) -> None:
    found = problems(fault)
    assert any(wanted in problem for problem in found), found[:3]


def test_a_refusal_names_pass_and_argument() -> None:
    def nameless(error: Callable[[str], Exception]) -> list[str | None]:
        def made_up(*args: Any) -> None:
            try:
                sound(frozenset(), *args)
            except (ValueError, TypeError) as refusal:
                raise error(str(refusal)) from None

        module = SimpleNamespace(passes={"made_up": FIELDS}, made_up=made_up)
        return [verdict(module, n)[2] for n in range(100)]

    assert any(p and "instead of ValueError" in p for p in nameless(OverflowError))
    assert any(p and "does not name the pass" in p for p in nameless(lambda _: ValueError("no")))
    assert any(p and "does not name slope" in p for p in nameless(lambda _: ValueError("made_up: no")))
