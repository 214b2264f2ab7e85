"""Compiles the kernels without a GPU, and reads from the binaries which resources they need.

The tools that read the binary (`cuobjdump`, `nvdisasm`) come with Triton. Arguments are specialised as the launcher
does it for aligned tensors: addresses, strides and channel counts are multiples of 16, the innermost stride is 1.

If ptxas serialises the products of a warp group (its warning C7515), the group waits for each one before it issues
the next, and its tensor cores idle in between. Such rows of a shipped table are marked, by launch and series
of Triton: ``"serialised": {"forward": ["3.6", "3.9"]}``.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastbound.kernels._configurations import Configuration, table
from fastbound.kernels._power import conv2d_kernel, linear_kernel, unit_kernel
from fastbound.kernels._precision import dot_precision
from fastbound.kernels._product import product_kernel
from fastbound.kernels._weight_gradient import weight_gradient_kernel

POINTERS = {
    *("out", "out_radius", "constant", "stack", "radius", "weight", "bias", "scale", "map_bias"),
    *("grad", "grad_radius", "vector", "maps"),
}
SQUARES = {"squares", "out_squares"}  # float64 in all precisions
TYPES = {"bf16": "*bf16", "fp16": "*fp16"}  # of the tensors; all other precisions are of float32
SHARED_MEMORY = {"sm_90": 232448}  # bytes that one program can have

FUNCTIONS = {
    "interval_product": product_kernel,
    "rows_product": product_kernel,
    "interval_weight_gradient": weight_gradient_kernel,
    "rows_weight_gradient": weight_gradient_kernel,
    "power_linear": linear_kernel,
    "power_conv2d": conv2d_kernel,
}
SERIES = ".".join(triton.__version__.split(".")[:2])  # of Triton: each brings a compiler of its own
UNIT = "unit vector"  # the last launch of a power iteration, which has a kernel of its own

# The launches of each kernel. Forward, W is read along its rows (weight_channel 1), transposed along its columns.
_FORWARD = {"BIAS": True, "SCALED": False, "BIAS_SUM": False, "weight_channel": 1}
_TRANSPOSED = {"BIAS": False, "SCALED": False, "BIAS_SUM": False, "weight_feature": 1}
_INTERVAL, _CENTER, _ROWS = ({"STREAMS": n, "RADIUS": radius} for n, radius in ((2, True), (1, True), (1, False)))
LAUNCHES: dict[str, dict[str, dict[str, Any]]] = {
    "interval_product": {
        "forward": {**_FORWARD, **_INTERVAL},
        "forward, center only": {**_FORWARD, **_CENTER},
        "input gradient": {**_TRANSPOSED, **_INTERVAL},
        "input gradient, center only": {**_TRANSPOSED, **_CENTER},
    },
    "rows_product": {
        "forward": {**_TRANSPOSED, **_ROWS, "BIAS_SUM": True},
        "input gradient": {**_FORWARD, **_ROWS, "SCALED": True},
    },
    "interval_weight_gradient": {"weight gradient": _INTERVAL, "weight gradient, center only": _CENTER},
    "rows_weight_gradient": {"weight gradient": _ROWS},
    "power_linear": {
        "forward": {"NORMALISE": True, "weight_channel": 1},
        "forward, first": {"NORMALISE": False, "weight_channel": 1},
        "transposed": {"NORMALISE": True, "weight_feature": 1},
        UNIT: {"NORMALISE": True},
    },
    "power_conv2d": {
        "forward": {"NORMALISE": True, "SPREAD": False},
        "forward, first": {"NORMALISE": False, "SPREAD": False},
        "transposed, strided": {"NORMALISE": True, "SPREAD": True},
    },
}
# Pointers that are None if a flag is off.
ABSENT = {
    "RADIUS": ("out_radius", "radius", "grad_radius"),
    "BIAS": ("bias",),
    "SCALED": ("scale",),
    "BIAS_SUM": ("constant", "map_bias"),
    "NORMALISE": ("squares",),
}


@dataclass(frozen=True)
class KernelReport:
    """The resources of a compiled kernel.

    ``spills``: instructions that store to or load from local memory. ``tensor_cores``: products of a warp group.
    ``waits``: the products among them after which the warp group waits until all are done. ``matrix``: products of
    tensor cores of any kind.
    """

    key: str
    launch: str
    registers: int
    spills: int
    shared: int
    tensor_cores: int
    waits: int
    matrix: int

    @property
    def serialised(self) -> bool:
        """Whether a full wait follows every product: ptxas serialises all products of a kernel, or none."""
        return 0 < self.tensor_cores == self.waits

    def problem(self, card: str) -> str | None:
        """Why such a kernel is unusable, or None. A serialised one is correct, but slow."""
        if self.spills:
            return "registers spill"
        if self.shared > SHARED_MEMORY[card]:
            return f"more shared memory than {card} has"
        if "/ieee/" not in self.key and not self.tensor_cores:
            return "no tensor-core instruction"
        if "/ieee/" in self.key and self.matrix:
            return "IEEE float32 on tensor cores, which round what they multiply"
        return None

    def objection(self, card: str) -> str | None:
        """Why this kernel may not stand in the table of ``card`` as it does, or None: a problem or a wrong mark."""
        problem = self.problem(card)
        if problem is not None:
            return problem
        marked = SERIES in table(card)[self.key].get("serialised", {}).get(self.launch, ())
        counts = f"{self.waits} full waits after {self.tensor_cores} wgmma"
        if self.serialised and not marked:
            return f"tensor cores are serialised, {counts}, and {card}.json has no mark of it for Triton {SERIES}"
        if marked and not self.serialised:
            return f"no longer serialised, {counts}: {card}.json still has a mark of it for Triton {SERIES}"
        return None

    def __str__(self) -> str:
        text = (
            f"{self.key:<36} {self.launch:<28} {self.registers:>4} registers {self.spills:>4} spills "
            f"{self.shared:>7} B shared {self.tensor_cores:>4} wgmma {self.waits:>3} full waits"
        )
        return f"{text}, SERIALISED" if self.serialised else text


def shipped(card: str) -> Iterator[tuple[str, str]]:
    """Key and launch of every kernel of a card's table."""
    for key in table(card):
        for launch in LAUNCHES[key.split("/")[0]]:
            yield key, launch


