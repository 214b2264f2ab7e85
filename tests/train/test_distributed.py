"""Training under torchrun: two gloo processes on one machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from fastbound.cli import main
from fastbound.train import load_run

OPTIONS = ["--device", "cpu", "--threads", "1", "--eps", "0.03", "--limit", "400", "--test-limit", "61"]
OPTIONS += ["--batch-size", "100", "--pgd-steps", "2"]


def torchrun(*arguments, program=("-m", "fastbound", "train"), wait=True):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(list(map(str, [*command, *arguments])), start_new_session=True, **options)
    return (process.wait(timeout=300), process.stdout.read()) if wait else process


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_one_network(tmp_path):
    """The network has no BatchNorm, so two processes make the steps of one on the joint batch."""
    options = [*OPTIONS, "--epochs", "2", "--model-option", "hidden=[16]"]
    code, output = torchrun("--out", tmp_path / "two", *options)
    assert code == 0, output
    assert output.count("epoch 2/2") == 1 and output.count("verified error") == 1  # one process writes
    with pytest.raises(SystemExit) as ended:
        main(["train", "--out", str(tmp_path / "one"), *options])
    assert ended.value.code == 0
    for two, one in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    # all 61 test images, although they do not divide by two
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("two", "one")]
    assert [report["num_samples"] for report in reports] == [61, 61]
    assert abs(reports[0]["clean_error"] - reports[1]["clean_error"]) < 1.5 / 61
    left, right = (load_run(tmp_path / name).state_dict() for name in ("two", "one"))
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=1e-4)


def test_a_network_with_batch_norm_trains(tmp_path):
    options = [*OPTIONS, "--epochs", "1", "--model", "cnn7", "--model-option", "width=2", "--quiet"]
    code, output = torchrun("--out", tmp_path / "run", *options)
    assert code == 0, output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["environment"]["processes"] == 2


# Three runs, and what each process has when its run returns: whether the folder is whole, and what methods carry from
# step to step.
OBSERVED = """
import sys
from contextlib import nullcontext
from pathlib import Path
from safetensors.torch import save_file
from fastbound.train import loop, train
from fastbound.train.distributed import processes
import torch

RUNS = {
    "short-warmup": ({"model": "cnn7", "model_options": {"width": 2}}, {}),
    "singleprop-adaptive": ({"model": "mlp", "model_options": {"hidden": [16]}}, {"validation": 41}),
    "gloro": ({"model": "gloro-2c2f"}, {"power_iterations": 1, "warmup": 0.0}),
}
finish = loop.Trainer.run

def run(self, quiet=False):
    report = finish(self, quiet)
    seen = {f"model.{name}": value for name, value in self.model.named_parameters()}
    seen |= {f"memory.{name}": value for name, value in self.memory.state_dict().items()}
    seen |= {f"weights.{name}": torch.tensor(value) for name, value in self.at.weights.items()}
    seen["whole"] = torch.tensor(all((self.folder.path / name).is_file() for name in self.folder.FILES))
    save_file(seen, f"{self.folder.path}.{self.group.rank}")
    return report

loop.Trainer.run = run
with processes("cpu") as group:  # once: PyTorch may hang where one process makes several groups
    loop.processes = lambda device: nullcontext(group)
    for method, (network, numbers) in RUNS.items():
        given = {"method": method, "eps": 0.03, "limit": 441, "test_limit": 61, "pgd_steps": 2, "device": "cpu"}
        overrides = {"epochs": 3, "batch_size": 100, "warmup": 1.0, "ramp": 1.0, "milestones": (), **numbers}
        train(Path(sys.argv[1]) / method, {**given, **network}, overrides, quiet=True)
"""


def test_processes_agree_on_what_methods_carry(tmp_path):
    """The learned kappa and the power iterates are the same in both, and no process leaves before the run is whole."""
    program = tmp_path / "observed.py"
    program.write_text(OBSERVED)
    code, output = torchrun(tmp_path / "two", program=[program])
    assert code == 0, output
    carried = {"short-warmup": [], "singleprop-adaptive": ["weights.kappa"]}
    carried["gloro"] = [f"memory.iterate{place}" for place in range(4)]
    for method, names in carried.items():
        first, second = (load_file(tmp_path / "two" / f"{method}.{rank}") for rank in range(2))
        assert first["whole"] and second["whole"]
        assert sorted(name for name in first if not name.startswith("model.")) == sorted([*names, "whole"])
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first), method
    regularised = [{"tightness", "balance"} <= line.keys() for line in metrics(tmp_path / "two" / "short-warmup")]
    assert regularised == [True, True, False]
    # Without BatchNorm two processes are one on the joint batch, with its validation losses and constants.
    subprocess.run([sys.executable, program, tmp_path / "one"], cwd=ROOT, check=True, timeout=300)
    for method in ("singleprop-adaptive", "gloro"):
        for two, one in zip(*(metrics(tmp_path / count / method) for count in ("two", "one")), strict=True):
            for name in {"loss", "kappa", "validation_robust_loss", "lipschitz_constant"} & one.keys():
                assert two[name] == pytest.approx(one[name], rel=1e-4), name


def worker_of(parent: int) -> int:
    """The process with rank 1 among the children of torchrun."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(status[1]) == parent and b"RANK=1" in environment:
            return int(entry.name)
    raise AssertionError("torchrun has no worker with rank 1")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker in /proc")
def test_a_killed_worker_ends_the_run_with_a_message_and_a_checkpoint(tmp_path):
    out = tmp_path / "run"
    options = [*OPTIONS, "--epochs", "400", "--model-option", "hidden=[16]", "--checkpoint-seconds", "0"]
    process = torchrun("--out", out, *options, wait=False)
    try:
        deadline = time.monotonic() + 200
        while not (out / "metrics.jsonl").exists() or len(metrics(out)) < 2:
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
            time.sleep(0.1)
        os.kill(worker_of(process.pid), signal.SIGKILL)
        output, _ = process.communicate(timeout=100)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    lines = [line for line in output.splitlines() if line.startswith("fastbound: error: ")]
    assert lines and "--resume" in lines[0], output
    assert not (out / "report.json").exists()
    # the checkpoint is usable: the weights and the position load
    from safetensors import safe_open

    with safe_open(out / "checkpoint" / "state.safetensors", framework="pt") as state:
        position = json.loads(state.metadata()["fastbound"])["position"]
    assert position["epoch"] >= 1 and position["batch"] == 0


def test_a_batch_that_the_processes_cannot_share(tmp_path):
    code, output = torchrun("--out", tmp_path / "run", "--batch-size", "33", "--limit", "100", "--device", "cpu")
    assert code != 0 and output.count("33 is not divisible by the 2 processes") == 1
    assert not (tmp_path / "run").exists()
