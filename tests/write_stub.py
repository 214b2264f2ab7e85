"""Writes fastbound/_C.pyi from the built module: `make stub`, after a pass was added or changed."""

from itertools import groupby
from pathlib import Path
from textwrap import wrap

from fastbound import _C

HEADER = '''"""The compiled module, built from csrc/; written by tests/write_stub.py.

A pass takes numbers (sizes from 0 on), then tensors that it reads, then those that it writes: in the dtype of the first
one, or if "computed" in that of the computations, float32 for half precision. On a CPU all passes take float32 and
float64, those over maps bfloat16 too; on a GPU those with CUDA code take all four. `passes` says the same as data.
"""

from typing import Any

from torch import Tensor

built_with_cuda: bool
cuda_archs: tuple[str, ...]
isa: str  # "base", "avx2" or "avx512"
passes: dict[str, list[dict[str, Any]]]

# fmt: off
def cuda_problem(device: int) -> str: ...
'''
WIDTH, NO_BREAK = 80, "\0"


def comment(field: dict) -> str:
    """What a tensor has to be."""
    said = [f"[{', '.join(field['shape'])}]"]
    said += [field["element"]] if field["element"] != "stored" else []
    said += [f"below {field['end']}"] if "end" in field else []
    said += ["written"] if field["kind"] == "out" else []
    return f"  # {', '.join(said)}"


def parameter(field: dict) -> str:
    if field["kind"] in ("integer", "number"):
        return f"{field['name']}: {'int' if field['kind'] == 'integer' else 'float'}"
    return f"{field['name']}: Tensor{' | None' if field['or_null'] else ''}"


def function(name: str, fields: list[dict]) -> str:
    """Numbers share a line, and so do tensors of one kind, with their comment."""
    lines = []
    for said, group in groupby(fields, lambda f: comment(f) if "shape" in f else ""):
        parameters = [parameter(field).replace(" ", NO_BREAK) for field in group]
        *first, last = wrap(", ".join(parameters), WIDTH)
        lines += [*first, f"{last},{said}"]
    body = "".join(f"    {line}\n" for line in lines).replace(NO_BREAK, " ")
    return f"def {name}(\n{body}    /) -> None: ...\n"


def stub() -> str:
    return HEADER + "".join(function(name, fields) for name, fields in _C.passes.items())


if __name__ == "__main__":
    path = Path(__file__).resolve().parents[1] / "fastbound/_C.pyi"
    path.write_text(stub(), encoding="utf-8")
