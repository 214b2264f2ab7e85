"""Arguments that fastbound._C refuses before it reads a number: each message names pass and argument."""

import re

import pytest
import torch

from fastbound import _C

CHANNELS = ("scale", "shift")


def tensors(**shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


# A call of each pass that is taken, by name, in the order of its arguments.
MAP = {"outer": 2, "channels": 3, "inner": 4}
LAYER = {"stack": (2, 2, 3, 4), "radius": (2, 3, 4), "scale": 3, "shift": 3}
GRADS = {"grad_stack": (2, 2, 3, 4), "grad_radius": (2, 3, 4)}
SINGLE = {"nominal": (2, 3, 4), "radius": (2, 3, 4), "scale": 3, "shift": 3}
SINGLE_GRADS = {"grad_nominal": (2, 3, 4), "grad_radius": (2, 3, 4)}
SUMS, MORE = {"sum_scale": 3, "sum_shift": 3}, {"nominal_mul": 3, "nominal_add": 3}
STREAMS = {"streams": 2, "slope": 0.1}
ROWS = {"batch": 2, "functions": 3, "outer": 1, "channels": 4, "inner": 5, "slope": 0.1, "relaxation": 0}
BOUNDS = {"center": (2, 4, 5), "radius": (2, 4, 5), "scale": 4, "shift": 4, "offset": 4}
LABELS = torch.tensor([0, 2])
GOOD = {
    "interval_norm_relu_fwd": MAP | STREAMS | tensors(**LAYER, out_stack=(2, 2, 3, 4), out_radius=(2, 3, 4)),
    "interval_norm_relu_bwd": MAP
    | STREAMS
    | tensors(**GRADS, **LAYER, **MORE, out_grad_stack=(2, 2, 3, 4), out_grad_radius=(2, 3, 4)),
    "interval_norm_relu_bwd_sums": MAP | STREAMS | tensors(**GRADS, **LAYER, **SUMS),
    "interval_norm_relu_moments_fwd": MAP
    | STREAMS
    | tensors(**LAYER, out_stack=(2, 2, 3, 4), out_radius=(2, 3, 4), moments=8),
    "singleprop_norm_relu_fwd": MAP
    | {"activation": 1}
    | tensors(**SINGLE, out_nominal=(2, 3, 4), out_radius=(2, 3, 4)),
    "singleprop_norm_relu_bwd": MAP
    | {"activation": 1}
    | tensors(**SINGLE_GRADS, **SINGLE, **MORE, out_grad_nominal=(2, 3, 4), out_grad_radius=(2, 3, 4)),
    "singleprop_norm_relu_bwd_sums": MAP | {"activation": 1} | tensors(**SINGLE_GRADS, **SINGLE, **SUMS),
    "norm_statistics": MAP | tensors(x=(2, 3, 4), mean=3, var=3),
    "crown_relu_fwd": ROWS | tensors(rows=(2, 3, 4, 5), **BOUNDS, out_rows=(2, 3, 4, 5), bias=(2, 3)),
    "crown_concretize_bwd": {"batch": 2, "functions": 3, "size": 4}
    | tensors(grad=(2, 3), rows=(2, 3, 4), center=(2, 4), radius=(2, 4))
    | tensors(out_rows=(2, 3, 4), out_center=(2, 4), out_radius=(2, 4)),
    "crown_windows_fold": {"count": 1, "height": 2, "width": 2, "kernel_height": 2, "kernel_width": 2, "channels": 1}
    | {"map_height": 3, "map_width": 3, "stride_y": 1, "stride_x": 1, "padding_y": 0, "padding_x": 0}
    | {"dilation_y": 1, "dilation_x": 1}
    | tensors(columns=(1, 2, 2, 2, 2, 1), out=(1, 3, 3, 1)),
    "interval_margin_fwd": {"batch": 2, "features": 4, "classes": 3}
    | {**tensors(radius=(2, 4), weight=(3, 4)), "labels": LABELS, "out": torch.zeros(2, 2)},
    "interval_margin_bwd": {"batch": 2, "features": 4, "classes": 3}
    | {**tensors(grad=(2, 2), radius=(2, 4), weight=(3, 4)), "labels": LABELS}
    | tensors(grad_radius=(2, 4), grad_weight=(3, 4)),
    "signed_weight_grad": {"count": 5} | tensors(grad=5, grad_abs=5, weight=5, sum=5),
    "swap_axes": {"outer": 2, "rows": 3, "columns": 4} | tensors(x=(2, 3, 4), out=(2, 4, 3)),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_calls_are_taken_unchanged(name):
    assert list(GOOD[name]) == [field["name"] for field in _C.passes[name]]
    getattr(_C, name)(*GOOD[name].values())


def refused(name, error, message, **changed):
    assert not changed.keys() - GOOD[name].keys()
    with pytest.raises(error, match="^" + re.escape(message)):
        getattr(_C, name)(*(GOOD[name] | changed).values())


@pytest.mark.parametrize(
    "name, changed, message",
    [
        # Numbers.
        ("norm_statistics", {"channels": -1}, "channels: wanted a number of at least 0, got -1"),
        ("norm_statistics", {"channels": 3.0}, "channels: wanted an integer, got float"),
        ("norm_statistics", {"channels": None}, "channels: wanted an integer, got NoneType"),
        ("norm_statistics", {"channels": 2**63}, "channels: wanted a number of at least 0, got one beyond 64 bits"),
        (
            "crown_relu_fwd",
            {"relaxation": -(2**70)},
            "relaxation: wanted an integer from 0 to 3, got one beyond 64 bits",
        ),
        ("interval_margin_fwd", {"classes": 0}, "classes: wanted a number of at least 1, got 0"),
        ("interval_norm_relu_fwd", {"streams": 3}, "streams: wanted an integer from 1 to 2, got 3"),
        ("interval_norm_relu_fwd", {"streams": 0}, "streams: wanted an integer from 1 to 2, got 0"),
        ("interval_norm_relu_fwd", {"slope": -0.1}, "slope: wanted a number in [0, 1], got -0.1"),
        ("interval_norm_relu_fwd", {"slope": 1.1}, "slope: wanted a number in [0, 1], got 1.1"),
        ("interval_norm_relu_fwd", {"slope": float("nan")}, "slope: wanted a number in [0, 1], got nan"),
        ("interval_norm_relu_fwd", {"slope": "0.1"}, "slope: wanted a number, got str"),
        ("singleprop_norm_relu_fwd", {"activation": 3}, "activation: wanted an integer from 0 to 2, got 3"),
        ("crown_relu_fwd", {"relaxation": 4}, "relaxation: wanted an integer from 0 to 3, got 4"),
        ("crown_windows_fold", {"stride_y": 0}, "stride_y: wanted an integer from 1 to 2147483648, got 0"),
        ("crown_windows_fold", {"padding_x": -1}, "padding_x: wanted an integer from 0 to 2147483648, got -1"),
        # Tensors.
        ("norm_statistics", {"x": None}, "x: wanted a tensor, got NoneType"),
        ("norm_statistics", {"x": [1.0] * 24}, "x: wanted a tensor, got list"),
        ("interval_norm_relu_bwd", {"grad_stack": None}, "grad_stack: wanted a tensor, got NoneType"),
        ("interval_norm_relu_fwd", {"out_stack": None}, "out_stack: wanted a tensor, got NoneType"),
        ("interval_norm_relu_fwd", {"scale": 0}, "scale: wanted a tensor, got int"),
        (
            "interval_norm_relu_fwd",
            {"radius": torch.zeros(2, 3, 4, dtype=torch.float64)},
            "radius: wanted float32 [2, 3, 4] in one block of memory on cpu, "
            "got float64 [2, 3, 4] with strides [12, 4, 1] on cpu",
        ),
        (
            "interval_margin_fwd",
            {"labels": LABELS.int()},
            "labels: wanted int64 [2] in one block of memory on cpu, got int32",
        ),
        (
            "interval_margin_bwd",
            {"labels": LABELS.bool()},
            "labels: wanted int64 [2] in one block of memory on cpu, got bool",
        ),
        ("norm_statistics", {"mean": torch.zeros(3, dtype=torch.float16)}, "mean: wanted float32 [3] in one block"),
        ("signed_weight_grad", {"sum": torch.zeros(5, dtype=torch.complex64)}, "sum: wanted float32 [5] in one block"),
        # Lengths that are off by one, and the lengths of channels with fewer.
        (
            "norm_statistics",
            {"x": torch.zeros(23)},
            "x: wanted float32 [2, 3, 4] in one block of memory on cpu, got float32 [23]",
        ),
        ("norm_statistics", {"x": torch.zeros(25)}, "x: wanted float32 [2, 3, 4]"),
        ("norm_statistics", {"var": torch.zeros(2)}, "var: wanted float32 [3]"),
        ("norm_statistics", {"channels": 2**62, "outer": 1}, "x: wanted float32 [1, 4611686018427387904, 4]"),
        ("norm_statistics", {"channels": 2**62, "outer": 4}, "x: wanted float32 [4, 4611686018427387904, 4]"),
        ("norm_statistics", {"outer": 2**32, "channels": 2**32, "inner": 0}, "x: wanted float32 [4294967296, 4"),
        ("interval_norm_relu_fwd", {"stack": torch.zeros(2, 3, 4)}, "stack: wanted float32 [2, 2, 3, 4]"),
        ("interval_norm_relu_fwd", {"streams": 1}, "stack: wanted float32 [1, 2, 3, 4]"),
        ("interval_norm_relu_fwd", {"scale": torch.zeros(1)}, "scale: wanted float32 [3]"),
        ("interval_norm_relu_fwd", {"shift": torch.zeros(1)}, "shift: wanted float32 [3]"),
        ("interval_norm_relu_fwd", {"shift": torch.zeros(4)}, "shift: wanted float32 [3]"),
        ("interval_norm_relu_moments_fwd", {"radius": torch.zeros(2, 3, 3)}, "radius: wanted float32 [2, 3, 4]"),
        (
            "interval_norm_relu_moments_fwd",
            {"out_stack": torch.zeros(2, 3, 4)},
            "out_stack: wanted float32 [2, 2, 3, 4]",
        ),
        ("interval_norm_relu_moments_fwd", {"moments": torch.zeros(7)}, "moments: wanted float32 [8]"),
        ("crown_relu_fwd", {"scale": torch.zeros(1)}, "scale: wanted float32 [4]"),
        ("crown_relu_fwd", {"offset": torch.zeros(3)}, "offset: wanted float32 [4]"),
        ("crown_windows_fold", {"out": torch.zeros(1, 3, 2, 1)}, "out: wanted float32 [1, 3, 3, 1]"),
        ("interval_margin_fwd", {"labels": LABELS[:1]}, "labels: wanted int64 [2]"),
        ("interval_margin_fwd", {"classes": 2}, "weight: wanted float32 [2, 4]"),
        # Order in memory, gaps, and elements that share memory.
        (
            "interval_norm_relu_fwd",
            {"radius": torch.zeros(4, 2, 3).permute(1, 2, 0)},
            "radius: wanted float32 [2, 3, 4] in one block of memory on cpu, "
            "got float32 [2, 3, 4] with strides [3, 1, 6] on cpu",
        ),
        ("swap_axes", {"x": torch.zeros(2, 3, 8)[..., ::2]}, "x: wanted float32 [2, 3, 4] in one block of memory"),
        ("swap_axes", {"x": torch.zeros(2, 3, 5)[..., :4]}, "x: wanted float32 [2, 3, 4] in one block of memory"),
        (
            "swap_axes",
            {"x": torch.zeros(1, 3, 4).expand(2, 3, 4)},
            "x: wanted float32 [2, 3, 4] in one block of memory",
        ),
        ("norm_statistics", {"mean": torch.zeros(1).expand(3)}, "mean: wanted float32 [3] in one block of memory"),
        # Labels.
        ("interval_margin_fwd", {"labels": torch.tensor([0, 3])}, "labels[1]: wanted an integer from 0 to 2, got 3"),
        ("interval_margin_bwd", {"labels": torch.tensor([-1, 0])}, "labels[0]: wanted an integer from 0 to 2, got -1"),
        # Whatever else must hold.
        ("interval_norm_relu_fwd", {"shift": None}, "scale and shift must be given together"),
        ("singleprop_norm_relu_fwd", {"scale": None}, "scale and shift must be given together"),
        ("singleprop_norm_relu_bwd", {"scale": None}, "scale and shift must be given together"),
        ("interval_norm_relu_bwd", {"nominal_add": None}, "nominal_mul and nominal_add come together"),
        ("singleprop_norm_relu_bwd", {"nominal_mul": None}, "nominal_mul and nominal_add come together"),
        ("interval_norm_relu_bwd", dict.fromkeys(CHANNELS), "nominal_mul needs scale and a nominal stream"),
        ("singleprop_norm_relu_bwd", dict.fromkeys(CHANNELS), "nominal_mul needs scale"),
        ("interval_norm_relu_bwd_sums", dict.fromkeys(CHANNELS), "scale and shift: wanted tensors, got None"),
        ("singleprop_norm_relu_bwd_sums", dict.fromkeys(CHANNELS), "scale and shift: wanted tensors, got None"),
        ("crown_concretize_bwd", {"out_center": None}, "out_center and out_radius must be given together"),
        ("norm_statistics", {"outer": 0, "x": torch.zeros(0)}, "wanted at least one value per channel, got none"),
    ],
)
def test_values(name, changed, message):
    refused(name, ValueError, f"{name}: {message}", **changed)


def test_a_nominal_stream_is_needed_for_its_gradient():
    one = tensors(grad_stack=(1, 2, 3, 4), stack=(1, 2, 3, 4), out_grad_stack=(1, 2, 3, 4))
    message = "interval_norm_relu_bwd: nominal_mul needs scale and a nominal stream"
    refused("interval_norm_relu_bwd", ValueError, message, streams=1, **one)


def test_a_map_of_rows_has_its_channels_innermost_or_outermost():
    both = ROWS | {"outer": 2} | tensors(rows=(2, 3, 2, 4, 5), **BOUNDS, out_rows=(2, 3, 2, 4, 5), bias=(2, 3))
    with pytest.raises(
        ValueError, match=r"^crown_relu_fwd: a map has its channels innermost \(inner = 1\) or outermost"
    ):
        _C.crown_relu_fwd(*both.values())


@pytest.mark.parametrize(
    "name, into, of",
    [
        ("interval_norm_relu_fwd", "out_radius", "radius"),
        ("interval_norm_relu_bwd", "out_grad_stack", "grad_stack"),
        ("swap_axes", "out", "x"),
        ("signed_weight_grad", "sum", "grad_abs"),
        ("interval_norm_relu_fwd", "out_radius", "out_stack"),
        ("norm_statistics", "var", "mean"),
        ("norm_statistics", "mean", "x"),
    ],
)
def test_what_is_written_overlaps_nothing(name, into, of):
    good = GOOD[name]
    memory = torch.zeros(good[into].numel() + good[of].numel() - 1)  # one element is shared
    written = memory[: good[into].numel()].view_as(good[into])
    other = memory[good[into].numel() - 1 :].view_as(good[of])
    with pytest.raises(ValueError, match=rf"^{name}: \w+: wanted memory of its own, got some of that of \w+$"):
        getattr(_C, name)(*(good | {into: written, of: other}).values())


def test_in_place_is_for_the_whole_of_one_input():
    memory = torch.zeros(6)
    message = "signed_weight_grad: sum: wanted memory of its own, got some of that of grad"
    refused("signed_weight_grad", ValueError, message, grad=memory[:5], sum=memory[1:])


@pytest.mark.parametrize("name", GOOD)
def test_numbers_of_arguments(name):
    function, arguments = getattr(_C, name), list(GOOD[name].values())
    with pytest.raises(TypeError, match=f"^{name} takes {len(arguments)} arguments, got {len(arguments) + 1}"):
        function(*arguments, arguments[-1])
    for count in range(len(arguments)):
        with pytest.raises(
            TypeError, match=f"^{name} (takes more than {count} arguments|has no code for a call without)"
        ):
            function(*arguments[:count])


@pytest.mark.parametrize(
    "dtype, told",
    [(torch.float16, "float16"), (torch.int64, "int64"), (torch.complex64, "complex64"), (torch.bool, "bool8")],
)
@pytest.mark.parametrize("name", GOOD)
def test_dtypes_without_code(name, dtype, told):
    arguments = [a.to(dtype) if isinstance(a, torch.Tensor) else a for a in GOOD[name].values()]
    with pytest.raises(TypeError, match=f"^{name} has no code for {told} on cpu"):
        getattr(_C, name)(*arguments)


@pytest.mark.parametrize("name", ["crown_relu_fwd", "swap_axes", "interval_margin_fwd"])
def test_bfloat16_is_for_maps_between_products(name):
    arguments = [a.bfloat16() if isinstance(a, torch.Tensor) else a for a in GOOD[name].values()]
    with pytest.raises(TypeError, match=f"^{name} has no code for bfloat16 on cpu"):
        getattr(_C, name)(*arguments)


def test_tensors_without_memory():
    for x in (torch.zeros(2, 3, 4, device="meta"), torch.zeros(2, 3, 4).to_sparse()):
        with pytest.raises((TypeError, RuntimeError, ValueError, BufferError)):
            _C.norm_statistics(*(GOOD["norm_statistics"] | {"x": x}).values())
