"""The choice of code for a primitive: one stem everywhere, requests and refusals, and what `show_config` says."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
import torch
from contract import STEMS, STORED, differentiable, every_stem, forward_names, mapped, operator, reference, sample

import fastbound as fb
from fastbound import backends
from fastbound.errors import BackendError


def test_primitives_are_found() -> None:
    assert {"interval_linear", "interval_conv2d", "interval_norm_relu", "interval_margin"} <= set(STEMS)


@every_stem
def test_one_stem_everywhere(stem: str) -> None:
    """The op exists, and every backend has the same functions with the same arguments in the same order."""
    assert callable(operator(stem))
    wanted = reference(stem)
    for name, package in backends.PACKAGES.items():
        module = backends._load(name, stem, "cpu", torch.float32)[0]
        if module is None or (stem in backends.PLAIN.get((name, "cpu"), ()) and module is wanted):
            continue
        assert module.__name__ == f"{package}.{stem}"
        for function in [f"{stem}_fwd"] + [f"{stem}_bwd"] * differentiable(stem):
            theirs = list(inspect.signature(getattr(module, function)).parameters)
            assert theirs == list(inspect.signature(getattr(wanted, function)).parameters), (
                f"{module.__name__}.{function}"
            )
        assert name == "reference" or callable(module.unsupported), f"{module.__name__} gives no reasons"
    forward = forward_names(stem)
    taken = list(inspect.signature(operator(stem)).parameters)
    assert len(taken) >= len(forward), f"ops.{stem} takes the arguments of {stem}_fwd in their order"


def test_no_backend_has_a_stem_of_its_own() -> None:
    """A module with ``<its name>_fwd`` that is no primitive would never be tested."""
    for package in ("fastbound.ops", "fastbound.native", "fastbound.kernels"):
        try:
            path = importlib.import_module(package).__path__
        except ModuleNotFoundError:
            continue
        for module in pkgutil.iter_modules(path):
            try:
                loaded = importlib.import_module(f"{package}.{module.name}")
            except ModuleNotFoundError:  # triton is an extra
                continue
            names = [f"{module.name}_fwd"] + [module.name] * (package == "fastbound.ops")
            if any(callable(getattr(loaded, name, None)) for name in names):
                assert module.name in STEMS, f"{package}.{module.name} has no fastbound/reference/{module.name}.py"


@every_stem
@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
def test_an_explicit_request_is_served_or_refused_with_reasons(stem: str, backend: str) -> None:
    args = sample(stem, 0, torch.float32)
    module, reason = backends._load(backend, stem, "cpu", torch.float32)
    with fb.use_backend(backend):
        if module is not None:
            assert backends.find(stem, args[0]) is module
            operator(stem)(*args)
            return
        with pytest.raises(BackendError) as caught:
            operator(stem)(*args)
    for part in (backend, stem, "cpu", "float32", reason):
        assert part in str(caught.value)


@pytest.mark.parametrize("stem", [s for s in STEMS if torch.float16 not in getattr(reference(s), "DTYPES", ())])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_where_it_is_not_defined(stem: str, dtype: torch.dtype) -> None:
    args = mapped(sample(stem, 0, torch.float32), lambda t: t.to(dtype))
    stored = stem in STORED and dtype == torch.bfloat16
    for request in ("reference",) if stored else ("reference", "native"):
        with fb.use_backend(request), pytest.raises(BackendError, match=str(dtype).removeprefix("torch.")):
            operator(stem)(*args)
    if stored:
        return
    with pytest.raises(BackendError, match="no backend serves"):
        operator(stem)(*args)


def test_requests_nest_and_end_with_their_context() -> None:
    x = torch.zeros(1)
    automatic = backends.find("interval_linear", x)
    with fb.use_backend("reference"):
        assert backends.find("interval_linear", x).__name__.startswith("fastbound.reference")
        with fb.use_backend("native"):
            assert backends.find("interval_linear", x).__name__.startswith("fastbound.native")
        assert backends.find("interval_linear", x).__name__.startswith("fastbound.reference")
        with pytest.raises(RuntimeError, match="planned"), fb.use_backend("native"):
            raise RuntimeError("planned")
        assert backends.find("interval_linear", x).__name__.startswith("fastbound.reference")
    assert backends.find("interval_linear", x) is automatic


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"backend: wanted one of .*native.*reference.*triton, got 'cuda'"):
        fb.use_backend("cuda").__enter__()


def test_show_config_names_every_primitive(capsys: pytest.CaptureFixture[str]) -> None:
    text = fb.show_config()
    assert capsys.readouterr().out.strip() == text.strip()
    for stem in STEMS:
        assert f"{stem} [cpu]: " in text
    assert "not triton: " in text or "triton" in text
