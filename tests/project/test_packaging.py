"""The promises of CONTRIBUTING.md about adding an operator, and that a build left nothing out."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import write_stub
from conftest import ROOT
from cuda_on_cpu.build import find_nvcc

from fastbound import _C, backends

# Native passes that serve several operators, and so have no reference or op of their own.
HELPERS = {"crown_windows", "signed_weight_grad", "swap_axes"}
# No CUDA code: torch's own copy runs at memory speed on a GPU, and full CROWN there takes the plain formulas.
CPU_ALONE = {"swap_axes", "crown_windows"}
# Files of primitives/, ops/ and native/ that serve several operators.
SHARED = {"checks", "convolution", "autocast", "batch_norm", "layout", "product"}


def stems(folder, pattern="*.py"):
    return {p.stem for p in (ROOT / folder).glob(pattern) if not p.stem.startswith("_")}


def listed():
    """The headers of passes.h, which name what the passes in them are about."""
    return set(re.findall(r'^#include "(\w+)\.h"$', (ROOT / "csrc/passes.h").read_text(), re.MULTILINE))


def declared(stem):
    """The names of the passes that a header declares."""
    return re.findall(r'kName = "(\w+)"', (ROOT / f"csrc/{stem}.h").read_text())


def test_every_declared_pass_is_bound():
    names = [name for stem in listed() for name in declared(stem)]
    assert sorted(names) == sorted(_C.passes), "a pass is missing in FASTBOUND_FOR_EACH_PASS of csrc/passes.h"
    assert all(callable(getattr(_C, name)) for name in names)
    declaring = {path.stem for path in (ROOT / "csrc").glob("*.h") if declared(path.stem)}
    assert declaring == listed(), "a header with passes is missing in csrc/passes.h"


def test_every_pass_has_cpu_and_cuda_code():
    assert stems("csrc/cpu", "*.cpp") == listed()
    assert stems("csrc/cuda", "*.cu") == (listed() - CPU_ALONE) | {"device"}


def test_stems_agree_on_every_floor():
    reference = stems("fastbound/reference")
    assert reference, "no reference at all"
    assert stems("fastbound/primitives") - SHARED <= reference
    assert stems("fastbound/ops") - SHARED == reference
    assert stems("fastbound/native") - SHARED - HELPERS <= reference
    assert stems("kernels") <= reference
    assert listed() - HELPERS <= reference
    assert set(backends.HELPERS) <= stems("fastbound/native") & (SHARED | HELPERS)
    for served in backends.PLAIN.values():
        assert set(served) <= reference - stems("fastbound/native"), "written, and said not to be"


def imports(file):
    """The modules that a file imports, and the names that it takes from packages, as dotted paths."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_code_is_chosen_by_backends_alone():
    """The reference is the oracle and a backend, not a place for shared definitions; no backend imports another."""
    for file in (ROOT / "fastbound").rglob("*.py"):
        floor = file.relative_to(ROOT / "fastbound").parts[0]
        imported = {path.split(".")[1] for path in imports(file) if path.startswith("fastbound.")}
        foreign = imported & {"reference", "native", "kernels"} - {floor}
        assert not foreign or floor == "backends.py", f"{file} imports {foreign}; ask fastbound.backends"


def test_the_stub_is_that_of_the_module():
    assert (ROOT / "fastbound/_C.pyi").read_text() == write_stub.stub(), "run `make stub`"


def test_the_stub_follows_a_new_pass(monkeypatch):
    """What it says of an argument of every kind; its syntax is that of Python."""
    count = {"name": "count", "kind": "integer", "least": 0}
    fields = [
        {"name": "classes", "kind": "integer", "least": 1},
        {"name": "mode", "kind": "integer", "least": 0, "most": 2},
        {"name": "slope", "kind": "number", "least": 0.0, "most": 1.0},
        {"name": "x", "kind": "in", "shape": ["count", "classes - 1"], "element": "stored", "or_null": False},
        {"name": "y", "kind": "in", "shape": ["count", "classes - 1"], "element": "stored", "or_null": False},
        {"name": "labels", "kind": "in", "shape": ["count"], "element": "int64", "or_null": False, "end": "classes"},
        {"name": "out", "kind": "out", "shape": ["8"], "element": "computed", "or_null": True},
    ]
    monkeypatch.setitem(_C.passes, "new_pass", [count, *fields])
    text = write_stub.stub()
    assert text.endswith(
        """def new_pass(
    count: int, classes: int, mode: int, slope: float,
    x: Tensor, y: Tensor,  # [count, classes - 1]
    labels: Tensor,  # [count], int64, below classes
    out: Tensor | None,  # [8], computed, written
    /) -> None: ...
"""
    )
    assert text != (ROOT / "fastbound/_C.pyi").read_text()
    ast.parse(text)


