"""Describes the machine, and runs each kind of code once: a native pass in every dtype, Triton, a CUDA graph.

Every value is compared with float64 within its rounding bound, so that a wrong driver, build or flag shows in seconds.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor

import fastbound as fb
from bench.gpu import package
from bench.gpu.ceilings import products_in
from bench.gpu.record import Record, parser
from fastbound import _C
from fastbound.errors import BackendError
from fastbound.train import capture

COLUMNS = ("check", "largest error", "allowed", "result")
PACKAGES = ("torch", "triton", "numpy", "pytest", "pytest-xdist", "pytest-timeout", "pillow", "scipy", "safetensors")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
Check = Callable[[], tuple[Tensor, Tensor, Tensor]]  # found, wanted, allowed error
# Roundings of an end of an interval and of its middle in interval_norm_relu, without a norm: two sums and a half.
ROUNDINGS = 3


def main(arguments: list[str] | None = None) -> int:
    chosen = parser(__doc__, seconds=60).parse_args(arguments)
    record = Record("environment", chosen)
    record.content["packages"] = {name: package.version(name) for name in PACKAGES}
    record.content["module"] = {
        "file": _C.__file__,
        "built_with_cuda": _C.built_with_cuda,
        "archs": list(_C.cuda_archs),
        "isa": _C.isa,
    }
    record.content["driver"] = _driver()
    for name, value in {**record.content["packages"], **record.content["module"]}.items():
        print(f"{name}: {value}")
    print(record.content["driver"])
    fb.show_config()
    checks: dict[str, Check] = {
        **{f"native, {_name(dtype)}": lambda d=dtype: native_check(d, record.device) for dtype in DTYPES},
        "triton, float32": lambda: triton_check(torch.float32, record.device),
        "triton, bfloat16": lambda: triton_check(torch.bfloat16, record.device),
        "CUDA graph": lambda: graph_check(record.device),
    }
    with record.interruptible():
        for name, check in checks.items():
            if record.wants(name) and record.has_time(name):
                _run(record, name, check)
    about = record.content["machine"]
    right = sum(row["result"] == "right" for row in record.rows)
    record.headline = f"{about.get('gpu', about['processor'])}: {right} of {len(record.rows)} checks right"
    return record.finish(COLUMNS)


def _run(record: Record, name: str, check: Check) -> None:
    try:
        found, wanted, allowed = (t.detach().double().cpu() for t in check())
    except (BackendError, NotImplementedError) as reason:
        # On a GPU everything must be available; on a processor only some of it is.
        (record.failed if record.device.type == "cuda" else record.not_available)[name] = str(reason)
        return
    except Exception as problem:  # the other checks are still worth knowing
        record.fail(name, problem)
        return
    error = (found - wanted).abs()
    right = bool((error <= allowed).all())  # false where one is NaN
    row = {"check": name, "largest error": float(error.max()), "allowed": float(allowed.max())}
    record.rows.append({**row, "result": "right" if right else "WRONG"})
    if not right:
        record.failed[name] = f"off by {float(error.max()):.3g} where {float(allowed.max()):.3g} is allowed"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gamma(terms: int, dtype: torch.dtype) -> float:
    unit = torch.finfo(dtype).eps / 2
    return terms * unit / (1 - terms * unit)


def native_check(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """ReLU of intervals by the native pass: centers and radii found and wanted, and the allowed error."""
    if device.type == "cuda":
        problem = _C.cuda_problem(device.index or 0) if _C.built_with_cuda else "the module was built without CUDA"
        if problem:
            raise BackendError(problem)
    generator = torch.Generator().manual_seed(1)
    stack = torch.randn(1, 3, 5, 4, 4, generator=generator, dtype=torch.float64).to(device, dtype)
    radius = torch.rand(3, 5, 4, 4, generator=generator, dtype=torch.float64).to(device, dtype)
    with fb.use_backend("native"):
        found = torch.cat([t.flatten() for t in fb.ops.interval_norm_relu(stack, radius)])
    center, wide = stack[0].double(), radius.double()
    lower, upper = (center - wide).relu(), (center + wide).relu()
    wanted = torch.cat([((upper + lower) / 2).flatten(), ((upper - lower) / 2).flatten()])
    computed = torch.promote_types(dtype, torch.float32)
    allowed = _gamma(ROUNDINGS, computed) * (center.abs() + wide).flatten().repeat(2)
    return found, wanted, allowed + torch.finfo(dtype).eps * wanted  # rounded once more to what is stored


def triton_check(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """A product of intervals in IEEE float32, or of exact bfloat16 terms summed in float32."""
    generator = torch.Generator().manual_seed(2)
    shapes = ((1, 70, 96), (70, 96), (72, 96))
    stack, radius, weight = (torch.randn(s, generator=generator, dtype=torch.float64).to(device, dtype) for s in shapes)
    radius = radius.abs()
    with products_in("ieee"), fb.use_backend("triton"):
        values, widths = fb.ops.interval_linear(stack, radius, weight)
    s, r, w = stack[0].double(), radius.double(), weight.double()
    wanted = torch.cat([(s @ w.T).flatten(), (r @ w.abs().T).flatten()])
    magnitudes = torch.cat([(s.abs() @ w.abs().T).flatten(), (r @ w.abs().T).flatten()])
    # Tensor cores may cut where a sum rounds: twice the unit an addition.
    allowed = _gamma(2 * weight.shape[1], torch.float32) * magnitudes
    return torch.cat([values[0].flatten(), widths.flatten()]), wanted, allowed + torch.finfo(dtype).eps * wanted.abs()


def graph_check(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """A captured step, replayed on numbers that it was not recorded with."""
    if device.type != "cuda":
        raise NotImplementedError("a CUDA graph needs CUDA")
    step = capture(lambda x: {"doubled": 2 * x}, (torch.zeros(4, device=device),))
    for turn in range(6):
        x = torch.arange(4.0, device=device) + turn
        found = step(x)["doubled"]
    return found.clone(), 2 * x, torch.zeros(4)


def _driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "nvidia-smi: not found"
    query = "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,temperature.gpu,power.limit"
    try:
        done = subprocess.run([tool, query, "--format=csv"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"nvidia-smi: {problem}"
    return (done.stdout or done.stderr).strip()


if __name__ == "__main__":
    sys.exit(main())
