"""What the public functions refuse before any code reads a tensor, and that their neighbours pass."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastbound as fb
from fastbound import ops


def maps(*shape: int) -> Tensor:
    return torch.rand(shape)


NORM = {"mean": maps(3), "var": maps(3), "weight": maps(3), "bias": maps(3), "eps": 1e-5}
WINDOW = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
# Arguments that every function takes; a refusal below changes some of them.
GOOD: dict[str, dict[str, Any]] = {
    "interval_linear": {"stack": maps(2, 5, 4), "radius": maps(5, 4), "weight": maps(3, 4), "bias": maps(3)},
    "interval_conv2d": {
        **{"stack": maps(2, 5, 4, 6, 7), "radius": maps(5, 4, 6, 7), "weight": maps(6, 2, 3, 3), "bias": maps(6)},
        **WINDOW,
    },
    "interval_margin": {"radius": maps(5, 4), "weight": maps(3, 4), "labels": torch.tensor([0, 1, 2, 0, 1])},
    "interval_norm_relu": {"stack": maps(2, 5, 3, 4), "radius": maps(5, 3, 4), **NORM, "negative_slope": 0.1},
    "singleprop_norm_relu": {"nominal": maps(5, 3, 4), "radius": maps(5, 3, 4), **NORM},
    "interval_norm_relu_statistics": {"nominal": maps(5, 3, 4)},
    "crown_linear": {"rows": maps(2, 5, 3), "weight": maps(3, 4), "bias": maps(3)},
    "crown_conv2d": {
        **{"rows": maps(2, 5, 6, 3, 3), "weight": maps(6, 2, 3, 3), "bias": maps(6), "size": (6, 7)},
        **WINDOW,
    },
    "crown_relu": {
        **{"rows": maps(2, 5, 3, 4), "center": maps(2, 3, 4), "radius": maps(2, 3, 4)},
        **{"scale": maps(3), "shift": maps(3), "offset": maps(3), "negative_slope": 0.1, "relaxation": "zero"},
    },
    "crown_concretize": {"rows": maps(2, 5, 3, 4), "center": maps(2, 3, 4), "radius": maps(2, 3, 4)},
    "lipschitz_power": {"iterate": maps(1, 4, 6, 7), "weight": maps(6, 2, 3, 3), "iterations": 1, **WINDOW},
}
for name in ("interval_norm_relu_with_box", "interval_norm_relu_moments", "interval_norm_relu_moments_with_box"):
    GOOD[name] = GOOD["interval_norm_relu"]
NORMS = [name for name in GOOD if name.startswith("interval_norm_relu") and not name.endswith("statistics")]
CONVOLUTIONS = ["interval_conv2d", "crown_conv2d", "lipschitz_power"]

Refusal = tuple[list[str], dict[str, Any], str]
REFUSALS: list[Refusal] = [
    # maps
    (["interval_linear"], {"stack": maps(2, 5, 3)}, r"stack: wanted \[N, 5, 4\] for this radius, .* got \(2, 5, 3\); "),
    (["interval_linear"], {"stack": maps(3, 5, 4)}, r"stack: wanted \[N, 5, 4\] .* N = 1 .* or 2 .*, got \(3, 5, 4\)"),
    (["interval_linear"], {"stack": maps(0, 5, 4)}, r"stack: .* got \(0, 5, 4\)"),
    (["interval_linear"], {"radius": maps(5, 3)}, r"radius: wanted \[\*, 4\] for weight \(3, 4\), got \(5, 3\); "),
    (["interval_linear"], {"radius": maps(1, 4)}, r"stack: .* got \(2, 5, 4\)"),
    (["interval_linear"], {"radius": maps()}, r"radius: wanted \[\*, 4\] .* got \(\)"),
    (["interval_conv2d"], {"stack": maps(2, 5, 4, 6, 1)}, r"stack: .* got \(2, 5, 4, 6, 1\)"),
    (["interval_conv2d"], {"radius": maps(4, 6, 7)}, r"radius: wanted \[B, C, H, W\], got \(4, 6, 7\)"),
    (
        ["interval_conv2d"],
        {"radius": maps(5, 2, 6, 7)},
        r"radius: wanted \[B, 4, H, W\] .*groups=2, got \(5, 2, 6, 7\)",
    ),
    (NORMS, {"stack": maps(2, 5, 3, 3)}, r"stack: wanted \[N, 5, 3, 4\] .* got \(2, 5, 3, 3\)"),
    (NORMS, {"stack": maps(2, 1, 3, 4)}, r"stack: .* got \(2, 1, 3, 4\)"),
    (NORMS, {"stack": maps(3, 5, 3, 4)}, r"stack: .* got \(3, 5, 3, 4\)"),
    (NORMS, {"stack": maps(1, 5, 3, 4), "batch_statistics": True}, r"batch_statistics: wanted a nominal stream"),
    (["interval_norm_relu_statistics"], {"nominal": maps(3)}, r"nominal: wanted \[B, C, \*\] .* got \(3,\)"),
    (["interval_norm_relu_statistics"], {"nominal": maps(0, 3)}, r"nominal: .* at least one value .* got \(0, 3\)"),
    (["singleprop_norm_relu"], {"radius": maps(5, 3, 1)}, r"radius: wanted shape \(5, 3, 4\), that of nominal, got"),
    (["crown_relu", "crown_concretize"], {"radius": maps(2, 3, 1)}, r"radius: .* that of center, got \(2, 3, 1\); "),
    (["crown_relu", "crown_concretize"], {"rows": maps(2, 5, 3)}, r"rows: wanted \[B, S, .* got \(2, 5, 3\) for a box"),
    (["crown_relu", "crown_concretize"], {"rows": maps(1, 5, 3, 4)}, r"rows: .* got \(1, 5, 3, 4\) for a box"),
    (["crown_relu", "crown_concretize"], {"rows": maps(2)}, r"rows: .* got \(2,\) for a box"),
    (
        ["crown_relu"],
        {"rows": maps(2, 5), "center": maps(2), "radius": maps(2)},
        r"rows: wanted \[B, S, C, \*\] .* got \(2, 5\)",
    ),
    (["crown_linear"], {"rows": maps(2, 5, 4)}, r"rows: wanted \[B, S, \*, 3\] for weight \(3, 4\), got \(2, 5, 4\)"),
    (["crown_linear"], {"rows": maps(5, 3)}, r"rows: wanted \[B, S, \*, 3\] .* got \(5, 3\)"),
    (["crown_conv2d"], {"rows": maps(2, 5, 6, 3, 4)}, r"rows: wanted \[B, S, 6, 3, 3\], .* size \(6, 7\), got"),
    (["crown_conv2d"], {"rows": maps(5, 6, 3, 3)}, r"rows: .* got \(5, 6, 3, 3\)"),
    (["crown_conv2d"], {"size": (3, 3)}, r"rows: wanted .* size \(3, 3\)|size: wanted room"),
    (["crown_conv2d"], {"size": (7, 8)}, r"rows: wanted \[B, S, 6, 4, 4\], .* size \(7, 8\), got"),
    (["crown_conv2d"], {"size": (0, 7)}, r"size: wanted room .* got maps of \(0, 7\) pixels"),
    (["crown_conv2d"], {"size": (6,)}, r"size: wanted height and width .* got \(6,\)"),
    (["crown_conv2d"], {"size": 6}, r"size: wanted height and width .* got 6"),
    # weights and vectors
    (["interval_linear", "crown_linear"], {"weight": maps(3)}, r"weight: wanted \[O, I\], got \(3,\)"),
    (["interval_linear", "crown_linear"], {"bias": maps(1)}, r"bias: wanted shape \(3,\), .* got \(1,\); "),
    (["interval_linear", "crown_linear"], {"bias": maps(3, 1)}, r"bias: wanted shape \(3,\), .* got \(3, 1\)"),
    (["interval_conv2d", "crown_conv2d"], {"bias": maps(1)}, r"bias: wanted shape \(6,\), one number for each output"),
    (
        ["interval_conv2d", "crown_conv2d"],
        {"weight": maps(6, 2, 3)},
        r"weight: wanted 4 dimensions, .* got \(6, 2, 3\)",
    ),
    (CONVOLUTIONS, {"weight": maps(6, 2, 0, 3)}, r"weight: wanted .* one pixel, got \(6, 2, 0, 3\)"),
    (["interval_margin"], {"weight": maps(3, 3)}, r"weight: wanted \[K, 4\] for radius \(5, 4\), K >= 1, got \(3, 3\)"),
    (["interval_margin"], {"weight": maps(0, 4)}, r"weight: .* got \(0, 4\)"),
    (["interval_margin"], {"radius": maps(5, 2, 2)}, r"radius: wanted \[B, D\], got \(5, 2, 2\)"),
    *(
        (
            [*NORMS, "singleprop_norm_relu"],
            {vector: maps(length)},
            rf"{vector}: wanted shape \(3,\), .* \({length},\); ",
        )
        for vector, length in itertools.product(("mean", "var", "weight", "bias"), (1, 2, 4))
    ),
    *(([*NORMS, "singleprop_norm_relu"], {v: None}, rf"{v}: wanted a tensor \[C\], got None") for v in ("mean", "var")),
    ([*NORMS, "singleprop_norm_relu"], {"mean": None, "var": None}, r"mean: wanted .* or no argument of a norm at all"),
    (
        NORMS,
        {"stack": maps(2, 3), "radius": maps(3)},
        r"mean: wanted no statistics for maps without channels, got \(3,\)",
    ),
    *(
        (["crown_relu"], {v: maps(1)}, rf"{v}: wanted shape \(3,\), .* got \(1,\)")
        for v in ("scale", "shift", "offset")
    ),
    (["crown_relu"], {"scale": None}, r"scale: wanted a tensor \[C\], got None; pass both scale and shift"),
    (["crown_relu"], {"shift": None}, r"shift: wanted a tensor \[C\], got None; pass both scale and shift"),
    # labels
    (["interval_margin"], {"labels": torch.zeros(4).long()}, r"labels: wanted shape \(5,\), .* got \(4,\)"),
    (["interval_margin"], {"labels": torch.zeros(5, 1).long()}, r"labels: wanted shape \(5,\), .* got \(5, 1\)"),
    (["interval_margin"], {"labels": torch.tensor([0, 1, 2, 3, 0])}, r"labels: wanted classes in \[0, 3\), got 0 to 3"),
    (["interval_margin"], {"labels": torch.tensor([0, -1, 2, 0, 0])}, r"labels: .* got -1 to 2"),
    # numbers
    *(
        (
            [*NORMS, "crown_relu"],
            {"negative_slope": slope},
            rf"negative_slope: wanted a number in \[0, 1\], got {slope}",
        )
        for slope in (-0.1, 1.5, float("nan"))
    ),
    *(
        ([*NORMS, "singleprop_norm_relu"], {"eps": eps}, rf"eps: wanted a number of at least 0, got {eps}")
        for eps in (-1e-5, float("nan"))
    ),
    (["crown_relu"], {"relaxation": "loose"}, r"relaxation: wanted one of adaptive, .*, got 'loose'"),
    (["singleprop_norm_relu"], {"variant": "one"}, r"variant: wanted one of zero, fast-lin, got 'one'"),
    (CONVOLUTIONS, {"stride": (0, 1)}, r"stride: wanted 2 numbers from 1 on .* got \(0, 1\)"),
    (CONVOLUTIONS, {"stride": 2}, r"stride: wanted 2 numbers .* got 2; write a tuple"),
    (CONVOLUTIONS, {"padding": (1, -1)}, r"padding: wanted 2 numbers from 0 on .* got \(1, -1\)"),
    (CONVOLUTIONS, {"padding": "same"}, r"padding: wanted 2 numbers .* got 'same'"),
    (CONVOLUTIONS, {"dilation": (1, 0)}, r"dilation: wanted 2 numbers from 1 on .* got \(1, 0\)"),
    (CONVOLUTIONS, {"dilation": [1, 1, 1]}, r"dilation: wanted 2 numbers .* got \[1, 1, 1\]"),
    (CONVOLUTIONS, {"dilation": (4, 1)}, r"wanted room for the window \(3, 3\) with dilation \(4, 1\), got maps of"),
    (CONVOLUTIONS, {"groups": 4}, r"groups: wanted a number that divides the 6 outputs .* got 4"),
    (CONVOLUTIONS, {"groups": 0}, r"groups: .* got 0"),
]


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("autocast", [False, True])
def test_good_arguments_pass_by_name_and_by_place(name: str, autocast: bool) -> None:
    function, given = getattr(ops, name), GOOD[name]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        by_name, by_place = function(**given), function(*given.values())
    for found, expected in zip(by_name, by_place):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        pytest.param(name, changes, message, id=f"{name}-{number}-{'-'.join(changes)}")
        for number, (names, changes, message) in enumerate(REFUSALS)
        for name in names
    ],
)
@pytest.mark.parametrize("needs_grad", [False, True])
def test_a_wrong_argument_is_named(name: str, changes: dict[str, Any], message: str, needs_grad: bool) -> None:
    """By the reference too, which would broadcast, or answer in torch's words."""
    given = {
        key: value.detach().requires_grad_(needs_grad)
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for key, value in {**GOOD[name], **changes}.items()
    }
    said = name.removesuffix("_with_box")
    with fb.use_backend("reference"), pytest.raises(ValueError, match=rf"^{said}: .*{message}"):
        getattr(ops, name)(**given)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float32])
