"""The one place that chooses code: which backend serves which primitive.

A backend is a module per primitive (``fastbound/reference/<stem>.py``, ``fastbound/native/<stem>.py``,
``kernels/<stem>.py``) with the functions ``<stem>_fwd`` and, where it is differentiated, ``<stem>_bwd``, and, except
for the reference, ``unsupported(device_type, dtype)`` that returns a reason or None. An explicit request
(`use_backend`) gets what it asks for or an error; the automatic choice takes the first backend without a reason against
it, and `show_config` prints all reasons. Triton is chosen automatically where measurements on the card at hand say
that it is faster than the library (`measured_faster`), and nowhere else.

A backend may also have helpers: modules of passes that several operators share, found in the same way (`helper`). They
have no reference. Their callers have a plain formula, which serves where no helper does.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import pkgutil
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from types import MappingProxyType, ModuleType

import torch

from fastbound.errors import BackendError

PACKAGES = {"native": "fastbound.native", "triton": "fastbound.kernels", "reference": "fastbound.reference"}
PREFERENCE = {"cpu": ("native", "reference"), "cuda": ("native", "reference")}
# Primitives for which a backend has no better code on a device than plain torch: there the reference is its code too.
PLAIN = {("native", "cpu"): ("lipschitz_power",)}
HELPERS = ("crown_windows", "layout")

# Backends by stem, as far as they are asked for.
_requested: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar(
    "fastbound_backend", default=MappingProxyType({})
)
_requested_of_compiler: list[Mapping[str, str]] = []  # the same for the compiler, which cannot read a context variable


@contextlib.contextmanager
def use_backend(name: str, only: Collection[str] | None = None) -> Iterator[None]:
    """Serve the primitives called inside the context from the backend ``name``, or raise.

    Args:
        name: ``"reference"`` (plain torch), ``"native"`` (C++/CUDA) or ``"triton"``.
        only: stems of the primitives (or names of the helpers) that are meant, such as ``["interval_conv2d",
            "interval_linear"]``, for a backend that has not all of them; the others stay as they are outside. None:
            every primitive and helper.

    Raises:
        ValueError: the name, or a stem, is unknown.
        BackendError: (inside the context) the backend cannot serve a primitive; never a silent fallback.
    """
    if name not in PACKAGES:
        raise ValueError(f"backend: wanted one of {', '.join(sorted(PACKAGES))}, got {name!r}.")
    if isinstance(only, str):
        raise ValueError(f"only: wanted a list of primitives, got the string {only!r}; write [{only!r}].")
    known = (*_references, *HELPERS)
    for stem in only or ():
        if stem not in known:
            raise ValueError(f"only: there is no primitive {stem!r}; known: {', '.join(sorted(known))}.")
    stems = known if only is None else only
    request = {**_requested.get(), **dict.fromkeys(stems, name)}
    token = _requested.set(request)
    _requested_of_compiler.append(request)
    try:
        yield
    finally:
        _requested_of_compiler.pop()
        _requested.reset(token)


def find(
    stem: str,
    tensor: torch.Tensor,
    *others: torch.Tensor | None,
    parameters: tuple[torch.Tensor | None, ...] = (),
) -> ModuleType:
    """The module that serves the primitive ``stem`` for tensors like ``tensor`` (its device and dtype).

    Compiled code reads all tensors of a call by the dtype and on the device of one, so ``others`` must share both:
    TypeError, ValueError. What belongs to channels [C], and ``parameters``, may be float32 beside maps of half
    precision.
    """
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    for index, other in enumerate((*others, *parameters)):
        if other is None:
            continue
        wider = half and other.dtype == torch.float32 and (other.dim() == 1 or index >= len(others))
        if other.dtype != tensor.dtype and not wider:
            raise TypeError(f"{stem}: wanted one dtype, got {tensor.dtype} and {other.dtype}; convert one of them.")
        if other.device != tensor.device:
            raise ValueError(f"{stem}: wanted one device, got {tensor.device} and {other.device}; move one of them.")
    if torch.compiler.is_compiling():  # the compiler fuses the plain formula better than it calls a kernel
        _require_compilable(stem, _requested_of_compiler[-1].get(stem) if _requested_of_compiler else None)
        return _references[stem]
    requested = _requested.get().get(stem)
    if requested is None and tensor.is_cuda and measured_faster(stem, tensor, *others, *parameters):
        module, _ = _load("triton", stem, "cuda", tensor.dtype)
        if module is not None:
            return module
    return _select(stem, tensor.device.type, tensor.dtype, requested)


def helper(name: str, tensor: torch.Tensor) -> ModuleType | None:
    """The module of passes ``name``, one of `HELPERS`, for tensors like ``tensor``; None: the plain formula serves.

    So it does for the compiler, and if the backend that was requested has no such passes, as the reference never has.
    """
    if torch.compiler.is_compiling():
        return None
    return _select_helper(name, tensor.device.type, tensor.dtype, _requested.get().get(name))


def serves(stem: str, device_type: str, dtype: torch.dtype) -> bool:
    """Whether `find` has code for tensors of a dtype on a device."""
    if torch.compiler.is_compiling():
        return dtype in _dtypes(_references[stem])
    return _first(stem, device_type, dtype, _requested.get().get(stem)) is not None


def measured_faster(stem: str, *tensors: torch.Tensor | None) -> bool:
    """Whether Triton has measured faster than the library for tensors like those of `find`, on their card.

    False where nobody has measured: the figures are those of the card's table, which `bench/gpu/tune.py` writes.
    """
    from fastbound.kernels import _measurements  # needs no Triton

    return stem in _measurements.STEMS and _measurements.triton_is_faster(stem, *tensors)


def needs_grad(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd must see the call; without it a primitive is a direct call."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _require_compilable(stem: str, requested: str | None) -> None:
    if requested not in (None, "reference"):
        raise BackendError(
            f"backend {requested!r} was requested inside torch.compile, which compiles the reference formula of "
            f"{stem} itself; leave the compiled region or drop use_backend."
        )


@cache
def _select(stem: str, device_type: str, dtype: torch.dtype, requested: str | None) -> ModuleType:
    module = _first(stem, device_type, dtype, requested)
    if module is not None:
        return module
    if requested is None:
        raise BackendError(f"no backend serves {stem} on {device_type} in {dtype}.")
    _, reason = _load(requested, stem, device_type, dtype)
    raise BackendError(f"backend {requested!r} cannot serve {stem} on {device_type} in {dtype}: {reason}.")


@cache
def _select_helper(name: str, device_type: str, dtype: torch.dtype, requested: str | None) -> ModuleType | None:
    return _first(name, device_type, dtype, requested)


def _first(stem: str, device_type: str, dtype: torch.dtype, requested: str | None) -> ModuleType | None:
    """The module of the backend that was requested, else of the first in the order of preference that has one."""
    names = PREFERENCE.get(device_type, ("reference",)) if requested is None else (requested,)
    modules = (_load(name, stem, device_type, dtype)[0] for name in names)
    return next((module for module in modules if module is not None), None)


def _load(name: str, stem: str, device_type: str, dtype: torch.dtype) -> tuple[ModuleType | None, str]:
    package = PACKAGES["reference" if stem in PLAIN.get((name, device_type), ()) else name]
    try:
        module = importlib.import_module(f"{package}.{stem}")
    except ModuleNotFoundError as error:
        return None, f"{error.name} is not installed or not written"
    dtypes = _dtypes(module)
    if dtype not in dtypes:
        return None, f"{dtype} is not supported; use {' or '.join(str(d).removeprefix('torch.') for d in dtypes)}"
    unsupported = getattr(module, "unsupported", None)
    reason = unsupported(device_type, dtype) if unsupported is not None else None
    return (module, "") if reason is None else (None, reason)


def _dtypes(module: ModuleType) -> tuple[torch.dtype, ...]:
    return getattr(module, "DTYPES", (torch.float32, torch.float64))


def primitives() -> list[str]:
    """The stems of all primitives, found in the tree."""
    package = importlib.import_module(PACKAGES["reference"])
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def show_config() -> str:
    """Describe, for this machine, which backend serves which primitive and why not another. Prints and returns it."""
    from fastbound.native import description

    lines = [f"torch {torch.__version__}, {torch.get_num_threads()} threads, {description()}"]
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for stem in primitives():
        for device in devices:
            found = {name: _load(name, stem, device, torch.float32) for name in PACKAGES}
            chosen = next(name for name in PREFERENCE[device] if found[name][0] is not None)
            lines.append(f"{stem} [{device}]: {chosen}")
            for name, (module, reason) in found.items():
                if module is None:
                    lines.append(f"    not {name}: {reason}")
                elif name == "triton":
                    lines.append("    triton on request, and where the table of the card has measured it faster")
    text = "\n".join(lines)
    print(text)
    return text


# The compiler can look a module up, but not import it.
_references = {stem: importlib.import_module(f"{PACKAGES['reference']}.{stem}") for stem in primitives()}
