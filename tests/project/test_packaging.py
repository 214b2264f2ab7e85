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
from conftest import ROOT
from cuda_on_cpu.build import find_nvcc

from fastbound import _C, backends

# Native passes that serve several operators, and so have no reference or op of their own.
HELPERS = {"crown_windows", "signed_weight_grad", "swap_axes"}
# No CUDA code: torch's own copy runs at memory speed on a GPU, and full CROWN there takes the plain formulas.
CPU_ALONE = {"swap_axes", "crown_windows"}
# How functions end that exist in a build with CUDA alone.
CUDA_ALONE = ("_cuda", "_workspace")
# Files of primitives/, ops/ and native/ that serve several operators.
SHARED = {"checks", "convolution", "autocast", "batch_norm", "layout", "product"}


def stems(folder, pattern="*.py"):
    return {p.stem for p in (ROOT / folder).glob(pattern) if not p.stem.startswith("_")}


def listed():
    return re.findall(r"^FASTBOUND_OP\((\w+)\)$", (ROOT / "csrc/ops.def").read_text(), re.MULTILINE)


def test_ops_def_lists_the_host_files():
    assert len(listed()) == len(set(listed()))
    assert set(listed()) == stems("csrc", "*.cpp") - {"bindings", "isa"}


def test_every_native_operator_has_cpu_and_cuda_code():
    assert stems("csrc/cpu", "*.cpp") == set(listed())
    assert stems("csrc/cuda", "*.cu") == (set(listed()) - CPU_ALONE) | {"device"}


def test_stems_agree_on_every_floor():
    reference = stems("fastbound/reference")
    assert reference, "no reference at all"
    assert stems("fastbound/primitives") - SHARED <= reference
    assert stems("fastbound/ops") - SHARED == reference
    assert stems("fastbound/native") - SHARED - HELPERS <= reference
    assert stems("kernels") <= reference
    assert set(listed()) - HELPERS <= reference
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


def test_every_listed_operator_is_bound():
    names = [name for name in dir(_C) if not name.startswith("_")]
    for stem in listed():
        assert any(name.startswith(stem) for name in names), f"{stem} binds nothing"


def test_the_stub_says_what_is_bound():
    stub = ast.parse((ROOT / "fastbound/_C.pyi").read_text()).body
    written = {f.name: [a.arg for a in f.args.args] for f in stub if isinstance(f, ast.FunctionDef)}
    bound = {
        name: re.findall(r"(\w+): ", function.__doc__.partition(" -> ")[0])
        for name, function in vars(_C).items()
        if callable(function) and not name.startswith("_")
    }
    if not _C.built_with_cuda:
        written = {name: arguments for name, arguments in written.items() if not name.endswith(CUDA_ALONE)}
    assert written == bound


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


def test_every_cpu_function_has_a_cuda_twin():
    if not _C.built_with_cuda:
        pytest.skip("built without CUDA")
    functions = {name for name in dir(_C) if callable(getattr(_C, name)) and not name.startswith("_")}
    functions -= {"cuda_problem"}
    cpu = {name for name in functions if not name.endswith(CUDA_ALONE) and not name.startswith(tuple(CPU_ALONE))}
    assert {name + "_cuda" for name in cpu} == {name for name in functions if name.endswith("_cuda")}
    lent = {name for name in cpu if "workspace" in getattr(_C, f"{name}_cuda").__doc__}
    assert {name + "_workspace" for name in lent} == {name for name in functions if name.endswith("_workspace")}


def test_objects_of_one_instruction_set_share_no_weak_symbol():
    """The linker keeps one copy of a weak symbol: the AVX-512 copy of a shared one would crash other processors."""
    mode = "cuda" if _C.built_with_cuda else "cpu"
    build = ROOT / "build" / f"cmake-{mode}-{sys.implementation.cache_tag}"
    objects = sorted(build.glob("CMakeFiles/cpu_*.dir/csrc/cpu/*.o"))
    nm = shutil.which("nm")
    if not objects or nm is None:
        pytest.skip("needs the build folder of this checkout and nm")
    assert len(objects) % len(listed()) == 0
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
