"""The Triton kernels without a GPU and without the interpreter: compiled ahead of time.

Every kernel in every configuration of `kernels/sm_90.json` compiles for that card; the suite prints registers, spills,
shared memory, tensor-core instructions and the waits after them, and fails on a spill, on more shared memory than the
card has, on a product in bf16, fp16 or TF32 that does not use the tensor cores, and on tensor cores that wait for every
product, unless the table marks the row as such; a mark that no longer holds fails too.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import fastbound as fb
from fastbound.kernels import _configurations

triton = pytest.importorskip("triton", reason="Triton is not installed: its kernels were NOT compiled")

from fastbound.kernels import _ahead_of_time, _support  # noqa: E402

if _support.INTERPRETED:
    pytest.skip("TRITON_INTERPRET=1 is set: a process that interprets cannot compile", allow_module_level=True)


CARD = "sm_90"
SHIPPED = list(_ahead_of_time.shipped(CARD))


@pytest.mark.parametrize("key, launch", SHIPPED)
def test_kernel_compiles_for_the_card(key: str, launch: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = _ahead_of_time.compiled(CARD, key, launch)
    with capsys.disabled():
        print(f"\n{report}", end="")
    assert_usable(report)


def assert_usable(report: _ahead_of_time.KernelReport) -> None:
    assert report.objection(CARD) is None, f"{report.objection(CARD)}: {report}"


def test_a_tile_that_is_too_large_is_noticed() -> None:
    shipped = _configurations.configuration(CARD, "interval_product", "bf16", 128)
    tile = replace(shipped, num_warps=4)
    with pytest.raises(AssertionError, match="registers spill"):
        assert_usable(_ahead_of_time.compiled_as(CARD, "interval_product/bf16/wide", "forward", tile))


def test_a_product_without_tensor_cores_is_noticed() -> None:
    """A tile of 32 rows is smaller than the instruction of a warp group."""
    tile = _configurations.Configuration(block_m=32, block_p=64, block_k=32, num_warps=4, num_stages=2)
    with pytest.raises(AssertionError, match="no tensor-core instruction"):
        assert_usable(_ahead_of_time.compiled_as(CARD, "rows_product/bf16/narrow", "forward", tile))


def test_an_ieee_product_on_tensor_cores_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tile = _configurations.configuration(CARD, "rows_product", "ieee", 128)
    monkeypatch.setattr(_ahead_of_time, "dot_precision", lambda precision: "tf32")
    with pytest.raises(AssertionError, match="IEEE float32 on tensor cores"):
        assert_usable(_ahead_of_time.compiled_as(CARD, "rows_product/ieee/wide", "forward", tile))


def test_what_is_compiled_ahead_is_what_a_launch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher, asked for the card on a layer with aligned channels, makes kernels that have been read alone."""
    monkeypatch.syspath_prepend(str(ROOT))
    absent_card = pytest.importorskip("bench.gpu.absent_card", reason="bench/ is not part of this checkout")
    read, ahead = _ahead_of_time._read, set()
    monkeypatch.setattr(_ahead_of_time, "_read", lambda key, launch, b: ahead.add(b.hash) or read(key, launch, b))
    for name in ("interval_product", "interval_weight_gradient"):
        for launch in _ahead_of_time.LAUNCHES[name]:
            _ahead_of_time.compiled(CARD, f"{name}/bf16/wide", launch)
    stack, radius = torch.zeros(2, 3, 80, 4, 4).bfloat16(), torch.zeros(3, 80, 4, 4).bfloat16()
    weight, bias = torch.zeros(96, 80, 3, 3).bfloat16(), torch.zeros(96).bfloat16()
    with absent_card.compiling_for(CARD) as launched, fb.use_backend("triton"):
        outputs = fb.ops.interval_conv2d(stack.requires_grad_(), radius, weight.requires_grad_(), bias)
        sum(map(torch.sum, outputs)).backward()
    assert launched <= ahead and len(launched) == 3, "forward, input gradient and weight gradient were read"


