"""The drivers of the GPU suite without a GPU: all of them run, on tiny shapes. For their order see test_lease."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT

SUITE = ROOT / "bench" / "gpu"
sys.path.insert(0, str(ROOT))

pytestmark = pytest.mark.skipif(not SUITE.is_dir(), reason="bench/ is not part of this checkout")


def run(*command: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=check)


def driver(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", f"bench.gpu.{name}", *options, "--device", "cpu", check=False)


def small(name: str, out: Path, *options: str) -> dict:
    done = driver(name, str(out), "--small", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    name = options[options.index("--name") + 1] if "--name" in options else name
    content = json.loads((out / f"{name}.json").read_text())
    assert content["commit"] and content["machine"]["torch"] == torch.__version__ and content["rows"]
    table = (out / f"{name}.md").read_text()
    assert table in done.stdout and table.startswith(f"# {name}: ")
    return content


# ---- the drivers -----------------------------------------------------------------------------------------------------


def test_kernels(tmp_path: Path) -> None:
    content = small("kernels", tmp_path, "--rounds", "2")
    rows = content["rows"]
    assert not content["failed"] and not content["left_out"]
    from fastbound import backends

    # Every primitive in both directions by plain torch at least, or it is said that one has no case.
    measured = {(row["kernel"], row["case"].split(",")[0].split()[0]) for row in rows if row["backend"] == "reference"}
    stems = [stem for stem in backends.primitives() if stem not in content["not_available"]]
    ways = {(stem, way) for stem in stems for way in ("forward", "backward")} - {("lipschitz_power", "backward")}
    assert ways <= measured and len(stems) >= 10
    for row in rows:
        assert row["ms"] > 0 and row["bytes"] > 0 and row["share of ceiling"] > 0
        assert (row["flop"] > 0) == ("linear" in row["kernel"] or "conv2d" in row["kernel"])


def test_the_floors_are_what_the_operations_count() -> None:
    """Bytes by hand for one case; multiplications of every product by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    from bench.gpu.case import Maker, Sizes
    from bench.gpu.cases import cases
    from fastbound import backends

    maker = Maker(torch.device("cpu"), torch.float32)
    for case in cases(Sizes.small()):
        buffers = case.make(maker)
        code = backends._load("reference", case.stem, "cpu", torch.float32)[0]
        assert code is not None
        if case.products:
            with FlopCounterMode(display=False) as counter:
                case.run(code, buffers)
            ours, theirs = case.flops, counter.get_total_flops()
            # The reference also multiplies for the bias, which is small compared with a product.
            assert ours <= theirs <= 1.2 * ours, (case.stem, case.name, ours, theirs)
        elif case.stem == "interval_norm_relu" and case.name == "forward, channels_last":
            stack, radius, *channels = buffers
            maps = 4 * (stack.numel() + radius.numel())
            assert case.bytes_moved(buffers, case.run(code, buffers)) == 2 * maps + 16 * len(channels[0])


def test_the_script_is_well_formed() -> None:
    run("bash", "-n", str(SUITE / "lease.sh"))
    checker = shutil.which("shellcheck")
    if checker:
        run(checker, str(SUITE / "lease.sh"))
    refused = run(str(SUITE / "lease.sh"), "OUT", "--only", "speed", check=False, PYTHON=sys.executable)
    assert refused.returncode == 2 and "invalid choice: 'speed'" in refused.stderr
    listed = run(str(SUITE / "lease.sh"), "--list", PYTHON=sys.executable).stdout
    assert listed.startswith("environment ") and "tune" in listed


