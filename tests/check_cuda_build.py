"""Compiles every CUDA source as the build does, with warnings as errors, and prints the resources of each kernel.

    python tests/check_cuda_build.py [NVCC]

One line a kernel: registers a thread, bytes of shared memory a block, stack and spilled bytes, for each architecture.
A spill, a warning, a missing architecture or missing PTX ends with exit code 1. Needs no GPU.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Usage:
    """The resources of one kernel on one architecture, as ptxas reports them."""

    kernel: str  # with its template arguments
    architecture: str
    registers: int
    shared: int
    stack: int
    spilled: int  # bytes stored and loaded

    def __str__(self) -> str:
        kept = f"{self.architecture}: {self.registers:3} registers, {self.shared:5} B shared"
        return kept if self.stack + self.spilled == 0 else f"{kept}, {self.stack} B stack, {self.spilled} B SPILLED"


def architectures() -> list[str]:
    """The architectures of the build, written as in CMake: 80-real, 90a-real, 90-virtual."""
    found = re.search(r'CMAKE_CUDA_ARCHITECTURES "([^"]+)"', (ROOT / "CMakeLists.txt").read_text())
    assert found, "CMakeLists.txt sets no CMAKE_CUDA_ARCHITECTURES"
    return found[1].split(";")


def compile_source(nvcc: str, source: Path) -> tuple[str, bytes]:
    """The output of nvcc and ptxas for ``source``, and the object file. Raises RuntimeError on errors and warnings."""
    code = [
        f"-gencode=arch=compute_{number},code={'sm' if kind == 'real' else 'compute'}_{number}"
        for number, kind in (name.split("-") for name in architectures())
    ]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "object.o"
        flags = ["-std=c++17", "-O3", "--fmad=false", "-Werror=all-warnings", "-Xptxas=-v", "--no-compress"]
        command = [nvcc, *flags, *code, f"-I{ROOT / 'csrc'}", "-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{source.name}: nvcc failed\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr, target.read_bytes()


def parse(output: str) -> list[Usage]:
    """The kernels in the output of ``ptxas -v``."""
    demangled = subprocess.run([shutil.which("c++filt") or "c++filt"], input=output, capture_output=True, text=True)
    pattern = re.compile(
        r"Compiling entry function '(?P<name>.+)' for '(?P<architecture>\w+)'\n"
        r"(?:(?!Compiling entry).*\n)*?"
        r"\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
        r".*Used (?P<registers>\d+) registers(?P<rest>.*)"
    )
    found = []
    for match in pattern.finditer(demangled.stdout):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        name = re.search(r"(\w+)(<[^()]*>)?\(", match["name"].replace("(anonymous namespace)::", ""))
        found.append(
            Usage(
                name[0][:-1] if name else match["name"],
                match["architecture"],
                int(match["registers"]),
                int(shared[1]) if shared else 0,
                int(match["stack"]),
                int(match["stores"]) + int(match["loads"]),
            )
        )
    return found


def problems(source: Path, usages: Iterable[Usage], binary: bytes) -> list[str]:
    """The problems of one compiled source."""
    usages = list(usages)
    wrong = [f"{source.name}: {u.kernel} spills: {u}" for u in usages if u.spilled > 0]
    for name in architectures():
        number, kind = name.split("-")
        if kind == "real" and not any(u.architecture == f"sm_{number}" for u in usages):
            wrong.append(f"{source.name}: no kernel for sm_{number}")
        if kind == "virtual" and f".target sm_{number}".encode() not in binary:
            wrong.append(f"{source.name}: no PTX for compute_{number}")
    return wrong


def main(nvcc: str) -> int:
    sources = sorted((ROOT / "csrc/cuda").glob("*.cu"))
    wrong = [] if sources else ["no CUDA sources"]
    with ThreadPoolExecutor(2) as pool:
        for source, (output, binary) in zip(sources, pool.map(lambda s: compile_source(nvcc, s), sources)):
            usages = parse(output)
            for kernel in sorted({u.kernel for u in usages}):
                print(f"{kernel:52} " + "; ".join(str(u) for u in usages if u.kernel == kernel))
            wrong += problems(source, usages, binary)
    for line in wrong:
        print(f"ERROR: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "nvcc"))
