"""Neither the instruction set nor the number of threads changes what fastbound._C computes."""

import json
import os
import subprocess
import sys

import every_pass
import numpy as np
import pytest
import torch
from conftest import ROOT
from native_calls import close, map_inputs, margin_inputs, run

from fastbound import _C

ISAS = ["base", "avx2", "avx512"]


def program(isa, *arguments):
    """A process of that instruction set, or of the best one that this processor has."""
    folders = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = {**os.environ, "FASTBOUND_ISA": isa, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": folders}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], env=environment, text=True, **pipes)


def test_instruction_sets_agree_to_the_bit():
    """In every output of every pass, for all that it can choose from (`every_pass`)."""
    others = {isa: program(isa, every_pass.__file__) for isa in ISAS if isa != _C.isa}
    found = every_pass.digests()
    assert {key.split()[0] for key in found} == set(_C.passes)
    for isa, process in others.items():
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        other = json.loads(output)
        assert ISAS.index(other.pop("isa")) <= ISAS.index(isa)
        assert other.keys() == found.keys()
        assert not [key for key in found if other[key] != found[key]], f"{isa} differs from {_C.isa}"


def test_unknown_instruction_set_is_refused():
    process = program("sse9", "-c", "from fastbound import _C")
    _, errors = process.communicate()
    assert process.returncode != 0
    assert "FASTBOUND_ISA must be base, avx2 or avx512, got 'sse9'" in errors


@pytest.mark.parametrize("name", ["fwd", "bwd", "bwd_sums", "statistics", "margin_bwd"])
def test_threads_and_repetition(name):
    """A call repeats to the bit; with another number of threads only the order of a map's sums may change."""
    shape, sizes = (900, 30, 1), (64, 700, 10)
    d, m = map_inputs(shape, 2, np.float32), margin_inputs(sizes, np.float32)
    layer = [d["stack"], d["radius"], d["scale"], d["shift"]]
    grads = [d["grad_stack"], d["grad_radius"]]
    function, numbers, inputs = {
        "fwd": ("interval_norm_relu_fwd", (*shape, 2, 0.1), layer),
        "bwd": ("interval_norm_relu_bwd", (*shape, 2, 0.1), [*grads, *layer, d["mul"], d["add"]]),
        "bwd_sums": ("interval_norm_relu_bwd_sums", (*shape, 2, 0.1), [*grads, *layer]),
        "statistics": ("norm_statistics", shape, [d["grad_radius"]]),
        "margin_bwd": ("interval_margin_bwd", sizes, [m["grad"], m["radius"], m["weight"], m["labels"]]),
    }[name]
    inputs = [torch.from_numpy(array) for array in inputs]

    def with_threads(count):
        return [out.numpy() for out in run(function, *numbers, *inputs, threads=count)]

    one, two, again, many = with_threads(1), with_threads(2), with_threads(2), with_threads(7)
    for a, b, c, e in zip(one, two, again, many):
        assert b.tobytes() == c.tobytes()
        if name in ("bwd_sums", "statistics"):
            close(a, b, 1e-4)
            close(a, e, 1e-4)
        else:
            assert a.tobytes() == b.tobytes() == e.tobytes()