def test_environment(tmp_path: Path) -> None:
    content = small("environment", tmp_path)
    found = {row["check"]: row["result"] for row in content["rows"]}
    assert found == {f"native, {dtype}": "right" for dtype in ("float32", "float64", "bfloat16")}
    assert {"triton, float32", "CUDA graph"} <= set(content["not_available"])
    assert content["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "3 of 3 checks right" in content["headline"]


def test_environment_sees_a_wrong_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that is off by more than it may round; a check that raises; a card on which something is missing."""
    from bench.gpu import environment
    from fastbound.errors import BackendError

    plain = environment.native_check

    def off(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
        found, wanted, allowed = plain(dtype, device)
        found = found.clone()
        found[3] = float("nan") if dtype == torch.float64 else found[3] + 2 * allowed[3]
        return found, wanted, allowed

    def absent(device: torch.device) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(environment, "native_check", off)
    monkeypatch.setattr(environment, "graph_check", absent)
    assert environment.main([str(tmp_path), "--device", "cpu"]) == 1
    content = json.loads((tmp_path / "environment.json").read_text())
    assert {row["result"] for row in content["rows"]} == {"WRONG"} and len(content["rows"]) == 3
    assert content["failed"]["CUDA graph"] == "RuntimeError: planted"

    def refused() -> None:
        raise BackendError("no such code")

    for kind, where in (("cpu", "not_available"), ("cuda", "failed")):
        record = SimpleNamespace(device=torch.device(kind), not_available={}, failed={}, rows=[])
        environment._run(record, "native, float32", refused)
        assert getattr(record, where) == {"native, float32": "no such code"} and not record.rows


def test_convolutions(tmp_path: Path) -> None:
    content = small("convolutions", tmp_path, "--rounds", "2")
    assert len(content["rows"]) == 2 * 2 * 2 * 2 and all(row["error"] <= row["allowed"] for row in content["rows"])
    assert "all values right" in content["headline"]


def test_convolutions_see_a_wrong_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.gpu import convolutions
    from fastbound.native import interval_conv2d

    plain = interval_conv2d.interval_conv2d_bwd

    def without_the_radius(grad: Any, grad_radius: Any, *rest: Any) -> Any:
        found = plain(grad, grad_radius, *rest)
        return found[0], found[1], plain(grad, None, *rest)[2], found[3]

    monkeypatch.setattr(interval_conv2d, "interval_conv2d_bwd", without_the_radius)
    arguments = [str(tmp_path), "--small", "--device", "cpu", "--rounds", "1", "--only", "*backward, bf16, library"]
    assert convolutions.main(arguments) == 1
    content = json.loads((tmp_path / "convolutions.json").read_text())
    assert len(content["failed"]) == len(content["rows"]) == 2 and "2 WRONG" in content["headline"]


def test_only_takes_texts_and_patterns(tmp_path: Path) -> None:
    options = ("--rounds", "1", "--only", "crown_relu", "--only", "*_norm_relu, statistics*, native")
    content = small("kernels", tmp_path, *options, "--name", "some")
    names = {(row["kernel"], row["backend"]) for row in content["rows"]}
    assert names == {("crown_relu", "native"), ("crown_relu", "reference"), ("interval_norm_relu", "native")}
    assert (tmp_path / "some.json").exists() and not (tmp_path / "kernels.json").exists()
    done = driver("kernels", str(tmp_path), "--small", "--rounds", "1", "--only", "crown_relu", "--only", "no such")
    assert done.returncode == 1 and "FAILED: --only no such (nothing has such a name)" in done.stdout


def test_steps(tmp_path: Path) -> None:
    content = small("steps", tmp_path, "--rounds", "5")
    rows = [row for row in content["rows"] if row["precision"] == "default"]
    assert not content["failed"] and content["not_available"]["captured"] == "a CUDA graph needs CUDA"
    for network in ("mlp", "cnn7"):
        mine = {(row["step"], row["code"]) for row in rows if row["network"] == network}
        bounded = ("ibp", "crown-ibp", "crown-ibp-fused")
        ours = {(step, code) for step in bounded for code in ("automatic", "reference")}
        assert {("natural", "automatic"), *ours} <= mine
    assert all(row["ms"] > 0 and row["x eager natural"] > 0 for row in rows)


def test_some_steps_with_ceilings_and_kernels(tmp_path: Path) -> None:
    only = ("--only", "cnn7, natural, *", "--only", "cnn7, ibp, automatic, bf16")
    content = small("steps", tmp_path, "--rounds", "5", "--ceilings", "--replay", "cnn7, ibp", *only)
    rows = [(row["network"], row["step"], row["precision"]) for row in content["rows"]]
    assert rows == [("cnn7", "natural", "default"), ("cnn7", "natural", "bf16"), ("cnn7", "ibp", "bf16")]
    assert content["ceilings"]["copy_bytes_per_s"] > 0
    ((name, kernels),) = content["replays"].items()
    assert name == "cnn7, ibp, automatic, bf16, eager" and len(kernels) > 10
    assert sum(kernel["share"] for kernel in kernels) == pytest.approx(1)
    assert f"## One call of {name}: " in (tmp_path / "steps.md").read_text()


def test_a_capture_that_fails_leaves_the_other_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.gpu import steps
    from fastbound.train import CaptureError

    captured = []

    def capture(step: Any, batch: Any) -> Any:
        captured.append(step)
        if len(captured) == 1:
            raise CaptureError("planted")
        return step

    made = steps._Measurement.__init__

    def with_graphs(self: Any, *arguments: Any) -> None:
        made(self, *arguments)
        self.modes = ("eager", "captured")

    monkeypatch.setattr(steps, "capture", capture)
    monkeypatch.setattr(steps._Measurement, "__init__", with_graphs)
    only = ["--only", "mlp, natural, *", "--only", "mlp, ibp, automatic, default"]
    assert steps.main([str(tmp_path), "--small", "--device", "cpu", "--rounds", "5", *only]) == 1
    content = json.loads((tmp_path / "steps.json").read_text())
    assert content["failed"] == {"mlp, natural, automatic, default, captured": "CaptureError: planted"}
    assert [row["mode"] for row in content["rows"]] == ["eager", "eager", "captured", "eager", "captured"]


def test_an_interrupted_driver_writes_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.gpu import kernels

    plain, calls = kernels._row, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(kernels, "_row", interrupted)
    assert kernels.main([str(tmp_path), "--small", "--device", "cpu", "--rounds", "1"]) == 1
    content = json.loads((tmp_path / "kernels.json").read_text())
    assert len(content["rows"]) == 2 and content["left_out"] == ["the rest: interrupted"]


def test_steps_that_have_no_time_left_are_listed(tmp_path: Path) -> None:
    done = driver("steps", str(tmp_path), "--small", "--seconds", "0")
    content = json.loads((tmp_path / "steps.json").read_text())
    assert done.returncode == 1 and not content["rows"] and len(content["left_out"]) > 10
    assert "LEFT OUT, no time: mlp, natural, automatic, default" in done.stdout


def test_launches() -> None:
    done = driver("launches", "--backend", "native")
    assert done.returncode == 0, done.stderr
    assert "native interval_conv2d float32: " in done.stdout and "not served" in done.stdout
    done = driver("launches", "--backend", "native", "--dtype", "float32", "--limit", "1")
    assert "float64" not in done.stdout and "native interval_conv2d float32: 1 samples" in done.stdout


def test_recipe(tmp_path: Path) -> None:
    content = small("recipe", tmp_path)
    (row,) = content["rows"]
    assert row["epochs"] == "2 of 2" and row["clean error"] <= row["PGD error"] <= row["verified error"]
    assert content["wall_seconds"] > row["training s"] > 0


def test_a_short_run_predicts_the_whole_recipe_and_decides_its_length(tmp_path: Path) -> None:
    content = small("recipe", tmp_path, "--epochs", "4", "--precision", "bf16", "--name", "recipe-short")
    metrics, predicted = content["metrics"], content["whole_run_seconds"]
    assert len(metrics) == 4 and all(one["certification_seconds"] > 0 for one in metrics)
    epochs = [one["seconds"] + one["certification_seconds"] for one in metrics]
    # Two epochs make the small recipe: what no epoch counts, the first, and the middle of those of the second half.
    wanted = content["wall_seconds"] - sum(epochs) + epochs[0] + sum(epochs[2:]) / 2
    assert predicted == pytest.approx(wanted, rel=1e-6)
    assert content["rows"][0]["precision"] == "bf16" and f"{predicted:.0f} s" in content["headline"]
    asked = ("--predicted-by", str(tmp_path / "recipe-short.json"), "--else-epochs", "3")
    for index, (options, epochs) in enumerate(
        (((*asked, "--fits", "1000"), "2 of 2"), ((*asked, "--fits", "0.001"), "3 of 3"))
    ):
        content = small("recipe", tmp_path, *options, "--name", f"r{index}", "--run", str(tmp_path / f"run{index}"))
        assert content["rows"][0]["epochs"] == epochs and content["predicted_seconds"] == predicted
    (tmp_path / "recipe-short.json").write_text("cut off in the mid")
    content = small("recipe", tmp_path, *asked, "--name", "r2", "--run", str(tmp_path / "run2"))
    assert content["rows"][0]["epochs"] == "3 of 3" and content["predicted_seconds"] is None


@pytest.mark.slow
def test_a_recipe_that_the_time_does_not_suffice_for_goes_on_later(tmp_path: Path) -> None:
    done = driver("recipe", str(tmp_path), "--small", "--seconds", "8", "--epochs", "4000")
    assert done.returncode == 1 and "LEFT OUT, no time: stopped by" in done.stdout, done.stdout + done.stderr
    before = json.loads((tmp_path / "recipe.json").read_text())
    assert before["rows"][0]["verified error"] is None
    done = driver("recipe", str(tmp_path), "--small", "--seconds", "8", "--resume")
    assert "LEFT OUT, no time: stopped by" in done.stdout, done.stdout + done.stderr
    after = json.loads((tmp_path / "recipe.json").read_text())
    assert after["wall_seconds"] > before["wall_seconds"]
