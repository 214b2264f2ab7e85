"""Fills Triton's cache for an absent card, by the same calls of the kernels as in the suite and the tests.

    TRITON_CACHE_DIR=DIR TRITON_STORE_BINARY_ONLY=1 python -m bench.gpu.precompile [--card sm_90] [--few]

A launch then only compiles for the card, in the specialisation that its arguments ask for: the results of the calls are
not computed, and no value is read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
import triton

import fastbound as fb
from bench.gpu import convolutions, package, tune
from bench.gpu.absent_card import Used, compiling_for, stub_of_the_driver
from bench.gpu.ceilings import products_in
from bench.gpu.environment import triton_check
from bench.gpu.order import NETWORK_TESTS, TUNED, gpu_tests
from fastbound import backends
from fastbound.kernels import _ahead_of_time, _configurations


class AsIfOnTheCard:
    """A pytest plugin: tests for device "cuda" make their calls on the CPU; their assertions mean nothing."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = []
        for item in items:
            parameters = getattr(item, "callspec", None) and item.callspec.params
            if parameters and parameters.get("device") == "cuda":
                parameters["device"] = "cpu"
                item.own_markers = [mark for mark in item.own_markers if mark.name not in ("skip", "skipif")]
                kept.append(item)
        items[:] = kept
        for module in {item.module for item in kept}:
            if hasattr(module, "available"):
                module.available = _triton_alone
            for name in ("assert_within", "assert_agrees_within"):
                if hasattr(module, name):
                    setattr(module, name, lambda *_, **__: None)


def _triton_alone(stem: str, device: str, dtype: torch.dtype) -> list[str]:
    return ["triton"] if backends._load("triton", stem, device, dtype)[0] is not None else []


def calls_of_tests() -> None:
    files = [str(path) for path in gpu_tests(package.ROOT) if path.name not in NETWORK_TESTS]
    quiet = ["-q", "--no-header", "--no-summary", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore"]
    with tempfile.TemporaryFile("w") as nowhere, contextlib.redirect_stdout(nowhere):
        status = pytest.main(["-m", "gpu", *quiet, *files], plugins=[AsIfOnTheCard()])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"the tests could not be collected (pytest's status {status}), so their kernels are missing")


def calls_of_suite() -> None:
    device = torch.device("cpu")
    for precision in ("bf16", "tf32"):
        with products_in(precision) as dtype, fb.use_backend("triton"):
            for shape in convolutions.FULL:
                tensors = shape.tensors(device, dtype)
                code = backends.find("interval_conv2d", tensors[2])
                for call in convolutions.CALLS.values():
                    call(code, shape, tensors)
    for dtype in (torch.float32, torch.bfloat16):
        triton_check(dtype, device)


def calls_of_tuner(card: str) -> None:
    """Compiles the candidates of the tuner, for the rows that a lease tunes."""
    for key in TUNED:
        for configuration in tune.candidates(key):
            for launch in _ahead_of_time.LAUNCHES[key.split("/")[0]]:
                _ahead_of_time.compiled_as(card, key, launch, configuration)


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--card", default="sm_90", choices=_configurations.cards())
    options.add_argument("--few", action="store_true", help="only the calls of the suite, not those of tests and tuner")
    chosen = options.parse_args(arguments)
    if "TRITON_CACHE_DIR" not in os.environ:
        options.error("TRITON_CACHE_DIR must name the folder to fill")
    started = time.monotonic()
    triton.knobs.cache.manager_class = Used
    with stub_of_the_driver(), compiling_for(chosen.card) as compiled:
        calls_of_suite()
        if not chosen.few:
            calls_of_tests()
            calls_of_tuner(chosen.card)
    for folder in Path(os.environ["TRITON_CACHE_DIR"]).iterdir():
        if folder.name not in Used.folders:
            shutil.rmtree(folder)
    print(f"{len(compiled)} kernels for {chosen.card} in {time.monotonic() - started:.0f} s")
    return 0 if compiled else 1


if __name__ == "__main__":
    sys.exit(main())
