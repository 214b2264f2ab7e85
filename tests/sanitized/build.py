"""Builds fastbound._C with AddressSanitizer and UndefinedBehaviorSanitizer, and puts it in the place of the usual one.

The sanitizers' own libraries come before all others in a process, so it is started with `environment`; in it, `install`
is called before fastbound is imported. `build` takes another source and folder, such as those of the emulated CUDA.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / f"sanitized-{sys.implementation.cache_tag}"
EXIT = 86  # of a process that a sanitizer ends


def build(source: Path = ROOT, folder: Path = BUILD) -> Path:
    """The module, compiled anew where its sources changed."""
    import pybind11

    configure = [
        *("cmake", "-S", source, "-B", folder, "-G", "Ninja", "-DFASTBOUND_SANITIZE=ON"),
        *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"),
    ]
    for command in (configure, ["cmake", "--build", folder]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise SystemExit(f"the sanitized build failed:\n{done.stdout[-5000:]}")
    return folder / "_C.so"


def environment() -> dict[str, str]:
    """That of a process that loads the module."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    # libstdc++ too: AddressSanitizer looks for its exceptions before torch loads it.
    libraries = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")
    ]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:alloc_dealloc_mismatch=0:exitcode={EXIT}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:exitcode={EXIT}",
    }


def install(binary: Path) -> None:
    """Makes it fastbound._C; fastbound must not have been imported."""
    assert "fastbound" not in sys.modules
    os.environ.pop("LD_PRELOAD", None)  # not for the programs that torch starts
    spec = importlib.util.spec_from_file_location("fastbound._C", binary)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fastbound._C"] = module
    spec.loader.exec_module(module)
