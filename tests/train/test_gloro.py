"""Globally-robust networks: margins, losses, training, certification in the l2 ball."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastbound as fb
from fastbound import cli, models
from fastbound.certify import Attack, pgd_attack_l2
from fastbound.train import recipes
from fastbound.train.loop import train


def network() -> nn.Sequential:
    return models.build("gloro-2c2f", (1, 8, 8), 5, activation="minmax")


def reference_bottom(model: nn.Sequential, x: Tensor, constant: float, eps: float) -> Tensor:  # [B]
    """The definition, sample by sample in float64: k is the Lipschitz constant before the last layer."""
    logits, weight = model(x).double(), model[-1].weight.double()
    found = []
    for row in logits:
        j = int(row.argmax())
        others = [i for i in range(len(row)) if i != j]
        found.append(max(row[i] + eps * constant * (weight[j] - weight[i]).norm() for i in others))
    return torch.stack(found)


def case() -> tuple[nn.Sequential, Tensor, Tensor, fb.Lipschitz, float]:
    model, x, labels = network(), torch.rand(12, 1, 8, 8), torch.arange(12) % 5
    state = fb.LipschitzState(iterations=20)
    front = model[:-1](fb.lipschitz(x, state))
    return model, x, labels, model[-1](front), float(front.constant.detach())


def test_bottom_logit_equals_its_definition():
    model, x, _, out, constant = case()
    torch.testing.assert_close(
        out.bottom_logit(0.3).double(), reference_bottom(model, x, constant, 0.3), rtol=1e-5, atol=1e-6
    )


def test_losses_equal_their_definitions():
    model, x, labels, out, constant = case()
    logits = model(x).double()
    joint = torch.cat((logits, reference_bottom(model, x, constant, 0.3).unsqueeze(1)), 1)
    expected = F.cross_entropy(joint, labels)
    torch.testing.assert_close(fb.losses.gloro_cross_entropy(out, labels, 0.3).double(), expected, rtol=1e-5, atol=1e-6)
    clean = torch.cat((logits.softmax(1), torch.zeros(12, 1)), 1)
    divergences = {
        "kl": F.kl_div(joint.log_softmax(1), clean, reduction="batchmean"),
        "ce": -(clean * joint.log_softmax(1)).sum(1).mean(),
    }
    for name, divergence in divergences.items():
        found = fb.losses.gloro_trades(out, labels, 0.3, 1.7, name)
        expected = F.cross_entropy(logits, labels) + 1.7 * divergence
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross-entropy", "kl", "ce"])
def test_losses_have_right_gradients(loss):
    model = nn.Sequential(nn.Conv2d(1, 2, 3, 2), fb.nn.MinMax(), nn.Flatten(), nn.Linear(8, 4)).double()
    labels, x = torch.arange(6) % 4, torch.rand(6, 1, 5, 5, dtype=torch.float64)
    state = fb.LipschitzState(iterations=100)
    names = ["0.weight", "3.weight", "3.bias"]

    def value(*weights: Tensor) -> Tensor:
        out = torch.func.functional_call(model, dict(zip(names, weights)), (fb.lipschitz(x, state),))
        if loss == "cross-entropy":
            return fb.losses.gloro_cross_entropy(out, labels, 0.3)
        return fb.losses.gloro_trades(out, labels, 0.3, 1.5, loss)

    weights = [model.get_parameter(name).detach().requires_grad_() for name in names]
    for _ in range(10):
        value(*weights)
    assert torch.autograd.gradcheck(value, weights, eps=1e-6, atol=1e-5, rtol=1e-3)


def test_losses_refuse_what_is_no_lipschitz_output():
    _, x, labels, out, _ = case()
    with pytest.raises(TypeError, match=r"out: wanted the Lipschitz value.*got Tensor"):
        fb.losses.gloro_cross_entropy(x, labels, 0.3)
    with pytest.raises(ValueError, match="labels"):
        fb.losses.gloro_cross_entropy(out, labels + 1, 0.3)
    with pytest.raises(ValueError, match="divergence: wanted 'kl' or 'ce', got 'js'"):
        fb.losses.gloro_trades(out, labels, 0.3, 1.0, "js")
    with pytest.raises(ValueError, match=r"bottom_logit: wanted logits \[B, K\]"):
        fb.lipschitz(x).bottom_logit(0.1)


def test_certified_margins_are_below_the_formula_by_rounding_alone():
    model, x, labels, out, _ = case()
    constant = model[:-1](fb.lipschitz(x)).certified_constant()
    logits, weight = model(x).double(), model[-1].weight.double()
    found = out.certified_margins(labels, 0.3)
    for b, y in enumerate(labels.tolist()):
        others = [i for i in range(5) if i != y]
        for place, i in enumerate(others):
            exact = logits[b, y] - logits[b, i] - 0.3 * constant * (weight[y] - weight[i]).norm()
            assert exact - 1e-4 <= found[b, place] <= exact


def test_outputs_without_a_last_linear_layer_use_the_whole_constant():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    out = model(fb.lipschitz(torch.rand(3, 6)))
    logits, constant = out.nominal.detach(), float(out.constant.detach())
    expected = torch.stack(
        [torch.cat((row[: row.argmax()], row[row.argmax() + 1 :])).max() + 0.1 * constant * 2**0.5 for row in logits]
    )
    torch.testing.assert_close(out.bottom_logit(0.1).detach(), expected, rtol=1e-4, atol=1e-5)


# ---- the attack ----------------------------------------------------------------------------------------------------


def test_the_attack_finds_the_worst_point_of_a_linear_model():
    """There the exact radius is the distance to the decision boundary."""
    model = nn.Linear(20, 2)
    x = torch.rand(50, 20)
    labels = model(x).argmax(1)
    normal = (model.weight[0] - model.weight[1]).detach()
    distance = (model(x).detach() @ torch.tensor([1.0, -1.0])).abs() / normal.norm()
    eps = float(distance.median())
    free = {"lower": -torch.inf, "upper": torch.inf}
    points, broken = pgd_attack_l2(model, x, labels, eps, attack=Attack(50, 2), **free)
    near = (distance - eps).abs() < 0.01 * eps  # the last steps are this short
    assert torch.equal(broken[~near], (distance < eps)[~near]) and 5 < broken.sum() < 45
    assert ((points - x).norm(dim=1) <= eps).all()


def test_points_of_the_attack_stay_in_ball_and_range():
    model, x = network(), torch.rand(8, 1, 8, 8)
    labels = model(x).argmax(1)
    points, broken = pgd_attack_l2(model, x, labels, 3.0, attack=Attack(20, 3))
    assert ((points - x).flatten(1).norm(dim=1) <= 3.0).all()
    assert ((points >= 0) & (points <= 1)).all() and broken.any()


# ---- training and certification ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "gloro"
    given = {"dataset": "digits", "method": "gloro", "eps": 0.2, "model": "gloro-2c2f", "pgd_restarts": 2}
    train(out, {**given, "model_options": {"activation": "minmax"}}, {"epochs": 15, "batch_size": 64}, quiet=True)
    return out


def test_training_certifies_digits(run):
    report = json.loads((run / "report.json").read_text())
    assert report["norm"] == "l2" and report["method"] == "lipschitz" and "float64" in report["precision"]
    assert report["vra"] == 1 - report["verified_error"] > 0.7
    assert report["clean_error"] <= report["pgd_error"] <= report["verified_error"]
    # Rejected or wrong is what is not certified; some samples are both.
    assert report["verified_error"] <= report["rejected_fraction"] + report["clean_error"]
    assert report["rejected_fraction"] <= report["verified_error"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["vra"] == report["vra"] and records[-1]["lipschitz_constant"] > 0
    assert records[0]["eps"] < records[-1]["eps"] == pytest.approx(0.22)


def test_certify_reads_the_norm_of_the_run(run, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["certify", str(run), "--limit", "100", "--pgd-steps", "5"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and "eps (l2)" in shown and "VRA" in shown and "rejected" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--norm", "linf"], "norm: the radius of this run, 0.2, is one of l2; give a radius in linf with --eps"),
        (
            ["--method", "ibp"],
            "method: ibp certifies linf balls, and the norm is l2; use lipschitz, or norm linf",
        ),
        (
            ["--norm", "linf", "--eps", "0.1", "--method", "lipschitz"],
            "lipschitz certifies l2 balls, and the norm is linf",
        ),
        (["--norm", "l1"], "norm: wanted one of linf, l2, got 'l1'"),
    ],
)
def test_a_radius_in_the_wrong_norm_is_refused(run, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(["certify", str(run), *options])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_the_network_of_a_run_takes_other_norms_with_their_radius(run):
    with pytest.raises(SystemExit) as stop:
        cli.main(["certify", str(run), "--norm", "linf", "--eps", "0.001", "--limit", "50", "--pgd-steps", "2"])
    assert stop.value.code == 0


def test_recipes_refuse_certificates_of_another_norm_and_bad_numbers():
    with pytest.raises(ValueError, match="certify_with: ibp certifies linf balls, and the norm is l2; use lipschitz"):
        recipes.GloRoRecipe(certify_with="ibp")
    with pytest.raises(ValueError, match="certify_with: lipschitz certifies l2 balls, and the norm is linf; use ibp"):
        recipes.IBPRecipe(certify_with="lipschitz")
    with pytest.raises(ValueError, match="divergence: wanted kl, ce or none, got 'js'"):
        recipes.GloRoRecipe(divergence="js")
    with pytest.raises(ValueError, match="power_iterations: wanted a number greater than 0"):
        recipes.GloRoRecipe(power_iterations=0)
    with pytest.raises(ValueError, match="eps_factor: wanted a number greater than 0, got -1"):
        recipes.GloRoRecipe(eps_factor=-1)
    with pytest.raises(ValueError, match="the learning rate is held for 200 epochs"):
        recipes.GloRoRecipe(lr_hold=200)


def test_batchnorm_is_refused_in_certification():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(NotImplementedError, match=r"batch_norm.* leave it out"):
        fb.certify(model, [(torch.rand(2, 4), torch.zeros(2, dtype=torch.long))], 0.1, norm="l2")


def test_schedules_of_the_recipe():
    recipe = recipes.GloRoRecipe(epochs=100, eps_train=0.4, lr_hold=50, lr_end=1e-6, trades_start=0.5, trades_end=2.5)
    assert recipe.eps(0, 10) == pytest.approx(0.004) and recipe.eps(500, 10) == pytest.approx(0.4)
    assert [recipe.lr_at(step, 10) for step in (0, 500, 750, 1000)] == pytest.approx([1e-3, 1e-3, 10**-4.5, 1e-6])
    assert [recipe.weights(step, 10)["trades"] for step in (0, 500, 1000)] == [0.5, 1.5, 2.5]
    half = recipe.scaled(50)
    assert (half.ramp, half.lr_hold, half.trades_ramp) == (25, 25, 50)