def test_kernels_are_a_subpackage():
    import fastbound.kernels

    installed = Path(next(iter(fastbound.kernels.__path__)))
    assert (installed / "__init__.py").read_text() == (ROOT / "kernels/__init__.py").read_text()
    assert 'package_dir={"fastbound": "fastbound", "fastbound.kernels": "kernels"}' in (ROOT / "setup.py").read_text()


def test_cuda_was_not_left_out():
    if os.environ.get("FASTBOUND_CUDA", "auto").lower() == "off":
        pytest.skip("FASTBOUND_CUDA=off")
    if find_nvcc() is None:
        pytest.skip("no nvcc here: the CUDA sources cannot be compiled")
    assert _C.built_with_cuda, "nvcc works, but fastbound._C was built without CUDA; rebuild and read its output"
    assert any(arch.endswith("-real") for arch in _C.cuda_archs)
    binary = Path(_C.__file__).read_bytes()
    for source in sorted((ROOT / "csrc/cuda").glob("*.cu*")):
        # Between __global__ and the name may stand void and launch bounds.
        kernels = re.findall(r"__global__[\w\s():,]*?\b(\w+_kernel)\(", source.read_text())
        assert len(kernels) == source.read_text().count("__global__"), f"{source.name} has a kernel of another name"
        assert kernels or source.suffix == ".cuh", f"{source.name} has no kernel called <something>_kernel"
        for kernel in kernels:
            assert kernel.encode() in binary, f"{kernel} of {source.name} is not in the module"


def test_objects_of_one_instruction_set_share_no_weak_symbol():
    """The linker keeps one copy of a weak symbol: the AVX-512 copy of a shared one would crash other processors."""
    mode = "cuda" if _C.built_with_cuda else "cpu"
    build = ROOT / "build" / f"cmake-{mode}-{sys.implementation.cache_tag}"
    objects = sorted(build.glob("CMakeFiles/cpu_*.dir/csrc/cpu/*.o"))
    nm = shutil.which("nm")
    if not objects or nm is None:
        pytest.skip("needs the build folder of this checkout and nm")
    isas = {re.search(r"cpu_(\w+)\.dir", str(file)).group(1) for file in objects}
    assert len(objects) == len(isas) * len(listed())
    for file in objects:
        isa = re.search(r"cpu_(\w+)\.dir", str(file)).group(1)
        symbols = subprocess.run([nm, "-C", str(file)], capture_output=True, text=True, check=True).stdout
        weak = [line for line in symbols.splitlines() if re.match(r"^[0-9a-f ]+ [WVu] ", line)]
        foreign = [line for line in weak if f"fastbound::{isa}::" not in line]
        assert not foreign, f"{file.name} ({isa}): {foreign}"


def test_module_needs_no_torch_and_no_driver():
    ldd = shutil.which("ldd")
    if ldd is None:
        pytest.skip("needs ldd")
    listing = subprocess.run([ldd, _C.__file__], capture_output=True, text=True, check=True).stdout
    needed = [line.split()[0] for line in listing.splitlines()]  # not the load addresses, whose digits may spell c10
    assert any(name.startswith("libstdc++") for name in needed), listing
    for library in ("torch", "c10", "cudart", "libcuda"):
        assert not [name for name in needed if library in name], listing


def test_every_environment_variable_is_documented():
    documented = (ROOT / "ENVS.md").read_text()
    files = [ROOT / "setup.py", *(ROOT / "csrc").rglob("*.cpp"), *(ROOT / "fastbound").rglob("*.py")]
    used = {name for file in files for name in re.findall(r"""["'](FASTBOUND_[A-Z_]+)["']""", file.read_text())}
    assert {"FASTBOUND_CUDA", "FASTBOUND_ISA"} <= used
    for name in used:
        assert name in documented, f"{name} is missing from ENVS.md"


def test_version_has_one_place():
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert importlib.metadata.version("fastbound") == version
    for file in [ROOT / "setup.py", ROOT / "CMakeLists.txt", *(ROOT / "fastbound").rglob("*.py")]:
        assert f'"{version}"' not in file.read_text(), f"{file} repeats the version"
