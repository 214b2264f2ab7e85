"""Fixed seeds and threads, IEEE products, NaN in fresh memory of the library, a loud count of GPU tests left out."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastbound.certify.modes import set_float32_products

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# Test helpers and models of worker processes are imported by name from here; what they assert shows its values too.
sys.path.insert(0, str(HERE))
pytest.register_assert_rewrite(*(path.stem for path in HERE.glob("*.py")))

_left_out_gpu_tests: set[str] = set()
IN_WORKER = "left_out_gpu_tests"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "own_memory: torch.empty stays torch.empty (for tests of the compiler)")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under pytest-xdist the workers collect, and the process that prints the summary does not."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[IN_WORKER] = sorted(_left_out_gpu_tests)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _left_out_gpu_tests.update(getattr(node, "workeroutput", {}).get(IN_WORKER, ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
            _left_out_gpu_tests.add(item.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """An error on the card that ends its context would fail every later test of this process: end the process instead.

    Under pytest-xdist another worker takes the rest, and the test is named; without it the run ends here.
    """
    if not report.failed or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as problem:
        print(f"{report.nodeid}: the card is lost to this process ({problem})", file=sys.stderr, flush=True)
        os._exit(1)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _left_out_gpu_tests:
        terminalreporter.section("GPU")
        terminalreporter.line(
            f"{len(_left_out_gpu_tests)} GPU tests did NOT run: torch sees no CUDA device.", yellow=True
        )


@pytest.fixture(autouse=True)
def same_every_time() -> None:
    """One seed, one thread (tests are small; those of threads ask for more), no TF32 or reduced-precision products."""
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    set_float32_products("ieee")
    assert torch.get_default_dtype() == torch.float32, "an earlier test left another default dtype"
    assert torch.is_grad_enabled(), "an earlier test left gradients off"


@pytest.fixture
def allow_tf32() -> Iterator[Callable[..., None]]:
    """``allow_tf32(convolutions=True, products=True)`` sets torch's flags for float32; afterwards both inherit."""
    backends: Any = torch.backends

    def allow(convolutions: bool, products: bool) -> None:
        backends.cudnn.conv.fp32_precision = "tf32" if convolutions else "ieee"
        backends.cuda.matmul.fp32_precision = "tf32" if products else "ieee"

    yield allow
    backends.cudnn.conv.fp32_precision = backends.cuda.matmul.fp32_precision = "none"


@pytest.fixture(autouse=True)
def poisoned_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills uninitialised memory of the library with NaN, so that elements which are never written show."""
    if request.node.get_closest_marker("own_memory"):
        return

    def poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def wrapper(*args: Any, **kwargs: Any) -> torch.Tensor:
            out = allocate(*args, **kwargs)
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.split(".")[0] == "fastbound" and out.is_floating_point():
                with torch.no_grad():
                    out.fill_(float("nan"))
            return out

        return wrapper

    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))
    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(torch.Tensor, name, poisoned(getattr(torch.Tensor, name)), raising=False)


def find_shared_data(*names: str) -> Path | None:
    """The first of ``names`` in ``../shared/data`` next to the checkout, or None."""
    for name in names or ("",):
        candidate = ROOT.parent / "shared" / "data" / name
        if candidate.exists():
            return candidate
    return None


@pytest.fixture
def shared_data() -> Iterator[Callable[..., Path]]:
    """``shared_data("mnist")``: the folder of a data set next to the checkout; skips the test if it is absent."""

    def find(*names: str) -> Path:
        found = find_shared_data(*names)
        if found is None:
            pytest.skip(f"../shared/data/{' or '.join(names)} is not there")
        return found

    yield find
