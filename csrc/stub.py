"""Writes fastbound/_C.pyi from the built module: `make stub`, after a pass was added or changed."""

from pathlib import Path

from fastbound import _C

HEADER = '''"""The compiled module, built from csrc/; written by csrc/stub.py.

A pass takes numbers (sizes from 0 on), then tensors that it reads, then those that it writes. "stored" is the dtype of
the first tensor, and "computed" that of its computations: float32 for half precision, else the same. On a CPU all
passes take float32 and float64, those over maps bfloat16 too; on a GPU those with CUDA code take all four. `passes`
says the same as data.
"""

from typing import Any

from torch import Tensor

built_with_cuda: bool
cuda_archs: tuple[str, ...]
isa: str  # "base", "avx2" or "avx512"
passes: dict[str, list[dict[str, Any]]]

def cuda_problem(device: int) -> str: ...
'''


def parameter(field: dict) -> str:
    """An argument with its annotation, and in a comment what it has to be."""
    if field["kind"] in ("integer", "number"):
        said = [f"{field['least']} to {field['most']}"] if "most" in field else []
        if not said and field["least"] != 0:
            said = [f"from {field['least']}"]
        annotation = {"integer": "int", "number": "float"}[field["kind"]]
    else:
        said = [f"[{', '.join(field['shape'])}]", field["element"]]
        said += [f"below {field['end']}"] if "end" in field else []
        said += ["written"] if field["kind"] == "out" else []
        annotation = "Tensor | None" if field["or_null"] else "Tensor"
    return f"    {field['name']}: {annotation},{'  # ' if said else ''}{', '.join(said)}\n"


def function(name: str, fields: list[dict]) -> str:
    return f"def {name}(\n{''.join(map(parameter, fields))}    /,\n) -> None: ...\n"


def stub() -> str:
    return HEADER + "".join(function(name, fields) for name, fields in _C.passes.items())


if __name__ == "__main__":
    path = Path(__file__).resolve().parents[1] / "fastbound/_C.pyi"
    path.write_text(stub(), encoding="utf-8")
