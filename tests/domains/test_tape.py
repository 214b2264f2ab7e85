"""How long a tape lives, and what it refuses to answer afterwards."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb
from fastbound.errors import TapeError


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def box_of(batch: int = 2, **settings: Any) -> fb.Interval:
    return fb.linf_box(torch.rand(batch, 4), 0.1, **settings)


SPEC = fb.margin_spec(torch.tensor([0, 2]), 3)
METHODS = ["ibp", "crown-ibp", "crown"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", [0, 2, 4])
@pytest.mark.parametrize("what", ["weight", "bias"])
def test_a_changed_weight_makes_the_tape_refuse(method: str, layer: int, what: str) -> None:
    model = network()
    out = model(box_of())
    fb.bound(out, method=method, spec=SPEC)
    with torch.no_grad():
        getattr(model[layer], what).add_(1.0)
    for spec in (SPEC, None):
        with pytest.raises(TapeError, match=r"changed in place.*run the model on the box again"):
            _ = fb.bound(out, method=method, spec=spec).lower
    assert fb.bound(model(box_of()), method=method, spec=SPEC).lower.shape == (2, 2)


def test_a_bound_that_waits_refuses_too() -> None:
    """Ends are computed when they are read: a step between the call and the reading must not mix two models."""
    model = network()
    bounds = fb.bound(model, box_of(), method="ibp", spec=SPEC)
    with torch.no_grad():
        model[4].weight.mul_(2.0)
    with pytest.raises(TapeError, match="changed in place"):
        _ = bounds.lower


def test_a_norm_that_waits_refuses_too() -> None:
    norm = nn.BatchNorm1d(4).eval()
    out = norm(box_of())
    with torch.no_grad():
        norm.weight.mul_(2.0)
    with pytest.raises(TapeError, match="Norm"):
        _ = out.lower
    with pytest.raises(TapeError, match="Norm"):
        F.relu(out)


@pytest.mark.parametrize("method", METHODS)
def test_running_statistics_that_move_on_leave_recorded_bounds_alone(method: str) -> None:
    """torch's BatchNorm writes them without a new version, so the tape cannot notice and must not depend on them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3), nn.BatchNorm1d(3)).eval()
    box = box_of()
    first, second = model(box), model(box)
    wanted = fb.bound(first, method=method).lower
    model.train()(torch.randn(8, 4) * 10)
    assert torch.equal(fb.bound(second, method=method).lower, wanted)


def test_an_optimizer_step_between_forward_and_bound() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    out = model(box_of())
    out.nominal.sum().backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(TapeError):
        fb.bound(out, method="ibp", spec=SPEC)


# ---- backward frees --------------------------------------------------------------------------------------------------


class Watched(nn.Module):
    """Remembers, weakly, a tensor in the middle of the network."""

    def forward(self, x: Any) -> Any:
        self.seen = weakref.ref(x.node.radius)
        return x


def watched() -> tuple[nn.Sequential, Watched]:
    middle = Watched()
    return nn.Sequential(*network()[:2], middle, *network()[2:]), middle


@pytest.mark.parametrize("loss_of", ["out", "bound"])
def test_backward_frees_the_tape(loss_of: str) -> None:
    model, middle = watched()
    out = model(box_of())
    bounds = fb.bound(out, method="ibp", spec=SPEC)
    loss = bounds.lower.sum() if loss_of == "bound" else out.upper.sum()
    gc.collect()
    assert middle.seen() is not None
    loss.backward()
    del loss, bounds
    gc.collect()
    assert middle.seen() is None, "an intermediate tensor survived backward()"
    for method in METHODS:
        for spec in (SPEC, None):
            with pytest.raises(TapeError, match=r"freed by backward\(\).*retain_graph=True"):
                _ = fb.bound(out, method=method, spec=spec).lower
    assert out.lower.shape == (2, 3), "what was computed stays readable"


def test_retain_graph_keeps_it() -> None:
    model, middle = watched()
    out = model(box_of())
    fb.bound(out, method="ibp", spec=SPEC).lower.sum().backward(retain_graph=True)
    gc.collect()
    assert middle.seen() is not None
    for method in METHODS:
        fb.bound(out, method=method, spec=SPEC).lower.sum().backward(retain_graph=True)
    fb.bound(out, method="ibp", spec=SPEC).lower.sum().backward()
    with pytest.raises(TapeError):
        fb.bound(out, method="ibp", spec=SPEC)


def test_autograd_grad_frees_it_too() -> None:
    model, middle = watched()
    out = model(box_of())
    torch.autograd.grad(out.lower.sum(), list(model.parameters()))
    gc.collect()
    assert middle.seen() is None