def test_labels_of_another_dtype_are_refused(dtype: torch.dtype) -> None:
    """The compiled pass reads memory as int64."""
    radius, weight, labels = GOOD["interval_margin"].values()
    with pytest.raises(
        TypeError, match=rf"interval_margin: labels: wanted torch.int64, got {dtype}; .*labels.long\(\)"
    ):
        ops.interval_margin(radius, weight, labels.to(dtype))


def torch_takes(x: Tensor, weight: Tensor, *window: Any) -> Tensor | None:  # [B, C, H, W], [O, C / groups, KH, KW]
    try:
        return F.conv2d(x, weight, None, *window)
    except RuntimeError:
        return None


def test_a_convolution_is_refused_if_and_only_if_torch_refuses_it() -> None:
    rng = random.Random(0)
    verdicts = {True: 0, False: 0}
    for _ in range(1500):
        height, width, groups = rng.randint(1, 6), rng.randint(1, 6), rng.choice((1, 1, 2, 3))
        x = torch.rand(2, rng.choice((groups, 2 * groups, 3)), height, width)
        weight = torch.rand(rng.randint(1, 6), max(1, x.shape[1] // groups), rng.randint(1, 4), rng.randint(1, 4))
        pairs = [(rng.randint(least, 2), rng.randint(least, 2)) for least in (0, -1, 0)]
        if rng.random() < 0.7:
            pairs = [(max(a, least), max(b, least)) for (a, b), least in zip(pairs, (1, 0, 1))]
        window = (*pairs, groups)
        wanted = torch_takes(x, weight, *window)
        verdicts[wanted is not None] += 1
        if wanted is None:
            with pytest.raises(ValueError, match=r"^interval_conv2d: \w+: wanted .*; "):
                ops.interval_conv2d(x.unsqueeze(0), x, weight, None, *window)
            continue
        assert ops.interval_conv2d(x.unsqueeze(0), x, weight, None, *window)[1].shape == wanted.shape
        rows = wanted.unsqueeze(1)
        assert ops.crown_conv2d(rows, weight, None, (height, width), *window)[0].shape[2:] == x.shape[1:]
        for size in itertools.product(range(height - 1, height + 2), range(width - 1, width + 2)):
            other = torch_takes(torch.rand(1, x.shape[1], *size), weight, *window) if min(size) > 0 else None
            if other is None or other.shape[2:] != wanted.shape[2:]:
                with pytest.raises(ValueError, match=r"^crown_conv2d: (size|rows): wanted .*; "):
                    ops.crown_conv2d(rows, weight, None, size, *window)
    assert min(verdicts.values()) > 300


def test_what_was_refused_is_refused_again_and_lists_are_taken() -> None:
    """Verdicts on convolutions are remembered."""
    good = GOOD["interval_conv2d"]
    expected = ops.interval_conv2d(**good)
    as_lists = {name: list(value) if isinstance(value, tuple) else value for name, value in good.items()}
    for found, wanted in zip(ops.interval_conv2d(**as_lists), expected):
        assert torch.equal(found, wanted)
    for _ in range(2):
        with pytest.raises(ValueError, match="groups: wanted"):
            ops.interval_conv2d(**{**good, "groups": 4})