# ---- serialised tensor cores -----------------------------------------------------------------------------------------

SERIALISED, FREE = ("interval_product/bf16/narrow", "forward"), ("interval_product/bf16/wide", "forward")


@pytest.mark.parametrize("kernel, serialised", [(SERIALISED, True), (FREE, False)], ids=["serialised", "free"])
def test_what_the_binary_shows_is_what_ptxas_says(
    kernel: tuple[str, str], serialised: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """C7515 is how ptxas announces it; Triton throws its warnings away."""
    from triton.backends.nvidia.compiler import get_ptxas

    read, binaries = _ahead_of_time._read, []
    monkeypatch.setattr(_ahead_of_time, "_read", lambda key, launch, b: binaries.append(b) or read(key, launch, b))
    report = _ahead_of_time.compiled(CARD, *kernel)
    (tmp_path / "kernel.ptx").write_text(binaries[0].asm["ptx"])
    command = [get_ptxas(90).path, "-v", "--gpu-name=sm_90a", "kernel.ptx", "-o", "kernel.cubin"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    assert ("C7515" in said) == report.serialised == serialised, f"{report}\n{said}"
    assert f"{report.waits} full waits" in str(report) and ("SERIALISED" in str(report)) == serialised


def test_the_wait_after_a_loop_is_no_wait_for_a_product() -> None:
    """One product a step of the loop, which the next step overlaps, and one full wait at the end of all."""
    tile = _configurations.Configuration(block_m=64, block_p=64, block_k=16, num_warps=4, num_stages=3)
    report = _ahead_of_time.compiled_as(CARD, "rows_product/bf16/narrow", "forward", tile)
    assert (report.tensor_cores, report.waits) == (1, 0) and report.objection(CARD) is None


def test_a_disassembler_that_writes_waits_differently_is_noticed() -> None:
    wgmma, wait = "HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], R24, gsb0 ;\n", "WARPGROUP.DEPBAR.LE gsb0, 0x0 ;\n"
    assert _ahead_of_time._waits(2 * (wgmma + wait)) == 2 and _ahead_of_time._waits(2 * wgmma + wait) == 1
    with pytest.raises(RuntimeError, match="no wait for them"):
        _ahead_of_time._waits(2 * (wgmma + wait.replace("DEPBAR", "WAIT")))


def marked(monkeypatch: pytest.MonkeyPatch, kernel: tuple[str, str], series: list[str]) -> None:
    """The table as if it marked one launch for these series of Triton alone."""
    key, launch = kernel
    rows = dict(_configurations.table(CARD))
    rows[key] = {**rows[key], "serialised": {launch: series}}
    monkeypatch.setattr(_ahead_of_time, "table", lambda card: rows)


def test_a_serialised_row_without_a_mark_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _ahead_of_time.compiled(CARD, *SERIALISED)
    assert_usable(report)
    marked(monkeypatch, SERIALISED, ["3.5"])  # the mark of another compiler is none
    wanted = rf"{report.tensor_cores} full waits after {report.tensor_cores} wgmma, and sm_90.json has no mark"
    with pytest.raises(AssertionError, match=wanted):
        assert_usable(report)


def test_a_mark_that_no_longer_holds_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _ahead_of_time.compiled(CARD, *FREE)
    assert_usable(report)
    marked(monkeypatch, FREE, [_ahead_of_time.SERIES])
    with pytest.raises(AssertionError, match=rf"no longer serialised, {report.waits} full waits after"):
        assert_usable(report)


def test_marks_name_launches_and_trusted_versions() -> None:
    first, last = _support.TESTED
    series = {f"3.{minor}" for minor in range(first[1], last[1] + 1) if (3, minor) not in _support.SPILLING}
    for key, row in _configurations.table(CARD).items():
        for launch, versions in row.get("serialised", {}).items():
            assert launch in _ahead_of_time.LAUNCHES[key.split("/")[0]] and set(versions) <= series, (key, launch)
            assert versions, f"{key}, {launch}: a mark without a version"
