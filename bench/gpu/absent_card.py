"""Compiling for an absent card: a launch of a Triton kernel compiles it and its launcher, and runs nothing."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.cache import FileCacheManager
from triton.runtime.jit import JITFunction

from fastbound import backends
from fastbound.kernels import _configurations


class Used(FileCacheManager):
    """Triton's cache; it remembers which folders were used: all others belong to sources that have changed."""

    folders: ClassVar[set[str]] = set()

    def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
        super().__init__(key, override, dump)
        self.folders.add(key)


class AbsentCard:
    """A driver that answers Triton's questions before a compilation, for a card given by its name."""

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
    """Inside, `use_backend("triton")` takes CPU tensors and only compiles for `card`; yields the hashes of kernels."""
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
        return importlib.import_module(f"fastbound.kernels.{stem}")
    except ModuleNotFoundError:
        return None


_launchers_work = True


def _build_launcher(kernel: Any) -> None:
    """Builds the C function that launches a kernel, linked to a stub of the driver's library."""
    global _launchers_work
    if not _launchers_work:
        return
    from triton.backends.nvidia.driver import CudaLauncher, CudaUtils

    try:
        CudaUtils()
        CudaLauncher(kernel.src, kernel.metadata)
    except Exception as problem:  # not needed: the machine with the card builds one in a fraction of a second
        _launchers_work = False
        print(f"launchers are left to the machine of the card ({problem})", flush=True)


@contextlib.contextmanager
def stub_of_the_driver() -> Iterator[None]:
    """An empty library with the driver's name, so that launchers link and load without a driver."""
    flags, compiler = sys.getdlopenflags(), os.environ.get("CC")
    with tempfile.TemporaryDirectory() as folder:
        library, wrapper = Path(folder) / "libcuda.so.1", Path(folder) / "cc"
        found = compiler or shutil.which("gcc") or shutil.which("cc")
        empty = ["-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
        if found is None or subprocess.run([found, *empty]).returncode:
            yield
            return
        # A launcher must link the library although the stub is empty: on the machine with the card it is the real one.
        wrapper.write_text(f'#!/bin/sh\nexec "{found}" -Wl,--no-as-needed "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        triton.knobs.nvidia.libcuda_path = folder
        os.environ["CC"] = str(wrapper)
        sys.setdlopenflags(os.RTLD_LAZY)  # missing symbols only matter to a launch, and there is none
        try:
            yield
        finally:
            triton.knobs.nvidia.libcuda_path = None
            sys.setdlopenflags(flags)
            if compiler is None:
                del os.environ["CC"]
            else:
                os.environ["CC"] = compiler
