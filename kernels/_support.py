"""The requirements of the kernels: a tested Triton, a supported dtype, a GPU or the interpreter."""

from __future__ import annotations

import numpy
import torch
import triton

# First and last series with which the suites of the interpreter and of ahead-of-time compilation have passed.
TESTED = ((3, 6), (3, 9))
SPILLING = ((3, 8),)  # series in between that compile six of the shipped kernels so that registers spill
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Read when Triton decorates the kernels: later changes of TRITON_INTERPRET have no effect on them either.
INTERPRETED = bool(triton.knobs.runtime.interpret) if hasattr(triton, "knobs") else False


def unsupported(device_type: str, dtype: torch.dtype) -> str | None:
    """The reason why the kernels cannot serve such tensors, or None."""
    reason = untested(triton.__version__, numpy.__version__)
    if reason is not None:
        return reason
    if dtype not in DTYPES:
        return f"{dtype} is not supported; use float32, bfloat16 or float16"
    if device_type != "cuda" and not INTERPRETED:
        return (
            f"a tensor on {device_type} is served by Triton's interpreter alone; set TRITON_INTERPRET=1 in the "
            "environment before Python starts"
        )
    return None


def untested(triton_version: str, numpy_version: str) -> str | None:
    """The reason why these versions cannot be trusted, or None."""
    series = _series(triton_version)
    first, last = (".".join(map(str, version)) for version in TESTED)
    if not TESTED[0] <= series[:2] <= TESTED[1]:
        return f"Triton {triton_version} is untested; wanted a version from {first} to {last}"
    if series[:2] in SPILLING:
        return f"Triton {triton_version} lets registers of the kernels spill; wanted another from {first} to {last}"
    if INTERPRETED and series < (3, 7, 1) and _series(numpy_version) >= (2, 4):
        return (
            f"the interpreter of Triton {triton_version} fails with numpy {numpy_version}; install numpy<2.4 or "
            "triton>=3.7.1"
        )
    return None


def _series(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())
