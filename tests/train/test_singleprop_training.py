"""The SingleProp recipes: losses, both schedules of kappa, the held-out images."""

import json
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastbound as fb
from fastbound import data
from fastbound.train import loop, recipes, train
from fastbound.train.initialisation import initialise
from fastbound.train.recipes import AdaptiveSinglePropRecipe, SinglePropRecipe, Step
from fastbound.train.steps import scheduled_at


def mlp_step(eps, **weights):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10))
    return Step(model, torch.rand(6, 1, 4, 4), torch.arange(6), 10, eps, 0.2, weights)


def small_run(out, overrides=None):
    given = {
        "method": "singleprop-adaptive",
        "eps": 0.05,
        "model": "mlp",
        "model_options": {"hidden": [16]},
        "limit": 96,
    }
    given |= {"test_limit": 40, "pgd_steps": 0}
    short = {"epochs": 4, "warmup": 1.0, "ramp": 1.0, "batch_size": 32, "milestones": (), "validation": 32}
    return train(out, given, short | (overrides or {}))


def lines(folder):
    """The metrics without the seconds."""
    content = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("seconds")} for line in content]


@pytest.mark.parametrize("variant", ["zero", "fast-lin"])
@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_loss_mixes_the_clean_and_the_moved_logits(variant, kappa):
    step = mlp_step(0.1, kappa=kappa)
    loss = SinglePropRecipe(eps_train=0.2, variant=variant).loss(step)["loss"]
    out = step.model(fb.singleprop(step.x, 0.1, variant))
    own = F.one_hot(step.labels, 10)
    worst = own * (out.nominal - out.radius) + (1 - own) * (out.nominal + out.radius)
    wanted = kappa * F.cross_entropy(step.model(step.x), step.labels) + (1 - kappa) * F.cross_entropy(
        worst, step.labels
    )
    torch.testing.assert_close(loss, wanted)


def test_loss_at_radius_0_is_the_clean_one():
    step = mlp_step(0.0, kappa=0.3)
    wanted = F.cross_entropy(step.model(step.x), step.labels)
    torch.testing.assert_close(SinglePropRecipe(eps_train=0.2).loss(step)["loss"], wanted)


def test_published_linear_schedule():
    """MNIST: 2,000 steps at eps 0 and kappa 1, then 10,000 in which both change linearly; 550 steps an epoch."""
    recipe = SinglePropRecipe(epochs=100, warmup=2000 / 550, ramp=10000 / 550, eps_train=0.3)
    wanted = {0: (0, 1), 2000: (0, 1), 7000: (0.15, 0.75), 12000: (0.3, 0.5), 50000: (0.3, 0.5)}
    for step, (eps, kappa) in wanted.items():
        assert scheduled_at(recipe, step, 550) == pytest.approx({"eps": eps, "kappa": kappa})


def test_adaptive_kappa():
    recipe = AdaptiveSinglePropRecipe(eps_train=0.3)
    assert recipe.weights(0, 550) == {"kappa": 1.0} and recipe.held_out() == 5000
    assert recipe.adapted({"robust_loss": 2.0, "natural_loss": 0.1}) == {"kappa": 2.0 / (2.0 + 10 * 0.1)}
    assert recipe.adapted({"robust_loss": 0.0, "natural_loss": 0.0}) == {"kappa": 1.0}


def test_adaptive_run_follows_its_validation_losses(tmp_path):
    small_run(tmp_path / "run")
    metrics = lines(tmp_path / "run")
    assert metrics[0]["kappa"] == 1  # as the recipe says
    for before, after in pairwise(metrics):
        robust, natural = before["validation_robust_loss"], before["validation_natural_loss"]
        assert after["kappa"] == pytest.approx(robust / (robust + 10 * natural), rel=1e-12)
        mixture = after["kappa"] * after["natural_loss"] + (1 - after["kappa"]) * after["robust_loss"]
        if after["eps"] == 0.05 and before["eps"] == 0.05:
            assert after["loss"] == pytest.approx(mixture, rel=1e-5)
    assert any(line["eps"] == 0.05 for line in metrics[1:-1])


def test_validation_losses_are_those_of_the_held_out_images(tmp_path):
    small_run(tmp_path / "run")
    model = fb.load_run(tmp_path / "run")
    held_out = data.load("digits").train.limit(32)
    x, labels = next(iter(data.Loader(held_out, 32)))
    with torch.no_grad():
        out = model(fb.singleprop(x, 0.05))
        robust = fb.losses.singleprop_cross_entropy(out, labels)
        natural = F.cross_entropy(model(x), labels)
    last = lines(tmp_path / "run")[-1]
    assert last["validation_robust_loss"] == pytest.approx(robust.item(), rel=1e-5)
    assert last["validation_natural_loss"] == pytest.approx(natural.item(), rel=1e-5)


def test_held_out_images_are_not_trained_on(tmp_path, monkeypatch):
    seen = []
    step = loop.TrainingStep.__call__
    monkeypatch.setattr(
        loop.TrainingStep,
        "__call__",
        lambda self, x, *rest: seen.extend(x.sum((1, 2, 3)).tolist()) or step(self, x, *rest),
    )
    small_run(tmp_path / "run", overrides={"epochs": 2, "warmup": 0.0})
    train_set = data.load("digits").train
    x, _ = next(iter(data.Loader(train_set.limit(96), 96)))
    held_out, rest = x[:32].sum((1, 2, 3)).tolist(), x[32:].sum((1, 2, 3)).tolist()
    assert len(seen) == 2 * 64 and set(seen) == set(rest)
    assert not set(held_out) - set(rest) <= set(seen)


def test_lecun_normal_initialisation():
    model = nn.Sequential(nn.Conv2d(8, 64, 5), nn.Flatten(), nn.Linear(1000, 100))
    initialise(model, "lecun-normal", torch.zeros(1, 8, 5, 5))
    for layer, fan_in in ((model[0], 8 * 25), (model[2], 1000)):
        assert layer.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.05) and not layer.bias.any()
    assert SinglePropRecipe().init == "lecun-normal"


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (SinglePropRecipe, {"variant": "crown"}, "variant: wanted one of zero, fast-lin, got 'crown'"),
        (SinglePropRecipe, {"clip_box": True}, "clip_box: SingleProp's radius reaches as far to either side"),
        (SinglePropRecipe, {"regularisation": 0.5}, "regularisation: .* train by short-warmup"),
        (SinglePropRecipe, {"validation": -1}, "validation: wanted a number of images of 0 or more, got -1"),
        (SinglePropRecipe, {"kappa_end": 2.0}, r"kappa_end: wanted a number in \[0, 1\]"),
        (SinglePropRecipe, {"certify_with": "singleprop"}, "certify_with: .* certify with IBP"),
        (AdaptiveSinglePropRecipe, {"validation": 0}, "validation: wanted a number greater than 0"),
        (AdaptiveSinglePropRecipe, {"gamma": 0.0}, "gamma: wanted a number greater than 0"),
        (AdaptiveSinglePropRecipe, {"kappa_end": 0.5}, "singleprop-adaptive has no option kappa_end"),
    ],
)
def test_bad_recipes(recipe, overrides, message):
    with pytest.raises(ValueError, match=message):
        recipes.resolve(recipe(), 0.1, overrides)


def test_too_few_images_to_hold_out(tmp_path):
    message = "validation: wanted fewer than the 96 training images held out, got 5000; for example --set validation=9"
    with pytest.raises(ValueError, match=message):
        small_run(tmp_path / "run", overrides={"validation": 5000})
