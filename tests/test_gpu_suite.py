"""The GPU suite where there is no GPU: it lists what it would run, and all its drivers run on tiny shapes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

SUITE = ROOT / "bench" / "gpu"
PARTS = ("tests", "sanitizer", "kernels", "steps", "recipe")

pytestmark = pytest.mark.skipif(not SUITE.is_dir(), reason="bench/ is not part of this checkout")


def run(*command: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=check)


def script(*options: str) -> subprocess.CompletedProcess[str]:
    return run(str(SUITE / "run.sh"), *options, check=False)


def driver(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", f"bench.gpu.{name}", *options, "--device", "cpu", check=False)


def small(name: str, out: Path, *options: str) -> dict:
    done = driver(name, str(out), "--small", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((out / f"{name}.json").read_text())
    assert content["commit"] and content["machine"]["torch"] == torch.__version__ and content["rows"]
    table = (out / f"{name}.md").read_text()
    assert table in done.stdout and table.startswith(f"# {name}: ")
    return content


# ---- the one command -------------------------------------------------------------------------------------------------


def test_the_script_is_well_formed() -> None:
    run("bash", "-n", str(SUITE / "run.sh"))
    checker = shutil.which("shellcheck")
    if checker:
        run(checker, str(SUITE / "run.sh"))


def test_a_dry_run_lists_every_step_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    listed = script(str(out), "--dry-run", "--data-dir", "/data")
    assert listed.returncode == 0 and not out.exists()
    steps = listed.stdout.splitlines()
    assert [step.split(",")[0].strip("[") for step in steps] == ["build", "tests", "sanitizer", *PARTS[1:]]
    wanted = ("FASTBOUND_CUDA=on", "--no-build-isolation --no-deps", "-m pytest -m gpu", "--tool memcheck")
    wanted += ("--tool racecheck", "bench.gpu.kernels", "bench.gpu.steps", "bench.gpu.recipe", "--data-dir /data")
    assert all(word in listed.stdout for word in wanted)
    seconds = {part: 0 for part in PARTS}
    for step in steps[1:]:
        seconds[step.split(",")[0].strip("[")] += int(step.split("at most ")[1].split()[0])
    assert all(0 < value <= 540 for value in seconds.values())


@pytest.mark.parametrize("part", PARTS)
def test_a_part_can_be_run_alone(part: str) -> None:
    listed = script("OUT", "--dry-run", "--only", part)
    assert {step.split(",")[0] for step in listed.stdout.splitlines()} == {"[build", f"[{part}"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name a folder OUT"),
        (("OUT", "--only", "speed"), "--only: wanted one of tests sanitizer kernels steps recipe, got 'speed'"),
        (("OUT", "--only"), "got ''"),
        (("OUT", "--quick"), "there is no option --quick"),
        (("OUT", "AGAIN"), "one folder OUT is enough"),
        (("OUT", "--data-dir"), "--data-dir: wanted a folder"),
    ],
)
def test_wrong_options_are_refused(options: tuple[str, ...], message: str) -> None:
    refused = script(*options)
    assert refused.returncode == 2 and message in refused.stderr


def fake_python(folder: Path, failing: str) -> str:
    """An interpreter that says what it was asked, and fails where the words of its command contain `failing`."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\necho "asked: $*"\ncase "$*" in *"{failing}"*) exit 7;; esac\n')
    path.chmod(0o755)
    return str(path)


def test_a_failing_part_is_named_and_the_others_run(tmp_path: Path) -> None:
    only = [word for part in ("kernels", "steps", "recipe") for word in ("--only", part)]
    out = tmp_path / "out"
    python = fake_python(tmp_path, "bench.gpu.kernels")
    done = run(str(SUITE / "run.sh"), str(out), *only, check=False, PYTHON=python)
    assert done.returncode == 1
    assert "FAILED: kernels (status 7)" in done.stdout and "recipe: did NOT run" in done.stderr
    assert "asked: -m bench.gpu.steps" in (out / "steps.log").read_text()
    assert (out / "failed.txt").read_text().count("FAILED") == 2
    done = run(str(SUITE / "run.sh"), str(out), "--only", "steps", check=False, PYTHON=python)
    assert done.returncode == 0 and "all parts passed: steps" in done.stdout and not (out / "failed.txt").exists()


def test_nothing_runs_after_a_build_that_failed(tmp_path: Path) -> None:
    done = run(str(SUITE / "run.sh"), str(tmp_path / "out"), check=False, PYTHON=fake_python(tmp_path, "pip"))
    assert done.returncode == 1 and "FAILED: build (status 7)" in done.stdout and "[tests" not in done.stdout


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
    sys.path.insert(0, str(ROOT))
    from torch.utils.flop_counter import FlopCounterMode

    from bench.gpu.cases import Maker, Sizes, cases
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
            # The reference also multiplies for the bias, which is small beside a product.
            assert ours <= theirs <= 1.2 * ours, (case.stem, case.name, ours, theirs)
        elif case.stem == "interval_norm_relu" and case.name == "forward, channels_last":
            stack, radius, *channels = buffers
            maps = 4 * (stack.numel() + radius.numel())
            assert case.bytes_moved(buffers, case.run(code, buffers)) == 2 * maps + 16 * len(channels[0])


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


def test_steps_that_have_no_time_left_are_listed(tmp_path: Path) -> None:
    done = driver("steps", str(tmp_path), "--small", "--seconds", "0")
    content = json.loads((tmp_path / "steps.json").read_text())
    assert done.returncode == 1 and not content["rows"] and len(content["left_out"]) > 10
    assert "LEFT OUT, no time: mlp, natural, automatic, default" in done.stdout


def test_launches() -> None:
    done = driver("launches", "--backend", "native")
    assert done.returncode == 0, done.stderr
    assert "native interval_conv2d torch.float32: " in done.stdout and "not served" in done.stdout


def test_recipe(tmp_path: Path) -> None:
    content = small("recipe", tmp_path)
    (row,) = content["rows"]
    assert row["epochs"] == "2 of 2" and row["clean error"] <= row["PGD error"] <= row["verified error"]
    assert content["wall_seconds"] > row["training s"] > 0


@pytest.mark.slow
def test_a_recipe_that_the_time_does_not_suffice_for_goes_on_later(tmp_path: Path) -> None:
    done = driver("recipe", str(tmp_path), "--small", "--seconds", "8", "--epochs", "4000")
    assert done.returncode == 1 and "LEFT OUT, no time: stopped by" in done.stdout, done.stdout + done.stderr
    before = json.loads((tmp_path / "recipe.json").read_text())
    assert before["rows"][0]["verified error"] is None
    done = driver("recipe", str(tmp_path), "--small", "--seconds", "8", "--epochs", "4000")
    after = json.loads((tmp_path / "recipe.json").read_text())
    assert after["wall_seconds"] > before["wall_seconds"]
