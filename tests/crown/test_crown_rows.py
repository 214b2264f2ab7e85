"""The rows that CROWN carries backwards: sparse or dense, in chunks of a memory budget, and where they end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from crown_networks import METHODS, assert_contains, build, every_network
from torch import Tensor, nn

import fastbound as fb
from fastbound import crown
from fastbound.crown import sparse
from fastbound.crown.walk import RULES
from fastbound.domains.records import Elementwise
from fastbound.errors import MissingRuleError


@every_network
def test_sparse_rows_and_dense_rows_give_the_same_bounds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build(name, double=True)
    box = fb.linf_box(x, 0.15, 0, 1)
    with torch.no_grad():
        fast = fb.bound(model, box, method="crown")
        lower, upper = fast.lower, fast.upper
    slow = fb.bound(model, box, method="crown")  # gradients wanted: the windows pass in plain torch
    torch.testing.assert_close(slow.lower, lower)
    with torch.no_grad(), fb.use_backend("reference"):
        torch.testing.assert_close(fb.bound(model, box, method="crown").lower, lower)
    from fastbound.crown import tighten

    units = tighten._signed_units
    monkeypatch.setattr(tighten, "_signed_units", lambda node, index: units(node, index).dense())
    dense = fb.bound(model, box, method="crown")
    torch.testing.assert_close(dense.lower, lower)
    torch.testing.assert_close(dense.upper, upper)


def test_images_are_never_met_by_dense_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build("cnn-7")

    def refuse(self: sparse.Units) -> Tensor:
        raise AssertionError("an identity over an image was made")

    monkeypatch.setattr(sparse.Units, "dense", refuse)
    assert fb.bound(model, fb.linf_box(x, 0.1), method="crown").lower.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_memory_budget_changes_nothing_but_the_chunks(method: str) -> None:
    model, x = build("dm-small", double=True)
    box = fb.linf_box(x, 0.1)
    free = fb.bound(model, box, method=method)
    row = 3 * 14 * 14 * 8  # of the largest node, in float64
    tight = fb.bound(model, box, method=method, memory_budget=2 * row)
    torch.testing.assert_close(tight.lower, free.lower)
    torch.testing.assert_close(tight.upper, free.upper)
    with pytest.raises(ValueError, match="memory_budget: one row"):
        fb.bound(model, box, method=method, memory_budget=row - 1).lower  # noqa: B018


def test_outputs_of_any_shape_and_ends_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3))
    b = fb.bound(model, fb.linf_box(torch.rand(2, 1, 7, 6), 0.1), method="crown-ibp")
    passes = []
    original = crown.walk.Walk.run
    monkeypatch.setattr(crown.walk.Walk, "run", lambda self, rows: passes.append(1) or original(self, rows))
    assert b.shape == (2, 2, 3, 2) and b.lower.shape == b.shape and len(passes) == 1
    assert (b.lower <= b.upper).all() and len(passes) == 2
    assert b.nominal.shape == b.shape


def test_a_fallback_stops_at_intervals_and_otherwise_the_operator_is_named() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 6), fb.nn.MinMax(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    torch.manual_seed(0)
    model, box = Model(), fb.linf_box(torch.rand(2, 4), 0.1)
    for method in METHODS:
        with pytest.raises(MissingRuleError, match=r"minmax in body\.1 .*has no backward rule"):
            fb.bound(model, box, method=method).lower  # noqa: B018
        b = fb.bound(model, box, method=method, fallback="ibp")
        inside = box.lower + (box.upper - box.lower) * torch.rand(500, 2, 4)
        assert_contains(b, model(inside.flatten(0, 1)).detach().unflatten(0, (500, 2)))


def test_a_flattened_map_with_two_readers_gets_the_rows_of_both() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 6, 3)
            self.left, self.right = torch.nn.Linear(96, 4), torch.nn.Linear(96, 4)

        def forward(self, x: Any) -> Any:
            flat = self.conv(x).relu().flatten(1)
            return self.left(flat) + self.right(flat)

    model, box = Two().double(), fb.linf_box(torch.rand(12, 2, 6, 6, dtype=torch.float64), 0.1)
    found = fb.bound(model, box, method="crown-ibp")
    merged = torch.nn.Sequential(model.conv, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(96, 4).double())
    with torch.no_grad():
        merged[3].weight.copy_(model.left.weight + model.right.weight)
        merged[3].bias.copy_(model.left.bias + model.right.bias)
    single = fb.bound(merged, box, method="crown-ibp")
    assert torch.allclose(found.lower, single.lower) and torch.allclose(found.upper, single.upper)


def test_element_wise_functions_keep_rows_sparse() -> None:
    for form in (sparse.Units, sparse.Patches):
        assert (Elementwise, form) in RULES
