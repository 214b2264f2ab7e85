"""Arguments that fastbound._C refuses, and its error messages."""

import numpy as np
import pytest

from fastbound import _C

P = 64  # an address that is never read: every one of these calls is refused first


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("interval_norm_relu_fwd", (2, P, P, 0, 0, P, P, 2, 1, 1, 1, 0.0, 1), r"dtype must be 0 .* or 3 .*, got 2"),
        ("swap_axes", (3, P, P, 1, 1, 1, 1), r"dtype must be 0 .* or 1 .*, got 3"),
        ("interval_norm_relu_fwd", (0, 0, P, 0, 0, P, P, 2, 1, 1, 1, 0.0, 1), "stack is a null pointer"),
        ("interval_norm_relu_fwd", (0, P, P, P, 0, P, P, 2, 1, 1, 1, 0.0, 1), "scale and shift must be given together"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 3, 1, 1, 1, 0.0, 1), "streams must be 1"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 2, -1, 1, 1, 0.0, 1), "outer must not be negative, got -1"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 2, 1, 1, 1, -0.1, 1), "slope must lie in"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 2, 1, 1, 1, float("nan"), 1), "slope must lie in"),
        ("interval_norm_relu_fwd", (0, P, P, 0, 0, P, P, 2, 1, 1, 1, 0.0, 0), "threads must be at least 1, got 0"),
        ("interval_norm_relu_bwd", (0, P, P, P, P, 0, 0, P, P, P, P, 2, 1, 1, 1, 0.0, 1), "nominal_mul needs scale"),
        ("interval_norm_relu_bwd", (0, P, P, P, P, P, P, P, P, P, P, 1, 1, 1, 1, 0.0, 1), "nominal_mul needs scale"),
        ("interval_norm_relu_bwd_sums", (0, P, P, P, P, 0, P, P, P, 2, 1, 1, 1, 0.0, 1), "scale is a null pointer"),
        ("singleprop_norm_relu_fwd", (0, P, 0, 0, 0, P, P, 1, 1, 1, 1, 1), "radius is a null pointer"),
        ("singleprop_norm_relu_fwd", (0, P, P, 0, 0, P, P, 1, 1, 1, 3, 1), "activation must be 0"),
        ("singleprop_norm_relu_bwd", (0, P, P, P, P, 0, 0, P, P, P, P, 1, 1, 1, 1, 1), "nominal_mul needs scale"),
        ("singleprop_norm_relu_bwd_sums", (0, P, P, P, P, P, 0, P, P, 1, 1, 1, 1, 1), "shift is a null pointer"),
        ("norm_statistics", (0, P, P, P, 0, 3, 1, 1), "at least one value per channel"),
        ("interval_margin_fwd", (0, P, P, P, P, 1, 1, 0, 1), "classes must be at least 1"),
        ("interval_margin_bwd", (0, P, 0, P, P, P, P, 1, 1, 2, 1), "radius is a null pointer"),
        ("signed_weight_grad", (0, P, P, P, P, -5, 1), "n must not be negative, got -5"),
    ],
)
def test_refusals(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(_C, name)(*arguments)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_out_of_range(label):
    labels = np.array([0, label])
    with pytest.raises(ValueError, match=rf"labels\[1\] must lie in \[0, 3\), got {label}"):
        _C.interval_margin_fwd(0, P, P, labels.ctypes.data, P, 2, 1, 3, 1)
    with pytest.raises(ValueError, match=rf"labels\[1\] must lie in \[0, 3\), got {label}"):
        _C.interval_margin_bwd(0, P, P, P, labels.ctypes.data, P, P, 2, 1, 3, 1)