def test_several_losses_of_one_backward() -> None:
    """The usual step: clean and robust loss, one backward; another step right after it."""
    model = network()
    for _ in range(3):
        out = model(box_of())
        loss = out.nominal.sum() + fb.losses.robust_cross_entropy(fb.bound(out, method="ibp", spec=SPEC))
        model.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_no_grad_ibp_keeps_none() -> None:
    model, middle = watched()
    with torch.no_grad():
        bounds = fb.bound(model, box_of(), method="ibp", spec=SPEC)
        out = fb.bound(model, box_of(), method="ibp")
    gc.collect()
    assert middle.seen() is None
    assert bounds.lower.shape == (2, 2) and out.lower.shape == (2, 3)


def test_no_grad_ibp_of_a_tail_leaves_the_head_alone() -> None:
    model = network()
    hidden = model[:2](box_of())
    with torch.no_grad():
        fb.bound(model[2:], hidden, method="ibp")
    assert fb.bound(hidden, method="crown").lower.shape == (2, 6)


def test_dropping_the_output_drops_everything() -> None:
    model, middle = watched()
    out = model(box_of())
    seen = middle.seen
    assert seen() is not None
    del out
    gc.collect()
    assert seen() is None


# ---- copies ----------------------------------------------------------------------------------------------------------


def unpickled(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


def torch_saved(x: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(x, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, unpickled, torch_saved])
@pytest.mark.parametrize("nominal", [True, False])
def test_copies_detach_and_drop_the_tape(copied: Any, nominal: bool) -> None:
    model = network()
    out = model(box_of(nominal=nominal))
    twin = copied(out)
    for name in ("lower", "upper", "nominal"):
        ours, theirs = getattr(out, name), getattr(twin, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert torch.equal(ours, theirs) and ours.requires_grad and not theirs.requires_grad
            assert ours.data_ptr() != theirs.data_ptr()
    for method in METHODS:
        with pytest.raises(TapeError, match="no tape"):
            _ = fb.bound(twin, method=method, spec=SPEC).lower
    assert fb.bound(out, method="crown", spec=SPEC).lower.shape == (2, 2), "the original keeps its tape"


@pytest.mark.parametrize("copied", [copy.deepcopy, unpickled])
@pytest.mark.parametrize("method", METHODS)
def test_a_copied_box_is_a_box(copied: Any, method: str) -> None:
    model, box = network(), box_of()
    twin = fb.bound(model, copied(box), method=method, spec=SPEC)
    assert torch.equal(twin.lower, fb.bound(model, box, method=method, spec=SPEC).lower)


def test_bounds_can_be_copied_and_computed_with() -> None:
    model = network()
    bounds = fb.bound(model, box_of(), method="ibp", spec=SPEC)
    for twin in (copy.deepcopy(bounds), unpickled(bounds)):
        assert torch.allclose(twin.lower, bounds.lower, atol=1e-6) and not twin.lower.requires_grad
    worst: Tensor = F.relu(-bounds).upper
    assert torch.allclose(worst, F.relu(-bounds.lower), atol=1e-6)
    assert "shape=(2, 2)" in repr(bounds)


# ---- activation checkpointing ----------------------------------------------------------------------------------------


def test_reentrant_checkpointing_warns() -> None:
    model = network()
    with pytest.warns(UserWarning, match="use_reentrant=False"):
        torch.utils.checkpoint.checkpoint(model, box_of(), use_reentrant=True)


def test_checkpointing_that_is_not_reentrant_keeps_the_gradients() -> None:
    model, twin = network(), network()
    x = torch.rand(2, 4)
    out = torch.utils.checkpoint.checkpoint(model, fb.linf_box(x, 0.1), use_reentrant=False)
    out.upper.sum().backward()
    twin(fb.linf_box(x, 0.1)).upper.sum().backward()
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        assert torch.allclose(ours.grad, theirs.grad)


def test_an_output_that_the_model_reads_again_is_still_merged_with_the_specification() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 4))
            self.side = torch.nn.ReLU()

        def forward(self, x: Any) -> Any:
            out = self.body(x)
            self.seen = self.side(out)
            return out

    model, box = Twice(), fb.linf_box(torch.randn(3, 5), 0.3)
    spec = fb.margin_spec(torch.tensor([0, 1, 3]), 4)
    kept = fb.bound(model(box), method="ibp", spec=spec).lower
    with torch.no_grad():
        torch.testing.assert_close(fb.bound(model, box, method="ibp", spec=spec).lower, kept, rtol=0, atol=1e-5)
