"""The command line: what it writes, prints, refuses, and with which exit code."""

import importlib
import json
import re

import pytest
import torch

from fastbound import benchmark, cli
from fastbound.certify import SoundnessError
from fastbound.train.configs import CONFIGS
from fastbound.train.recipes import METHODS

SMALL = ["--model-option", "hidden=[16]", "--limit", "200", "--test-limit", "40", "--epochs", "2"]
SMALL += ["--batch-size", "100", "--pgd-steps", "3", "--quiet"]


def run(*arguments, capsys):
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--out", str(folder), "--eps", "1/50", *SMALL])
    assert ended.value.code == 0
    return folder


def test_train_writes_a_run_and_prints_a_table(trained, tmp_path, capsys):
    assert json.loads((trained / "report.json").read_text())["eps"] == 0.02
    code, out, _ = run(
        "train", "--out", tmp_path / "run", *SMALL, "--method", "natural", "--set", "lr=0.01", capsys=capsys
    )
    assert code == 0 and "verified error" in out
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert saved["recipe"]["method"] == "natural" and saved["recipe"]["lr"] == 0.01 and saved["eps"] == 0.1


def test_plain_lines_without_a_terminal(tmp_path, capsys):
    code, out, _ = run("train", "--out", tmp_path / "run", *[o for o in SMALL if o != "--quiet"], capsys=capsys)
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert code == 0 and len(lines) == 2 and "\x1b" not in out
    for word in ("epoch 2/2", "eps", "loss", "clean", "verified", "left"):
        assert word in lines[1]


def test_resume_of_a_finished_run_and_refusal_to_overwrite(trained, capsys):
    before = (trained / "metrics.jsonl").read_bytes()
    assert run("train", "--out", trained, "--resume", "--quiet", capsys=capsys)[0] == 0
    assert (trained / "metrics.jsonl").read_bytes() == before
    code, _, err = run("train", "--out", trained, *SMALL, capsys=capsys)
    assert code == 2 and err.startswith("fastbound: error: ") and "--resume" in err and "--overwrite" in err
    code, _, err = run("train", "--out", trained, "--resume", "--eps", "0.5", capsys=capsys)
    assert code == 2 and "eps: 0.02 in the run, 0.5 now" in err


def test_certify_reads_a_run(trained, tmp_path, capsys):
    code, out, _ = run("certify", trained, "--limit", "30", "--eps", "0.01", "--out", tmp_path, capsys=capsys)
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == 0 and "PGD error" in out and (report["num_samples"], report["eps"]) == (30, 0.01)
    assert report["clean_error"] <= report["pgd_error"] <= report["verified_error"]
    code, _, err = run("certify", trained, "--out", tmp_path, capsys=capsys)
    assert code == 2 and "exists already" in err and "--overwrite" in err
    code, _, _ = run(
        "certify", trained, "--limit", "20", "--out", tmp_path, "--overwrite", "--pgd-steps", "0", capsys=capsys
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == 0 and report["eps"] == 0.02 and report["pgd_error"] is None


def test_certify_writes_nothing_into_the_run(trained, capsys):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert run("certify", trained, "--limit", "10", capsys=capsys)[0] == 0
    assert before == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}


def test_sweep_draws_a_picture(trained, tmp_path, capsys):
    code, _, _ = run(
        "certify", trained, "--limit", "20", "--sweep", "0, 0.01,5/255", "--out", tmp_path / "new", capsys=capsys
    )
    reports = json.loads((tmp_path / "new" / "sweep.json").read_text())
    assert code == 0 and [report["eps"] for report in reports] == [0, 0.01, 5 / 255]
    assert (tmp_path / "new" / "sweep.png").read_bytes()[:4] == b"\x89PNG"


