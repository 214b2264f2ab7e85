"""Functions said in terms of others: the values of plain torch, and bounds that hold, in every domain that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb
from fastbound.domains import rules
from fastbound.domains.value import Value

GENERATOR = torch.Generator().manual_seed(0)
X, LIKE = (torch.randn(3, 4, 5, generator=GENERATOR) for _ in range(2))
W, C, THREE = (torch.randn(size, generator=GENERATOR) for size in ((5, 6), (4, 7), (3,)))
POSITIVE = LIKE > 0

CASES: dict[str, Callable[[Any], Any]] = {
    "flatten": lambda x: x.flatten(1),
    "flatten, from the end": lambda x: torch.flatten(x, -2, -1),
    "ravel": lambda x: x.ravel(),
    "unflatten": lambda x: x.unflatten(-1, (5, -1)),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(),
    "squeeze of dimensions": lambda x: x.unsqueeze(-1).unsqueeze(1).squeeze((1, 2, -1)),
    "view_as, expand_as": lambda x: x.flatten(1).view_as(LIKE).reshape_as(LIKE)[:, :1].expand_as(LIKE),
    "mT, transpose": lambda x: x.mT + x.transpose(-1, 1),
    "T": lambda x: x[0].T,
    "t": lambda x: x[0].t() + torch.t(x[1]),
    "hstack, vstack": lambda x: torch.vstack([torch.hstack([x, x]), torch.hstack([LIKE, x])]),
    "hstack of vectors": lambda x: torch.hstack([x[0, 0], x[1, 0]]),
    "tile": lambda x: torch.tile(x, (2, 1)),
    "tile to more dimensions": lambda x: x.tile(2, 1, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "repeat_interleave by a tensor": lambda x: torch.repeat_interleave(x, torch.tensor([1, 2, 0, 3]), dim=-2),
    "repeat_interleave of all": lambda x: x.repeat_interleave(2),
    "select, narrow": lambda x: x.select(1, -1) + x.narrow(-2, 1, 2).sum(1),
    "split, chunk, unbind": lambda x: torch.cat(
        [*x.split([1, 3], 1), *x.split(split_size_or_sections=3, dim=1), *torch.chunk(x, 3, 1), x.unbind(0)[1][None]]
        if x.shape[0] == 1
        else [p.flatten(1) for p in (*x.split([1, 3], 1), *x.split(3, dim=1), *torch.chunk(x, 3, 2), *x.unbind(1))],
        1,
    ),
    "mm, addmm": lambda x: torch.mm(x[0], W) + torch.addmm(torch.ones(6), x[1], W, beta=2, alpha=0.5),
    "bmm": lambda x: torch.bmm(x, LIKE.mT),
    "matmul by a batch of matrices": lambda x: x @ LIKE.mT,
    "matmul from the left": lambda x: C.T @ x + torch.matmul(LIKE[:, :1, :4], x),
    "matmul and vectors": lambda x: x @ W[:, 0] + (C[:, 0] @ x)[..., :4] + (W.T @ x[0, 0])[:4],
    "matmul, broadcast": lambda x: x.unsqueeze(1) @ torch.stack((W, -W)),
    "where, a method": lambda x: x.where(POSITIVE, 1.0) + x.where(condition=POSITIVE, other=LIKE),
    "names of arguments": lambda x: (
        torch.tile(x, dims=(1, 1, 1)).flip(dims=(1,)).sum(axis=1, keepdims=True)
        + torch.cat(x.split(split_size=2, dim=1), axis=1).expand(size=(3, 4, 5)).reshape(shape=(3, 4, 5))
        + x.view(size=(3, 4, 5)) + x.repeat(repeats=(1, 1, 1)) + +x.narrow(1, -4, 4)
    ),
    "addmm without its input": lambda x: torch.addmm(torch.full((6,), torch.nan), x[1], W, beta=0),
    "where": lambda x: torch.where(POSITIVE, x, 1.0) + torch.where(POSITIVE, -x, 2 * x),
    "where, infinite outside": lambda x: torch.where(POSITIVE, x, torch.where(POSITIVE, torch.inf, 3.0)),
    "masked_fill": lambda x: x.masked_fill(POSITIVE, -3.0),
    "addcmul, lerp": lambda x: torch.addcmul(x, LIKE, LIKE, value=0.3) + torch.lerp(x, LIKE, 0.3),
    "a number to an abstract power": lambda x: 2.5**x,
    "quotients of values": lambda x: 1 / (x.square() + 1) + x / (x.exp() + 1),
    "einsum, a layer": lambda x: torch.einsum("bij,jk->bik", x, W),
    "einsum, permuted": lambda x: torch.einsum("jk, bij -> kbi", W, x),
    "einsum, element-wise": lambda x: torch.einsum("bij,bij->bj", x, LIKE),
    "einsum, two constants": lambda x: torch.einsum("bij,jk,il->bkl", x, W, C),
    "einsum, implicit": lambda x: torch.einsum("bij,il", x, C),
    "einsum, outer": lambda x: torch.einsum("bij,k->bijk", x, THREE),
    "einsum, batch of matrices": lambda x: torch.einsum("bij,bkj->bik", x, LIKE),
    "einsum, sums alone": lambda x: torch.einsum("bij->b", x),
    "einsum, a constant summed": lambda x: torch.einsum("bij,kl->bi", x, C),
    "einsum of a list": lambda x: torch.einsum("bij,jk->bik", [x, W]),
    "tensordot": lambda x: torch.tensordot(x, C, dims=([1], [0])) + torch.tensordot(x, C, dims=([-2], [-2])),
    "tensordot by a number": lambda x: torch.tensordot(x, W, 1),
    "tensordot from the left": lambda x: torch.tensordot(C, x, dims=([0], [1])),
    "type_as, cpu": lambda x: x.type_as(LIKE).cpu(),
    "constants like a value": lambda x: (
        x + torch.zeros_like(x) + x.new_zeros(5) + x.new_ones((4, 5)) + torch.ones_like(x, dtype=torch.float32)
        + x.new_full((5,), 2.0) + torch.full_like(x, 3.0) + x.new_tensor([1.0]) + 0 * torch.empty_like(x).fill_(1)
    ),
    "log_softmax": lambda x: F.log_softmax(x, -1) + x.log_softmax(dim=1),
}  # fmt: skip
every_case = pytest.mark.parametrize("name", CASES)


def points(count: int = 60) -> Tensor:  # [P, 3, 4, 5]
    generator = torch.Generator().manual_seed(1)
    ways = 2 * torch.rand(count, *X.shape, generator=generator) - 1
    return X + 0.1 * torch.where(torch.arange(count).view(-1, 1, 1, 1) % 2 == 0, ways.sign(), ways)


@every_case
@pytest.mark.parametrize("domain", ["interval", "zonotope", "lipschitz", "crown"])
def test_values_and_bounds(name: str, domain: str) -> None:
    function, wanted = CASES[name], CASES[name](X)
    box = fb.linf_box(X, 0.1)
    value: Any = {"zonotope": fb.zonotope, "lipschitz": lambda _: fb.lipschitz(X)}.get(domain, lambda b: b)(box)
    try:
        out = function(value) if domain != "crown" else fb.bound(function, box, method="crown")
        lower = None if domain == "lipschitz" else out.lower
    except (NotImplementedError, ValueError) as error:  # such as what mixes the samples of the batch
        assert domain != "interval", error
        assert str(error)
        return
    torch.testing.assert_close(out.nominal, wanted, rtol=1e-5, atol=1e-5)
    if domain == "lipschitz":
        moved = torch.stack([function(p) for p in points(20)]) - wanted
        length = (points(20) - X).flatten(2).norm(dim=2)
        assert (moved.reshape(20, 3, -1).norm(dim=2) <= out.certified_constant() * length + 1e-4).all()
        return
    assert lower.shape == wanted.shape == out.upper.shape
    values = torch.stack([function(p) for p in points()])
    slack = 1e-5 * (1 + wanted.abs().max())
    assert (values >= lower - slack).all() and (values <= out.upper + slack).all()


def test_linear_functions_of_several_spellings_are_exact() -> None:
    """A layer by any name has the width |W| r."""
    box = fb.linf_box(X, 0.1)
    width = torch.full_like(X, 0.1) @ W.abs()
    for out in (box @ W, torch.einsum("bij,jk->bik", box, W), torch.tensordot(box, W, 1), torch.matmul(box, W)):
        torch.testing.assert_close(out.radius, width)
    torch.testing.assert_close(torch.einsum("bij,bij->bj", box, LIKE).radius, 0.1 * LIKE.abs().sum(1))


def test_every_derived_function_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    called = set()
    table = rules._table[Value]
    for function, answer in table.items():

        def noted(*args: Any, _function: Any = function, _answer: Any = answer, **kwargs: Any) -> Any:
            called.add(_function)
            return _answer(*args, **kwargs)

        monkeypatch.setitem(table, function, noted)
    for function in CASES.values():
        function(fb.linf_box(X, 0.1))
    missed = {rules.function_name(function) for function in set(table) - called}
    assert missed <= {"torch.Tensor.cuda"}


def test_what_has_no_meaning_is_refused() -> None:
    box = fb.linf_box(X, 0.1)
    for call, message in (
        (lambda: torch.einsum("bij,bkj->bik", box, box), "wanted one abstract operand"),
        (lambda: torch.einsum("...j,jk->...k", box, W), r"no '\.\.\.'"),
        (lambda: torch.einsum("bii->b", box[:, :, :4]), "every letter once"),
        (lambda: torch.where(box, X, X), "wanted a constant condition"),
        (lambda: torch.where(X, box, X), "a tensor of booleans"),
        (lambda: (-2.0) ** box, "wanted a number > 0"),
        (lambda: torch.div(box, 2.0, rounding_mode="floor"), "rounding_mode"),
        (lambda: F.log_softmax(box, 1, dtype=torch.float64), "wanted a dim and no dtype"),
    ):
        with pytest.raises(NotImplementedError, match=message):
            call()
    for call, message in (
        (lambda: box.t(), "t: wanted at most 2 dimensions"),
        (lambda: torch.einsum("bi,jk->bk", box, W), "'bi' of 'bi,jk->bk' does not fit shape"),
        (lambda: torch.einsum("bij,jk->bix", box, W), "letters that no operand has"),
        (lambda: torch.einsum("bij,ik->bk", box, W), "does not fit"),
        (lambda: box.split([1, 1], 1), "sizes that add up to 4"),
        (lambda: box.split(-1, 1), "a size > 0"),
        (lambda: box.chunk(0, 1), "chunks > 0"),
        (lambda: box.flatten(1, 0), "comes after"),
        (lambda: torch.mm(box, W), "mm: wanted 2 dimensions each"),
        (lambda: box.masked_fill(POSITIVE, torch.ones(5)), "wanted one number"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for start, length in ((3, 2), (-1, 2), (0, -1)):
        with pytest.raises(IndexError, match="narrow"):
            box.narrow(1, start, length)


# ---- the logarithm of a softmax --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown"])
@pytest.mark.parametrize("grad", [True, False])
def test_margins_of_a_log_softmax_are_those_of_the_logits(method: str, grad: bool) -> None:
    torch.manual_seed(0)
    logits = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5))
    x, labels = torch.rand(4, 6), torch.arange(4)
    margins = fb.margin_spec(labels, 5)
    for spec in (margins, margins.clone(), torch.tensor([1.0, 1, -1, -1, 0]).expand(4, 1, 5)):
        with torch.set_grad_enabled(grad):
            wanted = fb.bound(logits, fb.linf_box(x, 0.1), method=method, spec=spec)
            found = fb.bound(nn.Sequential(logits, nn.LogSoftmax(1)), fb.linf_box(x, 0.1), method=method, spec=spec)
            torch.testing.assert_close(found.lower, wanted.lower)
            torch.testing.assert_close(found.upper, wanted.upper)
            torch.testing.assert_close(found.nominal, wanted.nominal)
    fused = [
        fb.losses.fused_cross_entropy(model(fb.linf_box(x, 0.1)), labels, 0.5)
        for model in (logits, nn.Sequential(logits, nn.LogSoftmax(1)))
    ]
    torch.testing.assert_close(*fused)


def test_log_softmax_itself_is_exact_and_sound_at_extremes() -> None:
    center, radius = 40 * torch.randn(200, 6, dtype=torch.float64), 8 * torch.rand(200, 6, dtype=torch.float64)
    radius[::3] = 0
    box = fb.box(center - radius, center + radius)
    out = F.log_softmax(box, 1)
    for index in range(6):
        corner = center + radius
        corner[:, index] = (center - radius)[:, index]
        torch.testing.assert_close(out.lower[:, index], corner.log_softmax(1)[:, index])
        corner = center - radius
        corner[:, index] = (center + radius)[:, index]
        torch.testing.assert_close(out.upper[:, index], corner.log_softmax(1)[:, index])
    tight = fb.bound(nn.LogSoftmax(1), box, method="crown")
    points = box.lower + (box.upper - box.lower) * torch.rand(300, 200, 6, dtype=torch.float64)
    values = points.log_softmax(2)
    assert (values >= tight.lower - 1e-9).all() and (values <= tight.upper + 1e-9).all()
    single = F.log_softmax(fb.linf_box(torch.randn(3, 1), 0.1), 1)
    assert single.lower.eq(0).all() and single.upper.eq(0).all()
