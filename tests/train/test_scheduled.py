"""A step whose schedules arrive as tensors, as a captured one takes them, equals the step with the numbers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from fastbound import models
from fastbound.train import recipes
from fastbound.train.recipes import METHODS, CrownIBPRecipe, Losses, Recipe, Step

BATCHES = 5  # an epoch

# The training method as its defaults have it, and what a default run never meets.
RECIPES = {
    **{name: method() for name, method in METHODS.items()},
    "crown-ibp, fused": CrownIBPRecipe(fuse_loss=True, beta_end=0.5),
    "crown-ibp, no clean part": CrownIBPRecipe(kappa_start=0.0, kappa_end=0.0, beta_end=1.0),
}


def resolved(name: str) -> Recipe:
    return recipes.resolve(RECIPES[name], 0.1, {"epochs": 10})


def moments(recipe: Recipe) -> dict[int, dict[str, float]]:
    """The scheduled values at the first, a middle and the last step of every phase of the run, by step."""
    by_phase: dict[object, list[int]] = {}
    scheduled = {}
    for step in range(recipe.epochs * BATCHES):
        scheduled[step] = {"eps": recipe.eps(step, BATCHES), **recipe.weights(step, BATCHES)}
        phase = tuple((name, value in (0, 1) and value) for name, value in scheduled[step].items())
        by_phase.setdefault(phase, []).append(step)
    return {
        step: scheduled[step] for steps in by_phase.values() for step in (steps[0], steps[len(steps) // 2], steps[-1])
    }


def network(norm: str = "linf") -> nn.Module:
    torch.manual_seed(0)
    return models.build("gloro-4c3f", (1, 8, 8), 10) if norm == "l2" else models.build("cnn7", (1, 8, 8), 10, width=2)


def losses_and_gradients(recipe: Recipe, values: Mapping[str, float | Tensor]) -> tuple[Losses, list[Tensor]]:
    model, weights = network(recipe.norm), dict(values)
    torch.manual_seed(1)
    x, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    found = recipe.loss(Step(model, x, labels, 10, weights.pop("eps"), recipe.eps_max(), weights, recipe.memory()))
    found["loss"].backward()
    return found, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", RECIPES)
def test_tensors_and_numbers_give_one_step(name: str) -> None:
    recipe = resolved(name)
    for step, values in moments(recipe).items():
        tensors = {key: value if value in (0, 1) else torch.tensor(value) for key, value in values.items()}
        expected, gradients = losses_and_gradients(recipe, values)
        found, found_gradients = losses_and_gradients(recipe, tensors)
        assert found.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-6, atol=1e-7, msg=f"step {step}, {key}")
        assert len(gradients) == len(found_gradients) > 10
        # A tensor eps times a share is rounded once more than a number is; a bias before BatchNorm has noise alone.
        scale = max(float(gradient.abs().max()) for gradient in gradients)
        for one, other in zip(found_gradients, gradients):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 + 3e-6 * scale)


def test_the_phases_of_a_run_are_met() -> None:
    """Before the ramp, on it, and after a weight has reached its limit at the end."""
    found = [tuple(v in (0, 1) for v in values.values()) for values in moments(resolved("crown-ibp")).values()]
    assert set(found) == {(True, True, True), (False, False, False), (False, False, True)}
