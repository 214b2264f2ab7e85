"""Runs every primitive once, forward and backward, on the small samples of the contract suite, for the sanitizer.

Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1, so that each tensor is an allocation of its own and an access past its
end is seen. The tests compare values; this does not.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

import torch
from torch import Tensor

import fastbound as fb
from fastbound import backends, ops
from fastbound.errors import BackendError

DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float32, torch.float64, torch.float16, torch.bfloat16)}


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cuda", type=torch.device)
    options.add_argument("--backend", action="append", choices=("native", "triton"), help="both by default")
    options.add_argument("--dtype", action="append", choices=tuple(DTYPES), help="all by default")
    options.add_argument("--limit", type=int, help="the first samples of a primitive alone")
    chosen = options.parse_args(arguments)
    launched = 0
    for backend in chosen.backend or ("native", "triton"):
        for stem in backends.primitives():
            for name in chosen.dtype or DTYPES:
                count = _launch(stem, backend, DTYPES[name], chosen.device, chosen.limit)
                launched += count
                print(f"{backend} {stem} {name}: {f'{count} samples' if count else 'not served'}", flush=True)
    print(f"{launched} samples in all")
    return 0 if launched else 1


def _launch(stem: str, backend: str, dtype: torch.dtype, device: torch.device, limit: int | None) -> int:
    """How many samples ran forward and backward; 0 if the backend does not serve the primitive in this dtype."""
    reference = importlib.import_module(f"fastbound.reference.{stem}")
    samples = reference.samples(dtype, device, torch.Generator().manual_seed(1))[:limit]
    with fb.use_backend(backend):
        try:
            backends.find(stem, torch.empty(0, device=device, dtype=dtype))
        except BackendError:
            return 0
        for _, arguments in samples:
            _forward_backward(getattr(ops, stem), arguments)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return len(samples)


def _forward_backward(operator: Any, arguments: tuple[Any, ...]) -> None:
    arguments = tuple(_leaf(value) for value in arguments)
    outputs = operator(*arguments)
    outputs = [out for out in (outputs if isinstance(outputs, tuple) else (outputs,)) if out.requires_grad]
    leaves = [value for value in arguments if isinstance(value, Tensor) and value.requires_grad]
    if outputs and leaves:
        torch.autograd.grad(outputs, leaves, [torch.randn_like(out) for out in outputs], allow_unused=True)


def _leaf(value: Any) -> Any:
    return value.requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value


if __name__ == "__main__":
    sys.exit(main())
