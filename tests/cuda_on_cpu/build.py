"""Builds and loads the extension whose CUDA kernels run on the processor (see cuda/launch.cuh in this folder)."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / f"cuda-on-cpu-{sys.implementation.cache_tag}"


def find_nvcc() -> str | None:
    """The first nvcc that runs, in the places where setup.py looks."""
    home = os.environ.get("CUDA_HOME")
    for candidate in (os.environ.get("CUDACXX"), home and f"{home}/bin/nvcc", "nvcc", "/usr/local/cuda/bin/nvcc"):
        found = candidate and shutil.which(candidate)
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    return None


@cache
def load() -> ModuleType:
    """The module; skips the test if there is no CUDA toolkit, whose headers it needs."""
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc here, whose headers define half precision")
    plan = subprocess.run([nvcc, "--dryrun", "-c", "any.cu"], capture_output=True, text=True).stderr
    found = re.search(r"^#\$ TOP=(.+)$", plan, re.MULTILINE)
    assert found, f"{nvcc} --dryrun names no folder of its toolkit:\n{plan}"
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:  # of tests that run side by side, one builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build(f"{found[1]}/include")
    (binary,) = BUILD.glob("cuda_on_cpu*.so")
    spec = importlib.util.spec_from_file_location("cuda_on_cpu", binary)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(cuda_include: str) -> None:
    import pybind11

    subprocess.run(
        [
            *("cmake", "-S", HERE, "-B", BUILD, "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"),
            *(f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DCUDA_INCLUDE={cuda_include}"),
        ],
        check=True,
        capture_output=True,
    )
    done = subprocess.run(["cmake", "--build", BUILD], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
