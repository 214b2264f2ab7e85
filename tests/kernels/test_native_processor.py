"""Neither the instruction set nor the number of threads changes what fastbound._C computes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from native_calls import Memory, close, map_inputs, margin_inputs

from fastbound import _C

ISAS = ["base", "avx2", "avx512"]


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set(isa):
    if "FASTBOUND_ISA" in os.environ:
        pytest.skip("already inside a run with a chosen instruction set")
    if isa == _C.isa:
        return  # this very run
    if ISAS.index(isa) > ISAS.index(_C.isa):
        pytest.skip(f"this processor has no {isa}")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-m",
        "not gpu and not cuda_on_cpu",
        "-k",
        "not float64",
        *map(str, sorted(Path(__file__).parent.glob("test_native_*.py"))),
    ]
    done = subprocess.run(
        command, env={**os.environ, "FASTBOUND_ISA": isa, "OMP_WAIT_POLICY": "passive"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


ELEMENTWISE = """
import numpy as np
from fastbound import _C
rng = np.random.default_rng(0)
stack, radius = rng.standard_normal((2, 50, 37)).astype("f4"), rng.random((50, 37)).astype("f4")
scale, shift = rng.standard_normal((2, 37)).astype("f4")
out, out_radius = np.empty_like(stack), np.empty_like(radius)
p = [a.ctypes.data for a in (stack, radius, scale, shift, out, out_radius)]
_C.interval_norm_relu_fwd(0, *p, 2, 50, 37, 1, 0.1, 1)
print(_C.isa, out.tobytes().hex(), out_radius.tobytes().hex())
"""


def test_instruction_sets_agree_to_the_bit():
    seen = {}
    for isa in ISAS:
        environment = {**os.environ, "FASTBOUND_ISA": isa}
        done = subprocess.run([sys.executable, "-c", ELEMENTWISE], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        used, *values = done.stdout.split()
        assert ISAS.index(used) <= ISAS.index(isa)
        seen[used] = hashlib.sha256("".join(values).encode()).hexdigest()
    assert "base" in seen
    assert len(set(seen.values())) == 1, seen


def test_unknown_instruction_set_is_refused():
    environment = {**os.environ, "FASTBOUND_ISA": "sse9"}
    done = subprocess.run([sys.executable, "-c", ELEMENTWISE], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "FASTBOUND_ISA must be base, avx2 or avx512, got 'sse9'" in done.stderr


@pytest.mark.parametrize("name", ["fwd", "bwd", "bwd_sums", "statistics", "margin_bwd"])
def test_threads_and_repetition(name):
    """A call repeats to the bit; with another number of threads only the order of a map's sums may change."""
    shape, sizes = (900, 30, 1), (64, 700, 10)
    d, m = map_inputs(shape, 2, np.float32), margin_inputs(sizes, np.float32)
    stack, full, channels = d["stack"].shape, shape, (shape[1],)
    layer = [d["stack"], d["radius"], d["scale"], d["shift"]]
    grads = [d["grad_stack"], d["grad_radius"]]
    function, inputs, outputs, rest = {
        "fwd": (_C.interval_norm_relu_fwd, layer, [stack, full], (2, *shape, 0.1)),
        "bwd": (_C.interval_norm_relu_bwd, [*grads, *layer, d["mul"], d["add"]], [stack, full], (2, *shape, 0.1)),
        "bwd_sums": (_C.interval_norm_relu_bwd_sums, [*grads, *layer], [channels, channels], (2, *shape, 0.1)),
        "statistics": (_C.norm_statistics, [d["grad_radius"]], [channels, channels], shape),
        "margin_bwd": (
            _C.interval_margin_bwd,
            [m["grad"], m["radius"], m["weight"], m["labels"]],
            [m["radius"].shape, m["weight"].shape],
            sizes,
        ),
    }[name]

    def run(threads):
        into = [Memory("cpu", shape=s, dtype=np.float32) for s in outputs]
        memories = [*(Memory("cpu", a) for a in inputs), *into]
        function(0, *(memory.pointer for memory in memories), *rest, threads)
        return [memory.get() for memory in into]

    one, two, again, many = run(1), run(2), run(2), run(7)
    for a, b, c, e in zip(one, two, again, many):
        assert b.tobytes() == c.tobytes()
        if name in ("bwd_sums", "statistics"):
            close(a, b, 1e-4)
            close(a, e, 1e-4)
        else:
            assert a.tobytes() == b.tobytes() == e.tobytes()
