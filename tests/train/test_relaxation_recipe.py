"""Training by a relaxation: the loss of the paper, its schedules, and both certificates of a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb
from fastbound.cli import main
from fastbound.domains.interval.loosened import LoosenedInterval
from fastbound.train import train
from fastbound.train.recipes import Step, resolve
from fastbound.train.recipes.relaxation import RELAXATIONS, RelaxationRecipe

KAPPA, BETA, L1 = 0.7, 0.4, 1e-3


def step_of(model: nn.Module, recipe: RelaxationRecipe, eps: float = 0.05) -> Step:
    torch.manual_seed(1)
    x, labels = torch.rand(6, 1, 8, 8), torch.randint(4, (6,))
    return Step(model, x, labels, 4, eps, 0.1, {"kappa": KAPPA, "beta": BETA})


def small_model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 3, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 10), nn.ReLU(), nn.Linear(10, 4))
    return nn.Sequential(*layers)


def margins_by(name: str, model: nn.Module, box: fb.Interval, spec: Tensor) -> Tensor:
    """The lower bounds of the relaxation of a name, computed in the most direct way."""
    if name == "crown-ibp":
        return sum(
            share * fb.bound(model, box, kind, spec).lower for share, kind in ((BETA, "crown-ibp"), (1 - BETA, "ibp"))
        )
    return fb.bound(model, box, "ibp" if name == "box" else name, spec).lower


@pytest.mark.parametrize("name", RELAXATIONS)
def test_the_loss_is_that_of_the_paper(name: str) -> None:
    model = small_model()
    recipe = RelaxationRecipe(relaxation=name, eps_train=0.1, l1=L1)
    step = step_of(model, recipe)
    found = recipe.loss(step)
    found["loss"].backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    lower = margins_by(name, model, fb.linf_box(step.x, 0.05, 0, 1), step.spec())
    logits = torch.cat((torch.zeros(6, 1), -lower), 1)  # the label's own margin first
    robust = F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
    weights = sum(layer.weight.abs().sum() for layer in model if hasattr(layer, "weight"))
    wanted = KAPPA * F.cross_entropy(model(step.x), step.labels) + (1 - KAPPA) * robust + L1 * weights
    torch.testing.assert_close(found["loss"], wanted, rtol=1e-5, atol=1e-6)
    wanted.backward()
    for one, parameter in zip(ours, model.parameters()):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("jumps", [0.0, 10.0])
def test_loosened_intervals_train_the_box(jumps: float) -> None:
    model = small_model()
    recipe = RelaxationRecipe(eps_train=0.1, looseness=0.5, jumps=jumps)
    step = step_of(model, recipe)
    box = LoosenedInterval(fb.linf_box(step.x, 0.05, 0, 1), 0.5, jumps)
    wanted = fb.losses.robust_cross_entropy(fb.bound(model, box, spec=step.spec()))
    torch.testing.assert_close(recipe.loss(step)["robust_loss"], wanted)
    assert wanted > RelaxationRecipe(eps_train=0.1).loss(step)["robust_loss"]


def test_eps_kappa_and_beta_are_linear_in_the_step() -> None:
    recipe = resolve(RelaxationRecipe(), 0.1, {"relaxation": "crown-ibp", "kappa_end": 0.5})
    assert isinstance(recipe, RelaxationRecipe)
    for share in (0.0, 0.25, 0.5, 1.0):
        step = round((10 + 50 * share) * 600)
        assert recipe.eps(step, 600) == pytest.approx(0.1 * share)
        assert recipe.weights(step, 600) == pytest.approx({"kappa": 1 - 0.5 * share, "beta": 1 - share})
    assert "beta" not in RelaxationRecipe(relaxation="crown-ibp-r", eps_train=0.1).weights(20_000, 600)


@pytest.mark.parametrize(
    "name, methods",
    {
        "deepz": ("deepz", "crown"),
        "crown-ibp": ("ibp", "crown"),
        "crown": ("crown",),
        "crown-0-c": ("crown-0-c", "crown"),
    }.items(),
)
def test_a_run_is_certified_by_its_own_relaxation_and_by_crown(name: str, methods: tuple[str, ...]) -> None:
    assert RelaxationRecipe(relaxation=name, eps_train=0.1).certificates() == methods
    assert RelaxationRecipe(relaxation=name, eps_train=0.1, certify_with="lp").certificates() == (methods[0], "lp")


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    small = ["--model", "mlp", "--model-option", "hidden=[16,16]", "--limit", "300", "--test-limit", "100"]
    times = ["--epochs", "3", "--warmup", "1", "--ramp", "1", "--milestones", ""]
    options = ["--method", "relaxation", "--relaxation", "deepz", "--eps", "0.05", *small, *times, "--quiet"]
    with pytest.raises(SystemExit) as end:
        main(["train", "--out", str(out), "--dataset", "digits", *options])
    assert end.value.code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["method"] == "deepz"
    assert set(report["verified_error_by"]) == {"deepz", "crown"}
    assert report["verified_error_by"]["deepz"] == report["verified_error"]
    assert report["clean_error"] <= report["pgd_error"] <= min(report["verified_error_by"].values())
    with pytest.raises(SystemExit) as end:
        main(["certify", str(out), "--method", "deepz", "--limit", "100", "--out", str(tmp_path / "again")])
    assert end.value.code == 0
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert again["verified_error"] == report["verified_error"]


def test_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--list", "--out", "x"])
    assert set(RELAXATIONS) <= set(capsys.readouterr().out.replace(",", " ").split())


def test_few_samples_share_the_budget_in_certification(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of any size are certified in parts, to the same numbers."""
    from fastbound.certify import balls

    model, x = small_model(), torch.rand(9, 1, 8, 8)
    labels = model(x).argmax(1)
    whole = fb.certify(model, [(x, labels)], 0.02, "deepz", attack=None)
    monkeypatch.setattr(balls, "ZONOTOPE_BATCH", 2)
    parts = fb.certify(model, [(x, labels)], 0.02, "deepz", attack=None)
    torch.testing.assert_close(whole.margins, parts.margins)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"relaxation": "octagon"}, "relaxation: wanted one of box, hbox.*got 'octagon'"),
        ({"looseness": -1.0}, "looseness and jumps: wanted 0 or more"),
        ({"relaxation": "hbox", "looseness": 0.5}, "looseness: widens the intervals of relaxation 'box', got 'hbox'"),
        ({"l1": -1.0}, "l1: wanted 0 or more"),
        ({"kappa_end": 2.0}, r"kappa_end: wanted a number in \[0, 1\]"),
        ({"relaxation": "deepz", "regularisation": 0.5}, "regularisation: .*read intervals"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RelaxationRecipe(eps_train=0.1, **change)


def test_another_method_has_no_relaxation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ibp has no option relaxation"):
        train(tmp_path / "run", {"dataset": "digits", "method": "ibp", "eps": 0.1}, {"relaxation": "deepz"})