def compiled(card: str, key: str, launch: str) -> KernelReport:
    """Compiles a launch in its configuration from the table of ``card``."""
    return compiled_as(card, key, launch, Configuration(**table(card)[key]["configuration"]))


def compiled_as(card: str, key: str, launch: str, configuration: Configuration) -> KernelReport:
    """Compiles a launch in any configuration; ``key`` is ``kernel/precision/shape class``."""
    name, precision, _ = key.split("/")
    kernel = unit_kernel if launch == UNIT else FUNCTIONS[name]
    flags = LAUNCHES[name][launch]
    absent = {pointer: None for flag, pointers in ABSENT.items() if not flags.get(flag) for pointer in pointers}
    constants = {**flags, **absent, **configuration.tile(), "PRECISION": dot_precision(precision), "INTERPRETED": False}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    capability = int(card.removeprefix("sm_"))
    source = _source(kernel, constants, TYPES.get(precision, "*fp32"))
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=configuration.options())
    return _read(key, launch, binary)


def _source(kernel: Any, constants: dict[str, Any], tensor: str) -> ASTSource:
    unspecialised = {kernel.arg_names.index(n) if isinstance(n, str) else n for n in kernel.do_not_specialize}
    signature, attributes = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            if isinstance(constants[name], str) or SERIES != "3.6":
                attributes[(index,)] = []  # as in the launcher, which then finds the binary in the cache
            continue
        summed = kernel is weight_gradient_kernel and name == "out"
        signature[name] = ("*fp32" if summed else tensor) if name in POINTERS else "i32"
        if name in SQUARES:
            signature[name] = "*fp64"
        if index not in unspecialised:
            attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)


def _read(key: str, launch: str, binary: Any) -> KernelReport:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
        code = _tool("nvdisasm", "-c", file.name)
    registers = re.search(r"\bREG:(\d+)", usage)
    if registers is None:
        raise RuntimeError(f"cuobjdump says nothing about registers:\n{usage}")
    return KernelReport(
        key=key,
        launch=launch,
        registers=int(registers[1]),
        spills=len(re.findall(r"\b(?:STL|LDL)\b", code)),
        shared=binary.metadata.shared,
        tensor_cores=len(re.findall(r"\bHGMMA\b", code)),
        waits=_waits(code),
        matrix=len(re.findall(r"\bHG?MMA\b", code)),
    )


def _waits(code: str) -> int:
    """The number of products that are directly followed by a wait until none is in flight.

    The wait after a whole loop does not count: it follows the lesser wait at the end of the loop.
    """
    order = re.findall(r"\b(HGMMA)\b|\bWARPGROUP\.DEPBAR\.LE gsb0, 0x([0-9a-f]+)", code)
    if order and all(product for product, _ in order):
        raise RuntimeError("nvdisasm shows products of a warp group and no wait for them: it writes waits differently")
    return sum(product == "HGMMA" and left == "0" for (product, _), (_, left) in pairwise(order))


def _tool(name: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=True).stdout
