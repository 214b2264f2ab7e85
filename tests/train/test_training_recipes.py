"""Recipes: their losses against formulas, their schedules, what they refuse, and the published configurations."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastbound as fb
from fastbound import data, models
from fastbound.train import recipes
from fastbound.train.configs import CONFIGS, find_config
from fastbound.train.initialisation import initialise
from fastbound.train.recipes import METHODS, CrownIBPRecipe, IBPRecipe, NaturalRecipe, Step


def mlp_step(eps=0.1, **weights) -> Step:
    torch.manual_seed(0)
    model = models.build("mlp", (1, 8, 8), 10, hidden=(16, 16))
    return Step(model, torch.rand(6, 1, 8, 8), torch.arange(6), 10, eps, 0.2, weights)


def worst_case_loss(step: Step) -> torch.Tensor:
    """Cross-entropy of the worst elided margins, by W+ and W- products in float64."""
    lower, upper = ((step.x + sign * step.eps).clamp(0, 1).double().flatten(1) for sign in (-1, 1))
    layers = [layer for layer in step.model if isinstance(layer, nn.Linear)]
    for layer in layers[:-1]:
        positive, negative = layer.weight.double().clamp(min=0), layer.weight.double().clamp(max=0)
        bias = layer.bias.double()
        lower, upper = lower @ positive.T + upper @ negative.T + bias, upper @ positive.T + lower @ negative.T + bias
        lower, upper = lower.relu(), upper.relu()
    weight, bias = layers[-1].weight.double(), layers[-1].bias.double()
    rows = weight[step.labels].unsqueeze(1) - weight  # [B, K, D]; the label's own row is 0
    low = torch.einsum("bkd,bd->bk", rows.clamp(min=0), lower) + torch.einsum("bkd,bd->bk", rows.clamp(max=0), upper)
    return F.cross_entropy(-(low + bias[step.labels].unsqueeze(1) - bias), step.labels)


def test_ibp_loss_mixes_clean_and_worst_case():
    step = mlp_step(kappa=0.75)
    losses = IBPRecipe(eps_train=0.2).loss(step)
    clean, robust = F.cross_entropy(step.model(step.x), step.labels), worst_case_loss(step)
    torch.testing.assert_close(losses["loss"].double(), 0.75 * clean.double() + 0.25 * robust, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses["robust_loss"].double(), robust, rtol=1e-5, atol=1e-6)
    losses["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in step.model.parameters())


def test_ibp_loss_at_its_ends():
    for kappa, expected in ((1.0, "natural_loss"), (0.0, "robust_loss")):
        losses = IBPRecipe(eps_train=0.2).loss(mlp_step(kappa=kappa))
        torch.testing.assert_close(losses["loss"], losses[expected])
    step = mlp_step(eps=0.0)
    for recipe in (IBPRecipe(eps_train=0.2), CrownIBPRecipe(eps_train=0.2), NaturalRecipe()):
        torch.testing.assert_close(recipe.loss(step)["loss"], F.cross_entropy(step.model(step.x), step.labels))


def test_weights_follow_the_ramp():
    ramp = {"warmup": 1.0, "ramp": 2.0, "eps_schedule": "linear", "eps_train": 0.2}
    ibp = [IBPRecipe(**ramp).weights(step, 10)["kappa"] for step in (0, 10, 20, 30, 99)]
    assert ibp == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.5])
    crown = [CrownIBPRecipe(**ramp, kappa_end=0.0).weights(step, 10) for step in (0, 20, 30, 99)]
    assert [w["kappa"] for w in crown] == [w["beta"] for w in crown] == [1.0, 0.5, 0.0, 0.0]
    assert NaturalRecipe().weights(5, 10) == {}


def test_crown_ibp_at_beta_0():
    step = mlp_step(eps=0.2, kappa=0.5, beta=0.0)
    losses = CrownIBPRecipe(eps_train=0.2).loss(step)
    torch.testing.assert_close(losses["robust_loss"].double(), worst_case_loss(step), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses["loss"], 0.5 * losses["natural_loss"] + 0.5 * losses["robust_loss"])


def test_crown_ibp_mixes_margins():
    step = mlp_step(eps=0.1, kappa=0.0, beta=0.5)
    robust = CrownIBPRecipe(eps_train=0.2).loss(step)["loss"]
    out = step.model(fb.linf_box(step.x, 0.1, 0.0, 1.0))
    ibp, crown = (fb.bound(out, method=method, spec=step.spec()).lower for method in ("ibp", "crown-ibp"))
    margins = 0.5 * ibp + 0.5 * crown
    torch.testing.assert_close(robust, (1 + margins.neg().exp().sum(1)).log().mean())


def test_fused_loss_is_used_when_asked():
    step = mlp_step(eps=0.1, kappa=0.5, beta=0.5)
    losses = CrownIBPRecipe(eps_train=0.2, fuse_loss=True).loss(step)
    out = step.model(fb.linf_box(step.x, 0.1, 0.0, 1.0))
    torch.testing.assert_close(losses["robust_loss"], fb.losses.fused_cross_entropy(out, step.labels, 0.5))


def test_a_model_with_batch_norm_keeps_its_clean_stream_at_kappa_0():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    step = Step(model, torch.rand(8, 1, 8, 8), torch.arange(8), 10, 0.05, 0.1, {"kappa": 0.0})
    IBPRecipe(eps_train=0.1).loss(step)["loss"].backward()
    torch.testing.assert_close(model[2].running_mean, 0.1 * model[1](step.x.flatten(1)).mean(0))


def test_times_scale_with_the_epochs_and_explicit_ones_do_not():
    recipe = recipes.resolve(IBPRecipe(epochs=100, warmup=10, ramp=50, milestones=(80,)), 0.1, {"epochs": 20})
    assert (recipe.warmup, recipe.ramp, recipe.milestones, recipe.eps_train) == (2, 10, (16,), 0.1)
    recipe = recipes.resolve(
        IBPRecipe(epochs=100, warmup=10, ramp=50), 0.1, {"epochs": 20, "ramp": 15.0, "eps_factor": 1.1}
    )
    assert (recipe.warmup, recipe.ramp) == (2, 15) and recipe.eps_train == pytest.approx(0.11)
    for epochs in (1, 2, 3, 7, 1000):
        for config in CONFIGS.values():
            recipes.resolve(config.recipe, config.eps, {"epochs": epochs})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epochs": 10, "ramp": 20.0}, r"0\.2 epochs at eps 0 and a ramp of 20 epochs make 20\.2, but the run has 10"),
        ({"epochs": 10, "milestones": (5.0, 12.0)}, "milestone is epoch 12, but the run has 10 epochs"),
        ({"milestones": (9.0, 5.0)}, "increasing order"),
        ({"epochs": 0}, "epochs: wanted a whole number of at least 1, got 0"),
        ({"lr": -1.0}, "lr: wanted a number greater than 0, got -1"),
        ({"lr": float("nan")}, "lr: wanted a finite number, got nan"),
        ({"lr": float("inf")}, "lr: wanted a finite number, got inf"),
        ({"regularisation": float("nan")}, "regularisation: wanted a finite number, got nan"),
        ({"warmup": float("nan")}, "warmup: wanted a finite number, got nan"),
        ({"milestones": (5.0, float("inf"))}, r"milestones: wanted a finite number, got \(5.0, inf\)"),
        ({"eps_factor": -1.0}, "eps_factor: wanted a number greater than 0, got -1"),
        ({"lr_decay": 0.0}, "lr_decay: wanted a factor"),
        ({"batch_size": 0}, "batch_size: wanted"),
        ({"clip_norm": 0.0}, "clip_norm: wanted"),
        ({"weight_decay": -1.0}, "weight_decay: wanted"),
        ({"eps_schedule": "cubic"}, "no 'cubic'; known: linear, smoothed"),
        ({"kappa_end": 1.5}, r"kappa_end: wanted a number in \[0, 1\], got 1.5"),
        ({"eps_train": 0.0}, "eps_train: wanted a radius greater than 0"),
        ({"warmup": -1.0}, "warmup and ramp"),
        ({"mid": 1.0}, "mid: wanted"),
        ({"beta_end": 0.5}, "ibp has no option beta_end; its options: batch_size"),
    ],
)
def test_bad_recipes(overrides, message):
    with pytest.raises(ValueError, match=message):
        recipes.resolve(IBPRecipe(), 0.1, overrides)


@pytest.mark.parametrize("recipe", [*(method() for method in METHODS.values()), *(c.recipe for c in CONFIGS.values())])
def test_recipes_survive_json(recipe):
    assert recipes.from_data(json.loads(json.dumps(recipes.as_data(recipe)))) == recipe


def test_published_configurations_are_complete():
    for name, config in CONFIGS.items():
        shape = {"cifar10": (3, 32, 32), "tiny-imagenet": (3, 64, 64), "mnist": (1, 28, 28)}[config.dataset]
        with torch.device("meta"):
            models.build(config.model, shape, 10, **config.model_options)
        assert config.dataset in data.names()
        assert config.recipe.eps_train is not None and config.recipe.eps_train >= config.eps, name
    published = find_config("mnist-dm-large-0.4")
    assert (published.recipe.batch_size, published.recipe.lr, published.recipe.milestones) == (256, 5e-4, (130, 190))
    recipe = find_config("cifar10-dm-large-8-255").recipe
    assert recipe.eps_train == pytest.approx(8.8 / 255) and recipe.eps(0, 100) == 0
    assert (
        recipe.eps(320 * 100, 100) == 0 < recipe.eps(321 * 100, 100) < recipe.eps(1920 * 100, 100) == recipe.eps_train
    )
    # 2,000 steps at eps 0 and a linear ramp of 10,000 steps, 300 steps an epoch
    ibp = find_config("ibp-mnist-dm-large-0.3").recipe
    assert ibp.eps(2000, 300) == 0 and ibp.eps(7000, 300) == pytest.approx(0.165) and ibp.eps(12000, 300) == 0.33 * 1.0
    assert [ibp.lr_at(t, 300) for t in (14999, 15000, 25000)] == pytest.approx([1e-3, 1e-4, 1e-5])


def test_published_singleprop_runs():
    # 550 steps an epoch: the first 5,000 images are held out; 2,000 at eps 0, a ramp of 10,000
    recipe = find_config("singleprop-mnist-dm-small-0.3").recipe
    assert recipe.eps(2000, 550) == 0 and recipe.eps(7000, 550) == pytest.approx(0.15) and recipe.eps(12000, 550) == 0.3
    assert [recipe.lr_at(t, 550) for t in (14999, 15000, 25000)] == pytest.approx([5e-4, 5e-5, 5e-6])
    assert recipe.held_out() == 5000 and recipe.variant == "zero" and not recipe.clip_box
    # 900 steps an epoch: 5,000 at eps 0, a ramp of 50,000 to 8/255 itself, no augmentation
    cifar = find_config("singleprop-adaptive-cifar10-dm-small-8-255")
    assert cifar.recipe.eps(5000, 900) == 0 < cifar.recipe.eps(5001, 900) and cifar.recipe.eps(55000, 900) == 8 / 255
    assert [cifar.recipe.lr_at(t, 900) for t in (59999, 60000, 90000)] == pytest.approx([5e-4, 5e-5, 5e-6])
    assert cifar.recipe.variant == "fast-lin" and (cifar.recipe.flip, cifar.recipe.crop) == (False, 0)
    assert cifar.model_options == {"same_padding": True}


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="no training method 'ipb'; known: natural, ibp, short-warmup, crown-ibp"):
        recipes.find_method("ipb")
    with pytest.raises(ValueError, match=r"no published configuration 'x'; known: mnist-dm-large-0\.1"):
        find_config("x")
    with pytest.raises(ValueError, match="no initialisation 'x'; known: default, orthogonal, lecun-normal, ibp"):
        initialise(nn.Linear(2, 2), "x", torch.zeros(1, 2))
