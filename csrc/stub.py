"""Writes fastbound/_C.pyi from the built module: `make stub`, after a pass was added or changed."""

from pathlib import Path

from fastbound import _C

HEADER = '''"""The compiled module, built from csrc/; written by csrc/stub.py.

A pass takes numbers, then tensors that it reads, then those that it writes. "stored" is the dtype of the first tensor
and "computed" that of its computations: float32 for half precision, else the same. On a CPU all passes take float32 and
float64, those over maps bfloat16 too; on a GPU those with CUDA code take all four. `passes` says the same as data.
"""

from typing import Any

from torch import Tensor

built_with_cuda: bool
cuda_archs: tuple[str, ...]
isa: str  # "base", "avx2" or "avx512"
passes: dict[str, list[dict[str, Any]]]

def cuda_problem(device: int) -> str: ...
'''


def parameter(field: dict) -> tuple[str, str]:
    """The annotated name of an argument, and what is to be said of it."""
    if field["kind"] in ("integer", "number"):
        limits = f"{field['least']} to {field['most']}" if "most" in field else f"from {field['least']}"
        return f"{field['name']}: {'int' if field['kind'] == 'integer' else 'float'}", limits
    annotation = "Tensor | None" if field["or_null"] else "Tensor"
    said = [f"[{', '.join(field['shape'])}]", field["element"]]
    if "end" in field:
        said.append(f"below {field['end']}")
    if field["kind"] == "out":
        said.append("written")
    return f"{field['name']}: {annotation}", ", ".join(said)


def function(name: str, fields: list[dict]) -> str:
    lines = [f"    {code},  # {said}\n" for code, said in map(parameter, fields)]
    return f"def {name}(\n{''.join(lines)}    /,\n) -> None: ...\n"


def stub() -> str:
    return HEADER + "".join(function(name, fields) for name, fields in _C.passes.items())


if __name__ == "__main__":
    path = Path(__file__).resolve().parents[1] / "fastbound/_C.pyi"
    path.write_text(stub(), encoding="utf-8")
