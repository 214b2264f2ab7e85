"""`fastbound study` from run folders to tables, files and errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fastbound as fb
from fastbound import cli, data
from fastbound.study import Curve, Scan, Study, certified_curve, read_runs
from fastbound.study.picture import controlled_series
from fastbound.study.results import NetworkResult, RelaxationResult
from fastbound.train import train
from fastbound.train.recipes.relaxation import RelaxationRecipe
from fastbound.train.runs import RunError

OPTIONS = {"model": "mlp", "model_options": {"hidden": [16, 16]}, "eps": 0.05}
SHORT = {"limit": 400, "test_limit": 60, "pgd_steps": 0}
TIMES = {"epochs": 3, "warmup": 0, "ramp": 1, "milestones": [], "lr": 0.005}


def trained(folder: Path, name: str, method: str = "relaxation", **fields: Any) -> Path:
    options = {**OPTIONS, **SHORT, "dataset": "digits", "method": method, **fields.pop("options", {})}
    times = TIMES if method == "relaxation" else {"epochs": 2, "milestones": []}
    train(folder / name, options, {**times, **fields}, quiet=True)
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("study")
    torch.set_num_threads(1)
    return {
        "box": trained(folder, "box", relaxation="box"),
        "crown-ibp": trained(folder, "crown-ibp", relaxation="crown-ibp"),
        "crown-0-c": trained(folder, "crown-0-c", relaxation="crown-0-c"),
        "smooth": trained(folder, "smooth", looseness=0.05),
        "jumping": trained(folder, "jumping", looseness=0.05, jumps=30.0),
        "natural": trained(folder, "natural", "natural"),
        "other eps": trained(folder, "other-eps", relaxation="box", options={"eps": 0.1}),
        "other network": trained(folder, "other", relaxation="box", options={"model_options": {"hidden": [8]}}),
    }


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_a_study_from_the_command_line(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = ("box", "crown-ibp", "crown-0-c", "natural", "smooth", "jumping")
    options = ("--relaxation", "crown-ibp-r", "--limit", "20", "--out", tmp_path / "out")
    code, out, err = run(*(runs[name] for name in names), *options, capsys=capsys)
    assert code == 0, err
    for word in ("crown-ibp-r", "crown-0-c", "Sensitivity on untrained networks", "Loosened intervals", "continuous"):
        assert word in out
    for name in ("study.json", "study.png", "controlled.png"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    found = json.loads((tmp_path / "out" / "study.json").read_text())
    assert found["fixed_networks"] == [str(runs[name]) for name in names[:4]]
    assert list(found["relaxations"]) == ["crown-ibp-r", "box", "crown-0-c"]
    assert (found["dataset"], found["eps"], found["num_samples"]) == ("digits", 0.05, 20)

    report = json.loads((runs["box"] / "report.json").read_text())
    entry = found["runs"][str(runs["box"])]
    assert entry["certified_accuracy"] == pytest.approx(1 - report["verified_error"])
    assert entry["certified_accuracy_by"] == pytest.approx({k: 1 - v for k, v in report["verified_error_by"].items()})
    assert found["runs"][str(runs["crown-ibp"])]["certified_by"] == "ibp"
    assert found["runs"][str(runs["jumping"])]["jump_share"] > 0.05
    assert found["runs"][str(runs["smooth"])]["jump_share"] < 2e-3

    relaxed = found["relaxations"]["crown-ibp-r"]
    areas = [relaxed["networks"][str(runs[name])]["area"] for name in names[:4]]
    images = data.load("digits").test.limit(20)
    wanted = certified_curve(fb.load_run(runs["natural"]), data.Loader(images, 20), 0.05, "crown-ibp-r")
    assert areas[3] == pytest.approx(wanted.area)
    assert relaxed["area"] == pytest.approx(sum(areas) / 4)
    assert found["relaxations"]["crown-0-c"]["continuous"] and found["relaxations"]["box"]["continuous"]
    assert len(relaxed["sensitivity_by_depth"]) == len(found["depths"])

    code, _, err = run(runs["box"], "--out", tmp_path / "out", capsys=capsys)
    assert code == 2 and "study.json" in err and "--overwrite" in err


def test_loosened_runs_alone_have_their_table_and_picture(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code, out, err = run(runs["smooth"], runs["jumping"], "--out", tmp_path, capsys=capsys)
    assert code == 0, err
    assert "Loosened intervals" in out and "sensitivity" not in out
    assert {path.name for path in tmp_path.iterdir()} == {"study.json", "controlled.png"}
    assert json.loads((tmp_path / "study.json").read_text())["relaxations"] == {}


def test_the_line_of_every_number_of_jumps_begins_at_the_box() -> None:
    entries = [("box", 0.0, 0.0, 0.8), ("box", 0.5, 0.0, 0.7), ("box", 0.1, 0.0, 0.75), ("box", 0.5, 10.0, 0.4)]
    entries += [("hbox", 0.0, 0.0, 0.9)]
    runs: Any = [
        SimpleNamespace(recipe=RelaxationRecipe(relaxation=name, looseness=w, jumps=f), certified_accuracy=accuracy)
        for name, w, f, accuracy in entries
    ]
    runs.append(SimpleNamespace(recipe=None, certified_accuracy=0.0))
    assert controlled_series(runs) == {0.0: [(0.0, 0.8), (0.1, 0.75), (0.5, 0.7)], 10.0: [(0.0, 0.8), (0.5, 0.4)]}


def test_a_relaxation_is_the_mean_over_its_networks() -> None:
    first = NetworkResult(Curve([0.0, 0.1], [1.0, 0.0]), Scan([0.2, 0.1, 0.1]), 0.3)
    second = NetworkResult(Curve([0.0, 0.1, 0.3], [0.8, 0.4, 0.0]), Scan([0.4, 0.01, 0.0]), None)
    both = RelaxationResult([first, second], [])
    assert both.area == pytest.approx((0.05 + 0.1) / 2)
    assert both.changes == pytest.approx([0.3, 0.055, 0.05]) and both.jump_share == pytest.approx(0.05)
    assert both.sensitivity == 0.3 and RelaxationResult([second], []).sensitivity is None
    assert not both.continuous and RelaxationResult([second], []).continuous
    assert both.mean_accuracy(0.1) == pytest.approx(0.2)


def test_a_run_stands_at_the_relaxation_that_it_ends_with(runs: dict[str, Path]) -> None:
    read = read_runs([runs[name] for name in ("box", "crown-ibp", "crown-0-c", "natural", "smooth")])
    relaxations: Any = {"box": "b", "crown-0-c": "c"}
    found = Study(read, read[:4], relaxations, {}, 1, 0)
    assert [found.properties_of(run) for run in read] == ["b", "b", "c", None, None]
    assert [run.trained_by for run in read] == ["box", "crown-ibp", "crown-0-c", "natural", "box"]
    assert replace(read[0], by_method={"box": 0.2, "crown": 0.4, "lp": 0.3}).best_method == "crown"


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, message",
    [
        (["natural"], "RUN: none of these runs was trained by a relaxation.*--method relaxation"),
        (["box", "box"], "RUN: .*box is given twice"),
        (["box", "other eps"], r"RUN: .* one eps, and eps is 0.05 in .*box, 0.1 in .*other-eps; study them apart"),
        (["box", "other network"], r"RUN: .* one network, and model_options is .*\[16, 16\].*\[8\]"),
        ([], "RUN: wanted at least one run folder"),
    ],
)
def test_runs_that_make_no_study(runs: dict[str, Path], names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_runs([runs[name] for name in names])


def _edit(file: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return edit


@pytest.mark.parametrize(
    "damage, message",
    [
        (shutil.rmtree, "there is no such run folder"),
        (lambda folder: (folder / "report.json").unlink(), "there is no report, .*--resume --out"),
        (lambda folder: (folder / "report.json").write_text("{"), "report.json: the file is damaged"),
        (_edit("report.json", lambda report: report.pop("verified_error")), "report is damaged .*verified_error"),
        (lambda folder: (folder / "model.safetensors").unlink(), "there are no trained weights"),
        (_edit("config.json", lambda config: config["settings"].pop("eps")), "settings of the run are damaged"),
    ],
)
def test_damaged_runs(runs: dict[str, Path], tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = shutil.copytree(runs["box"], tmp_path / "run")
    damage(folder)
    with pytest.raises(RunError, match=message):
        read_runs([runs["crown-0-c"], folder])


def test_runs_for_other_balls_and_data_sets(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(runs["box"], tmp_path / "run")
    _edit("config.json", lambda config: config["settings"].update(dataset="mnist"))(folder)
    with pytest.raises(ValueError, match=r"one data set, and dataset is digits in .*box, mnist in"):
        read_runs([runs["box"], folder])
    gloro = trained(tmp_path, "gloro", "gloro", options={"eps": 0.3, "model_options": {"hidden": [8]}})
    with pytest.raises(ValueError, match=r"RUN: .* was trained by gloro for l2 balls"):
        read_runs([gloro])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--relaxation", "octagon"], "relaxation: wanted one of"),
        (["--limit", "0"], "limit: wanted at least 1"),
        (["--threads", "0"], "threads: wanted at least 1"),
    ],
)
def test_bad_options(
    runs: dict[str, Path], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(runs["box"], *options, capsys=capsys)
    assert code == 2 and message in err
