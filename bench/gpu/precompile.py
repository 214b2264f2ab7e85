"""Fills Triton's cache for a card that is not there, by the very calls that suite and tests make of the kernels.

    TRITON_CACHE_DIR=DIR TRITON_STORE_BINARY_ONLY=1 python -m bench.gpu.precompile [--card sm_90] [--few]

A launch then compiles for the card, in the specialisation that its arguments ask for, and runs nothing: what the
calls return is not computed, and no value is looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.cache import FileCacheManager
from triton.runtime.jit import JITFunction

import fastbound as fb
from bench.gpu import convolutions, package, tune
from bench.gpu.ceilings import products_in
from bench.gpu.order import TUNED
from fastbound import backends
from fastbound.errors import BackendError
from fastbound.kernels import _configurations

TESTS = ("test_contract.py", "test_triton_values.py", "test_lipschitz_power.py")


class Used(FileCacheManager):
    """Triton's cache, remembering the folders that were asked for: all others are of sources that have changed."""

    folders: ClassVar[set[str]] = set()

    def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
        super().__init__(key, override, dump)
        self.folders.add(key)


class AbsentCard:
    """What Triton asks of its driver to compile, answered for a card by its name."""

    def __init__(self, card: str) -> None:
        self._target = GPUTarget("cuda", int(card.removeprefix("sm_")), 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


@contextlib.contextmanager
def compiling_for(card: str) -> Iterator[set[str]]:
    """Inside, `use_backend("triton")` serves CPU tensors by compiling for `card` alone; gives the kernels' hashes."""
    launch, driver = JITFunction.run, triton.runtime.driver
    active = driver._active
    compiled: set[str] = set()

    def compile_alone(self: Any, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> Any:
        kernel = launch(self, *arguments, grid=grid, warmup=True, **constants)
        if kernel.hash not in compiled:
            compiled.add(kernel.hash)
            _build_launcher(kernel)
        return kernel

    known = _configurations._capability
    served = [stem for stem in backends.primitives() if _module(stem) is not None]
    refusals = {stem: _module(stem).unsupported for stem in served}
    try:
        driver.set_active(AbsentCard(card))
        JITFunction.run = compile_alone
        _configurations._capability = lambda index: card
        for stem in served:
            _module(stem).unsupported = lambda device_type, dtype: None
        backends._select.cache_clear()
        yield compiled
    finally:
        JITFunction.run, _configurations._capability = launch, known
        for stem, refusal in refusals.items():
            _module(stem).unsupported = refusal
        driver.set_active(active)
        backends._select.cache_clear()


def _module(stem: str) -> Any:
    try:
        return backends.importlib.import_module(f"fastbound.kernels.{stem}")
    except ModuleNotFoundError:
        return None


_launchers_work = True


def _build_launcher(kernel: Any) -> None:
    """The C function behind a launch, which Triton compiles too. Linked to a stub of the driver's library."""
    global _launchers_work
    if not _launchers_work:
        return
    from triton.backends.nvidia.driver import CudaLauncher, CudaUtils

    try:
        CudaUtils()
        CudaLauncher(kernel.src, kernel.metadata)
    except Exception as problem:  # they are small: the card's machine builds them in a fraction of a second each
        _launchers_work = False
        print(f"launchers are left to the machine of the card ({problem})", flush=True)


class AsIfOnTheCard:
    """For pytest: tests of device "cuda" run their calls on the CPU; nothing that they assert means anything."""

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
    files = [str(package.ROOT / "tests" / name) for name in TESTS if (package.ROOT / "tests" / name).exists()]
    quiet = ["-q", "--no-header", "--no-summary", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore"]
    with tempfile.TemporaryFile("w") as nowhere, contextlib.redirect_stdout(nowhere):
        pytest.main(["-m", "gpu", *quiet, *files], plugins=[AsIfOnTheCard()])


def calls_of_suite() -> None:
    device = torch.device("cpu")
    for precision in ("bf16", "tf32"):
        with products_in(precision) as dtype, fb.use_backend("triton"):
            for shape in convolutions.FULL:
                tensors = shape.tensors(device, dtype)
                code = backends.find("interval_conv2d", tensors[2])
                for call in convolutions.CALLS.values():
                    call(code, shape, tensors)
    with contextlib.suppress(BackendError), fb.use_backend("triton"):
        from bench.gpu.environment import _triton

        for dtype in (torch.float32, torch.bfloat16):
            _triton(dtype, device)


def calls_of_tuner(card: str) -> None:
    """What the tuner compiles ahead of time to choose whom it times, for the rows that a lease tunes."""
    for key in TUNED:
        tune.usable(card, key, tune.Deadline.after(None))


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--card", default="sm_90", choices=_configurations.cards())
    options.add_argument("--few", action="store_true", help="only the calls of the suite, not those of tests and tuner")
    chosen = options.parse_args(arguments)
    if "TRITON_CACHE_DIR" not in os.environ:
        options.error("TRITON_CACHE_DIR must name the folder to fill")
    started = time.monotonic()
    triton.knobs.cache.manager_class = Used
    with _stub_of_the_driver(), compiling_for(chosen.card) as compiled:
        calls_of_suite()
        if not chosen.few:
            calls_of_tests()
            calls_of_tuner(chosen.card)
    for folder in Path(os.environ["TRITON_CACHE_DIR"]).iterdir():
        if folder.name not in Used.folders:
            shutil.rmtree(folder)
    print(f"{len(compiled)} kernels for {chosen.card} in {time.monotonic() - started:.0f} s")
    return 0 if compiled else 1


@contextlib.contextmanager
def _stub_of_the_driver() -> Iterator[None]:
    """An empty library of the driver's name, so that launchers link and load where there is no driver."""
    flags = sys.getdlopenflags()
    with tempfile.TemporaryDirectory() as folder:
        command = ["cc", "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1", "-o", f"{folder}/libcuda.so.1"]
        if shutil.which("cc") is None or subprocess.run(command).returncode:
            yield
            return
        ctypes.CDLL(f"{folder}/libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
        triton.knobs.nvidia.libcuda_path = folder
        sys.setdlopenflags(os.RTLD_LAZY)  # what is missing is missed by a launch, and there is none
        try:
            yield
        finally:
            triton.knobs.nvidia.libcuda_path = None
            sys.setdlopenflags(flags)


if __name__ == "__main__":
    sys.exit(main())
