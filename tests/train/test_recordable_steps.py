"""A CUDA graph can record the steps: they read nothing from the device, and no value check runs during a recording."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_scheduled import RECIPES, moments, network, resolved
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fastbound as fb
from fastbound.domains import checks
from fastbound.train.recipes import Recipe
from fastbound.train.steps import TrainingStep


class NothingFromTheHost(TorchDispatchMode):
    """Fails if an operation mixes the device of a step with the host, which a recording would freeze or refuse.

    The other half, reading a value or making a shape of one, is refused by the meta device itself.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        found = {t.device.type for t in _flat((args, kwargs, out)) if isinstance(t, Tensor)}
        assert len(found) < 2, f"{function} mixes {found}"
        return out


def _flat(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _flat(item)
    else:
        yield tree


def run_without_the_host(recipe: Recipe, values: dict[str, float]) -> None:
    model = network(recipe.norm).to("meta")
    x, labels = torch.empty(6, 1, 8, 8, device="meta"), torch.empty(6, dtype=torch.int64, device="meta")
    scheduled = {k: v if v in (0, 1) else torch.empty((), device="meta") for k, v in values.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = TrainingStep(recipe, model, optimizer, 10, recipe.memory())
    for _ in range(2):
        with NothingFromTheHost():
            step(x, labels, scheduled)


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_asks_the_device_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, where there is no value to read: in every phase the step runs without one."""
    monkeypatch.setattr(torch, "_assert_async", lambda *_: None)
    recipe = resolved(name)
    for values in moments(recipe).values():
        run_without_the_host(recipe, values)


def test_that_test_sees_reads_and_mixtures() -> None:
    with NothingFromTheHost(), pytest.raises(AssertionError, match="mixes"):
        torch.ones(3, device="meta") * torch.tensor(2.0)
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(torch.ones((), device="meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(3, device="meta").nonzero()


def test_no_value_check_runs_while_a_graph_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor anything that only a check reads. The recording is a fake: one function says whether there is one."""
    x, labels = torch.full((2, 3), float("nan")), torch.tensor([0, 7])
    calls: list[str] = []

    class Counts(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(str(function))
            return function(*args, **(kwargs or {}))

    def ask() -> None:
        fb.linf_box(x, torch.tensor(-1.0), 0.0, 1.0)
        fb.box(x + 1, x)

    for module in ("domains.interval.box", "domains.checks", "spec"):
        monkeypatch.setattr(importlib.import_module(f"fastbound.{module}"), "recording", lambda _: True)
    with Counts():
        ask()
        fb.spec.check_labels(labels, 3)
    assert not [call for call in calls if any(word in call for word in ("aminmax", "isfinite", "all", "le.", "ge."))]
    monkeypatch.undo()
    with pytest.raises(ValueError, match="eps: wanted finite numbers"):
        ask()


def test_recording_is_asked_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = SimpleNamespace(device=torch.device("cuda"))
    for answer in (True, False):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda answer=answer: answer)
        assert checks.recording(on_gpu) is answer
        assert not checks.recording(torch.zeros(1))
