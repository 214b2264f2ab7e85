"""`interval_margin*` against a wide computation from the differences of rows."""

import numpy as np
import pytest
from native_calls import DTYPES, close, every_place, gamma, margin_inputs, wide

MARGINS = [
    (1, 1, 1),
    (3, 5, 2),
    (7, 33, 10),
    (16, 300, 10),
    (4, 513, 43),
    (64, 700, 10),
    (0, 5, 3),
    (5, 0, 3),
    (4, 6, 1),
]


def differences(d):
    """[B, K-1, D]: row of the label minus each other row, in increasing order of the class."""
    weight = d["weight"].astype(np.longdouble)
    rows = [weight[y] - np.delete(weight, y, 0) for y in d["labels"]]
    return np.stack(rows) if rows else np.zeros((0, len(weight) - 1, weight.shape[1]), np.longdouble)


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", MARGINS, ids=str)
def test_interval_margin_fwd(call, sizes, dtype):
    d = margin_inputs(sizes, dtype)
    (out,) = call("interval_margin_fwd", *sizes, d["radius"], d["weight"], d["labels"])
    wanted = (abs(differences(d)) * d["radius"][:, None]).sum(2)
    close(out, wanted, gamma(sizes[1] + 2, dtype) * wanted)


@every_place
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", MARGINS, ids=str)
@pytest.mark.parametrize("needs", ["both", "radius", "weight"])
def test_interval_margin_bwd(call, sizes, dtype, needs):
    d = margin_inputs(sizes, dtype)
    without = {"both": (), "radius": ("grad_weight",), "weight": ("grad_radius",)}[needs]
    inputs = (d["grad"], d["radius"], d["weight"], d["labels"])
    result = call("interval_margin_bwd", *sizes, *inputs, without=without)
    batch, _, classes = sizes
    grad, radius = wide(d["grad"], d["radius"])
    delta = differences(d)
    if needs != "weight":
        wanted = (grad[:, :, None] * abs(delta)).sum(1)
        close(result.pop(0), wanted, gamma(classes + 3, dtype) * (abs(grad)[:, :, None] * abs(delta)).sum(1))
    if needs != "radius":
        wanted, magnitude = np.zeros_like(delta, shape=d["weight"].shape), np.zeros_like(delta, shape=d["weight"].shape)
        for b, label in enumerate(d["labels"]):
            for i, other in enumerate(k for k in range(classes) if k != label):
                term = grad[b, i] * np.sign(delta[b, i]) * radius[b]
                wanted[label] += term
                wanted[other] -= term
                magnitude[label] += abs(term)
                magnitude[other] += abs(term)
        close(result.pop(0), wanted, gamma(batch * classes + 4, dtype) * magnitude)
