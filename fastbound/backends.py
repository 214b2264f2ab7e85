"""The one place that chooses code: which backend serves which primitive.

A backend is a package with a module for each primitive that it serves (``fastbound/reference/<stem>.py``,
``fastbound/native/<stem>.py``, ``kernels/<stem>.py``). The module has the functions ``<stem>_fwd`` and, if the
primitive is differentiated, ``<stem>_bwd``; except in the reference it also has ``unsupported(device_type, dtype)``,
which returns a reason or None. An explicit request (`use_backend`) gets the backend that it names or an error. The
automatic choice takes the first backend without a reason against it, and `show_config` prints all reasons. Triton is
chosen automatically only if it was measured to be faster than the library on the card at hand (`measured_faster`).

A backend may also have helpers: modules of passes that several operators share, found in the same way (`helper`). They
have no reference; if no helper serves, the callers use a plain formula instead.
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
# Primitives for which plain torch is the best code of a backend on a device: there it uses the reference.
PLAIN = {("native", "cpu"): ("lipschitz_power",)}
HELPERS = ("crown_windows", "layout")

# The requested backends by stem.
_requested: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar(
    "fastbound_backend", default=MappingProxyType({})
)
_requested_of_compiler: list[Mapping[str, str]] = []  # the same for the compiler, which cannot read a context variable


@contextlib.contextmanager
def use_backend(name: str, only: Collection[str] | None = None) -> Iterator[None]:
    """Serve the primitives called inside the context from the backend ``name``, or raise.

    Args:
        name: ``"reference"`` (plain torch), ``"native"`` (C++/CUDA) or ``"triton"``.
        only: stems of the primitives (or names of the helpers) to which the request applies, such as
            ``["interval_conv2d", "interval_linear"]``, for a backend that does not have all of them; the choice for
            the others stays as it was. None: every primitive and helper.

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

    Compiled code reads all tensors of a call with the dtype and on the device of the first, so another dtype among
    ``others`` raises TypeError, and another device ValueError. With maps in half precision, vectors of channels [C] and
    ``parameters`` may be float32. A lazily negated view (`torch.Tensor.is_neg`) raises ValueError.
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
    for other in (tensor, *others, *parameters):
        if other is not None and other.is_neg():  # compiled code reads memory, where the sign of its numbers is missing
            raise ValueError(f"{stem}: wanted plain tensors, got a lazily negated view; pass x.resolve_neg().")
    requested = _requested.get().get(stem)
    if requested is None and tensor.is_cuda and measured_faster(stem, tensor, *others, *parameters):
        module, _ = _load("triton", stem, "cuda", tensor.dtype)
        if module is not None:
            return module
    return _select(stem, tensor.device.type, tensor.dtype, requested)


def helper(name: str, tensor: torch.Tensor) -> ModuleType | None:
    """The module of the helper ``name``, one of `HELPERS`, for tensors like ``tensor``; None: use the plain formula.

    It is None inside torch.compile, and if the requested backend does not have the helper; the reference has none.
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
    """Whether Triton was measured to be faster than the library on this card, for tensors like those given to `find`.

    False without a measurement. The figures come from the table of the card, which `bench/gpu/tune.py` writes.
    """
    from fastbound.kernels import _measurements  # needs no Triton

    return stem in _measurements.STEMS and _measurements.triton_is_faster(stem, *tensors)


def needs_grad(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd must record the call; if not, the code of a primitive is called directly."""
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
    """The module of the requested backend, or, without a request, of the first one in the order of preference."""
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
    """Print, and return, which backend serves which primitive on this machine, and why the others do not."""
    from fastbound.native import description

    lines = [f"torch {torch.__version__}, {torch.get_num_threads()} threads, {description()}"]
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for stem in primitives():
        for device in devices:
            candidates = {name: _load(name, stem, device, torch.float32) for name in PACKAGES}
            chosen = next(name for name in PREFERENCE[device] if candidates[name][0] is not None)
            lines.append(f"{stem} [{device}]: {chosen}")
            for name, (module, reason) in candidates.items():
                if module is None:
                    lines.append(f"    not {name}: {reason}")
                elif name == "triton":
                    lines.append("    triton on request, and for tensors for which it was measured to be faster")
    text = "\n".join(lines)
    print(text)
    return text


# The compiler can look a module up, but not import it.
_references = {stem: importlib.import_module(f"{PACKAGES['reference']}.{stem}") for stem in primitives()}
