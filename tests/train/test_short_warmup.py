"""Short warm-up: what a step minimises before, during and after the ramp, and who else may use its regularisers."""

import json
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastbound as fb
from fastbound import data, models
from fastbound.train import recipes, settings, train
from fastbound.train.configs import find_config
from fastbound.train.recipes import CrownIBPRecipe, IBPRecipe, MTLIBPRecipe, SABRRecipe, ShortWarmupRecipe, Step
from fastbound.train.regularisers import warmup_regularisers, with_moments

EPS = 0.1
STEPS = 10  # an epoch


def network():
    torch.manual_seed(0)
    return models.build("cnn7", (1, 8, 8), 10, width=4)


def at(recipe, step, model=None):
    """The recipe's losses in a step of its run, and that step."""
    recipe = recipes.resolve(recipe, EPS, {})
    torch.manual_seed(1)
    x, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    eps, weights = recipe.eps(step, STEPS), recipe.weights(step, STEPS)
    made = Step(model or network(), x, labels, 10, eps, recipe.eps_max(), weights)
    torch.manual_seed(2)  # of attacks
    return recipe.loss(made), made


def bounded(step, eps):
    return step.model(with_moments(fb.linf_box(step.x, eps, 0.0, 1.0)))


def robust(out, step):
    return fb.losses.robust_cross_entropy(fb.bound(out, method="ibp", spec=step.spec()))


def test_the_weight_falls_with_the_radius():
    recipe = recipes.resolve(ShortWarmupRecipe(eps_schedule="linear"), EPS, {})
    assert [recipe.weights(step, STEPS)["regularisation"] for step in (0, 10, 110, 160, 210, 699)] == pytest.approx(
        [0.5, 0.5, 0.25, 0.125, 0, 0]
    )
    assert recipe.weights(210, STEPS)["regularisation"] == 0  # exactly: the step is IBP's then
    assert recipe.weights(50, STEPS)["kappa"] == 0


def test_during_the_ramp_the_regularisers_join_the_robust_loss():
    losses, step = at(ShortWarmupRecipe(), 150)
    assert 0 < step.eps < EPS
    out = bounded(step, step.eps)
    tightness, balance = warmup_regularisers(out)
    assert tightness > 0
    expected = robust(out, step) + 0.5 * (1 - step.eps / EPS) * (tightness + balance)
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close((losses["tightness"], losses["balance"]), (tightness, balance))


def test_at_radius_0_the_clean_loss_meets_bounds_at_a_tiny_radius():
    losses, step = at(ShortWarmupRecipe(), 3)
    batches = [module.num_batches_tracked for module in step.model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert step.eps == 0 and all(count == 1 for count in batches)  # one forward pass serves both
    out = bounded(step, 1e-6)
    expected = F.cross_entropy(out.nominal, step.labels) + 0.5 * sum(warmup_regularisers(out))
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close(losses["natural_loss"], F.cross_entropy(step.model(step.x), step.labels))


def test_radii_that_float32_cannot_resolve_are_raised():
    losses, step = at(ShortWarmupRecipe(), 11)
    assert 0 < step.eps < 1e-6
    out = bounded(step, 1e-6)
    torch.testing.assert_close(losses["loss"], robust(out, step) + 0.5 * sum(warmup_regularisers(out)))


def test_after_the_ramp_it_is_ibp():
    losses, step = at(ShortWarmupRecipe(), 300)
    plain, _ = at(IBPRecipe(epochs=70, milestones=(), warmup=1, ramp=20, kappa_start=0.0, kappa_end=0.0), 300)
    assert step.eps == EPS and losses.keys() == plain.keys()
    assert torch.equal(losses["loss"], plain["loss"])


def test_tensors_of_a_captured_step_give_the_same_loss():
    for step in (11, 150):
        losses, numbers = at(ShortWarmupRecipe(), step)
        weights = {"regularisation": torch.tensor(numbers.weights["regularisation"]), "kappa": 0.0}
        tensors = Step(network(), numbers.x, numbers.labels, 10, torch.tensor(numbers.eps), EPS, weights)
        torch.testing.assert_close(recipes.resolve(ShortWarmupRecipe(), EPS, {}).loss(tensors)["loss"], losses["loss"])


@pytest.mark.parametrize("method", [IBPRecipe, CrownIBPRecipe, SABRRecipe, MTLIBPRecipe])
@pytest.mark.parametrize("step", [3, 200])
def test_other_recipes_can_switch_them_on(method, step):
    losses, made = at(method(regularisation=0.5), step)
    plain, _ = at(method(), step)
    added = made.weights["regularisation"] * (losses["tightness"] + losses["balance"])
    assert added > 0
    torch.testing.assert_close(losses["loss"], plain["loss"] + added, rtol=1e-4, atol=1e-5)
    losses["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.model.parameters())


def test_a_network_without_batch_norm_is_warned_of():
    with pytest.warns(UserWarning, match=r"no BatchNorm.*2\.4 points.*norm=true"):
        ShortWarmupRecipe().check_network(models.build("dm-small", (1, 28, 28), 10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ShortWarmupRecipe().check_network(models.build("dm-small", (1, 28, 28), 10, norm=True))
        IBPRecipe().check_network(models.build("dm-small", (1, 28, 28), 10))


def test_bad_numbers():
    with pytest.raises(ValueError, match="regularisation: wanted a weight of 0 or more, got -1"):
        IBPRecipe(regularisation=-1)
    with pytest.raises(ValueError, match="tolerance: wanted a number greater than 0, got 0"):
        ShortWarmupRecipe(tolerance=0)


def test_a_run(tmp_path):
    given = {"dataset": "digits", "method": "short-warmup", "eps": 0.02, "model": "mlp", "pgd_steps": 0}
    with pytest.warns(UserWarning, match="no BatchNorm"):
        report = train(tmp_path, given, {"epochs": 14, "batch_size": 64}, quiet=True)
    assert report["verified_error"] < 0.5
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert "tightness" in lines[0] and "tightness" not in lines[-1]


def test_published_schedules():
    """Epochs counted from 1: "start 2, length 80" is one epoch at radius 0 and a ramp of 80."""
    cifar = find_config("short-warmup-cifar10-cnn7-8-255").recipe
    assert [cifar.eps(epoch * STEPS, STEPS) for epoch in (1, 81)] == [0, 8 / 255] and cifar.eps(11, STEPS) > 0
    assert cifar.eps(805, STEPS) < 8 / 255
    mnist = find_config("short-warmup-mnist-cnn7-0.3")
    assert (mnist.eps, mnist.recipe.eps(1, STEPS) > 0, mnist.recipe.eps(200, STEPS)) == (0.3, True, 0.4)
    assert [cifar.lr_at(epoch * STEPS, STEPS) for epoch in (0, 120, 140)] == pytest.approx([5e-4, 1e-4, 2e-5])


def test_the_network_of_a_configuration_brings_its_options(tmp_path):
    images = data.Images(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    tiny = data.DataSet("tiny-imagenet", images, images, num_classes=200)
    named = {"config": "short-warmup-tiny-imagenet-cnn7-1-255"}
    assert settings.resolve(named, {}, tiny).model_options == {"last_stride": 2}
    wider = settings.resolve({**named, "model_options": {"width": 8}}, {}, tiny)
    assert wider.model_options == {"last_stride": 2, "width": 8}
    assert settings.resolve({**named, "model": "wide-resnet"}, {}, tiny).model_options == {}
    assert settings.resolve(named, {}, tiny).recipe.regularisation == 0.2
