"""Builds fastbound._C with CMake and ninja; everything else about the package is in pyproject.toml.

FASTBOUND_CUDA=auto (default) compiles the CUDA sources if nvcc is found; if nvcc then fails, it prints a warning and
builds without CUDA. `on` fails instead; `off` never looks for nvcc.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def find_nvcc():
    """The first nvcc in CUDACXX, CUDA_HOME, PATH and the usual folder, or None."""
    home = os.environ.get("CUDA_HOME")
    for candidate in (os.environ.get("CUDACXX"), home and f"{home}/bin/nvcc", "nvcc", "/usr/local/cuda/bin/nvcc"):
        found = candidate and shutil.which(candidate)
        if found:
            return found
    return None


class CMakeBuild(build_ext):
    """Runs CMake in a build folder for each mode and interpreter, so that a rebuild compiles only what changed."""

    def build_extension(self, ext):
        mode = os.environ.get("FASTBOUND_CUDA", "auto").lower()
        if mode not in ("auto", "on", "off"):
            raise RuntimeError(f"FASTBOUND_CUDA must be auto, on or off, got {mode!r}")
        nvcc = None if mode == "off" else find_nvcc()
        if mode == "on" and nvcc is None:
            raise RuntimeError("FASTBOUND_CUDA=on, but no nvcc in CUDACXX, CUDA_HOME/bin, PATH or /usr/local/cuda/bin")
        if nvcc is not None:
            try:
                self.cmake(ext, nvcc)
                return
            except subprocess.CalledProcessError as error:
                if mode == "on":
                    raise
                say(f"WARNING: building with {nvcc} failed ({error}); continuing WITHOUT CUDA")
        self.cmake(ext, None)

    def cmake(self, ext, nvcc):
        import pybind11

        say(
            f"FASTBOUND_CUDA={os.environ.get('FASTBOUND_CUDA', 'auto')}: building fastbound._C "
            + (f"WITH CUDA, {nvcc}" if nvcc else "without CUDA")
        )
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        tag = f"{'cuda' if nvcc else 'cpu'}-{sys.implementation.cache_tag}"
        build = ROOT / "build" / f"cmake-{tag}"
        build.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DFASTBOUND_WITH_CUDA={'ON' if nvcc else 'OFF'}",
        ]  # fmt: skip
        if nvcc:
            command.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
        subprocess.run(command, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)
        # Moved into place as a new file, never overwritten: a running process may have mapped the old one.
        fresh = target.with_name(target.name + ".new")
        shutil.copyfile(build / "_C.so", fresh)
        os.replace(fresh, target)


def say(line):
    # pip shows the output of a build only with -v or on failure; stderr keeps the lines in order in both cases.
    print(f"fastbound: {line}", file=sys.stderr, flush=True)


setup(
    packages=[*find_packages(include=["fastbound", "fastbound.*"]), "fastbound.assets", "fastbound.kernels"],
    package_dir={"fastbound": "fastbound", "fastbound.kernels": "kernels"},
    ext_modules=[Extension("fastbound._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