def test_a_soundness_failure_ends_with_its_own_code(trained, monkeypatch, capsys):
    def unsound(*arguments, **options):
        raise SoundnessError(17, 0.25, "ibp", 0.02)

    monkeypatch.setattr(importlib.import_module("fastbound.certify"), "certify", unsound)
    code, _, err = run("certify", trained, capsys=capsys)
    assert code == 3 and "sample 17" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "imagenet"], "known: cifar10, digits, fashion-mnist, mnist"),
        (["--dataset", "mnist"], "--data-dir"),
        (["--dataset", "mnist", "--data-dir", "/nowhere"], "/nowhere: there is no such folder"),
        (["--method", "magic"], "known: natural, ibp, short-warmup, crown-ibp"),
        (["--config", "magic"], "known: mnist-dm-large-0.1"),
        (["--model", "vgg"], "known: cnn7, dm-large"),
        (["--model", "dm-small"], "does not fit inputs of shape [1, 8, 8]"),
        (["--model-option", "depth=3"], "mlp has no option depth; its options: hidden"),
        (["--model-option", "depth"], "--model-option: wanted name=value"),
        (["--eps", "-0.1"], "eps: wanted a finite radius"),
        (["--eps", "nan"], "eps: wanted a finite radius"),
        (["--eps", "1/0"], "eps: wanted a number or a fraction such as 8/255, got '1/0'"),
        (["--eps", "big"], "eps: wanted a number or a fraction"),
        (["--eps", "0"], "--method natural trains without one"),
        (["--epochs", "3", "--ramp", "50"], "the run has 3 epochs"),
        (["--epochs", "0"], "epochs: wanted"),
        (["--method", "natural", "--ramp", "5"], "natural has no option ramp"),
        (["--set", "magic=1"], "ibp has no option magic"),
        (["--milestones", "a,b"], "milestones: wanted epochs such as 50,60"),
        (["--threads", "0"], "threads: wanted at least 1"),
        (["--limit", "0"], "limit: wanted at least 1"),
        (["--device", "abacus"], "device: wanted auto, cpu, cuda"),
        (["--device", "meta"], "device: wanted auto, cpu, cuda"),
        (["--device", "cuda:99"], "device: cuda:99 was asked for"),
        (["--set", "lr=abc"], "lr: wanted a number, got 'abc'"),
        (["--set", "lr=true"], "lr: wanted a number, got True"),
        (["--set", "milestones=3"], "milestones: wanted a list of numbers, got 3"),
        (["--set", 'milestones=["a"]'], "milestones: wanted epochs in increasing order"),
        (["--set", "eps_factor=[1]"], "eps_factor: wanted a number, got [1]"),
        (["--set", "certify_with=magic"], "certify_with: wanted one of ibp, crown-ibp, crown"),
        (["--model-option", "hidden=5"], "mlp cannot be built with the options {'hidden': 5}"),
        (["--model", "cnn7", "--model-option", "width=-1"], "cnn7 cannot be built with the options"),
        (["--resume"], "no such run folder"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(tmp_path, capsys, arguments, message):
    out = tmp_path / "run"
    code, _, err = run("train", "--out", out, "--quiet", *arguments, capsys=capsys)
    assert code == 2 and message in err and "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert not out.exists()


def test_bad_certify_options(trained, tmp_path, capsys):
    for arguments, message in [
        (["--method", "magic"], "method: wanted one of ibp, crown-ibp, crown"),
        (["--method", "singleprop"], "certify with IBP"),
        (["--eps", "-1"], "eps: wanted"),
        (["--sweep", ","], "sweep: wanted"),
        (["--limit", "0"], "limit: wanted"),
        (["--pgd-restarts", "0"], "restart"),
        (["--device", "abacus"], "device: wanted auto, cpu, cuda"),
    ]:
        code, _, err = run("certify", trained, *arguments, capsys=capsys)
        assert code == 2 and message in err, arguments
    code, _, err = run("certify", tmp_path / "nowhere", capsys=capsys)
    assert code == 2 and "no such run folder" in err
    code, _, err = run("bench", "--device", "abacus", capsys=capsys)
    assert code == 2 and "device: wanted auto, cpu, cuda" in err


@pytest.mark.parametrize("damage", [{"settings": None}, {"settings": {"novel": 1}}, {}])
def test_damaged_settings_name_their_file(trained, tmp_path, capsys, damage):
    config = {**json.loads((trained / "config.json").read_text()), **damage}
    if not damage:
        del config["settings"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    for command in (["certify", tmp_path], ["train", "--resume", "--out", tmp_path]):
        code, _, err = run(*command, capsys=capsys)
        assert code == 2 and f"{tmp_path}/config.json: the settings of the run are damaged" in err


@pytest.mark.parametrize("command", ["train", "certify", "bench", "info"])
def test_every_option_is_documented(command):
    import typer

    group = typer.main.get_command(cli.app)
    documented = group.commands[command]
    assert documented.help
    for option in documented.params:
        assert option.help or option.name == "help", option.name


def test_help_names_what_is_known(capsys):
    code, out, _ = run("train", "--help", capsys=capsys)
    assert code == 0
    for name in ("cnn7", "resnext", "fashion-mnist", "crown-ibp", "orthogonal", "smoothed"):
        assert name in out


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_the_list_is_whole_in_every_terminal_and_pipe(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = run("train", "--list", capsys=capsys)
    assert code == 0 and "\u2026" not in out
    for method in METHODS.values():
        assert re.search(rf"^{method.method} +{re.escape(method.summary)}\n +{re.escape(method.source)}$", out, re.M)
    for name, config in CONFIGS.items():
        (line,) = [line.split() for line in out.splitlines() if line.startswith(f"  {name} ")]
        assert line[1:4] == [config.dataset, config.model, config.recipe.method] and config.source in out


def test_info(capsys):
    code, out, _ = run("info", capsys=capsys)
    assert code == 0 and f"torch {torch.__version__}" in out and "interval_conv2d" in out


def test_bench_prints_multiples_and_writes_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(benchmark.NETWORKS, "tiny", benchmark.Network("mlp", (1, 4, 4), 8, {"hidden": (8,)}))
    out = tmp_path / "figures" / "bench.json"
    options = ["--network", "tiny", "--rounds", "3", "--out", out]
    code, text, _ = run("bench", *options, "--variant", "natural", "--variant", "ibp", capsys=capsys)
    assert code == 0 and "x natural" in text
    content = json.loads(out.read_text())
    assert {"processor", "threads", "torch", "precision"} <= set(content["machine"])
    multiples = {entry["variant"]: entry["multiple"] for entry in content["steps"]}
    assert multiples["natural"] == 1 and multiples["ibp"] > 0.5
    code, _, err = run("bench", *options, capsys=capsys)
    assert code == 2 and "exists already" in err
    for arguments, message in [
        (["--network", "vgg"], "known: mlp, dm-small"),
        (["--variant", "x"], "known: natural, ibp"),
        (["--network", "tiny", "--rounds", "0"], "rounds: wanted at least 1"),
    ]:
        code, _, err = run("bench", *arguments, capsys=capsys)
        assert code == 2 and message in err


def test_bench_steps_fill_the_gradients_and_differ():
    sample = benchmark.Network("mlp", (1, 4, 4), 8, {"hidden": (8,)}).sample()
    gradients = {}
    for name in ("natural", "ibp"):
        benchmark.STEPS[name](*sample)
        gradients[name] = torch.cat([parameter.grad.flatten() for parameter in sample[0].parameters()])
        assert gradients[name].abs().sum() > 0
    assert not torch.allclose(gradients["natural"], gradients["ibp"])


def test_the_benchmark_networks_are_those_of_the_performance_page():
    sizes = {name: (network.model, network.batch) for name, network in benchmark.NETWORKS.items()}
    assert sizes["mlp"] == ("mlp", 128) and sizes["dm-small"] == ("dm-small", 128)
    assert sizes["cnn7-width16"] == ("cnn7", 32) and sizes["cnn7-width64"] == ("cnn7", 16)
