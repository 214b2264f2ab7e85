"""PGD, SABR and the expressive losses: their attack, their boxes, and their formulas against float64."""

from __future__ import annotations

import copy
import dataclasses
import re

import pytest
import torch
from oracle import propagate
from torch import Tensor, nn
from torch.nn import functional as F

import fastbound as fb
from fastbound.train import recipes
from fastbound.train.adversary import adversarial_points
from fastbound.train.configs import find_config
from fastbound.train.recipes import CCIBPRecipe, ExpIBPRecipe, MTLIBPRecipe, PGDRecipe, SABRRecipe, Step
from fastbound.train.recipes.sabr import small_box
from fastbound.train.regularisers import warmup_regularisers, with_moments

EPS = 0.1
EXPRESSIVE = [MTLIBPRecipe, CCIBPRecipe, ExpIBPRecipe]


def step_of(*layers: nn.Module) -> Step:
    # Pixels at the borders of [0, 1] too, where boxes are cut.
    x = torch.rand(6, 1, 8, 8).mul(1.4).sub(0.2).clamp(0, 1)
    return Step(nn.Sequential(*layers), x, torch.arange(6), 10, EPS, EPS)


def plain() -> Step:
    torch.manual_seed(0)
    return step_of(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))


def normalised() -> Step:
    torch.manual_seed(0)
    convolution = (nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return step_of(*convolution, nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


def points_of(recipe: recipes.AdversarialRecipe, step: Step) -> Tensor:
    """The points that the next loss of the recipe will use."""
    with torch.random.fork_rng():
        return recipe.attacked(step)


def margins_of(model: nn.Sequential, lower: Tensor, upper: Tensor, clean: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Float64 margins, elided by hand: worst "ibp" margins and those of the "clean" stream, [B, K - 1] each."""
    body, last = model[:-1], copy.deepcopy(model[-1]).double()
    found = propagate(body, lower, upper, clean)
    rows = last.weight[labels].unsqueeze(1) - last.weight  # [B, K, D]
    offset = last.bias[labels].unsqueeze(1) - last.bias
    low = torch.einsum("bkd,bd->bk", rows.clamp(min=0), found.lower)
    low = low + torch.einsum("bkd,bd->bk", rows.clamp(max=0), found.upper) + offset
    clean = torch.einsum("bkd,bd->bk", rows, found.clean) + offset
    others = torch.ones_like(low, dtype=torch.bool).scatter(1, labels.unsqueeze(1), False)
    return {"ibp": low[others].view(len(labels), -1), "clean": clean[others].view(len(labels), -1)}


def cross_entropy(margins: Tensor) -> Tensor:
    return torch.logsumexp(F.pad(-margins, (1, 0)), 1).mean()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


# the attack


@pytest.mark.parametrize("steps", [1, 5])
def test_points_lie_in_the_box_and_raise_the_loss(steps: int) -> None:
    step = plain()
    lower, upper = (step.x - EPS).clamp(min=0), (step.x + EPS).clamp(max=1)
    points = adversarial_points(step.model, lower, upper, step.labels, steps=steps, step_size=0.5)
    assert (points >= lower).all() and (points <= upper).all() and not points.requires_grad
    each = {"reduction": "none"}
    before, after = (F.cross_entropy(step.model(z), step.labels, **each) for z in (step.x, points))
    assert (after > before).all()
    assert all(parameter.grad is None for parameter in step.model.parameters())


def test_a_long_step_ends_in_the_worst_corner_of_a_linear_model() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    x, labels = torch.rand(4, 6), torch.tensor([0, 1, 0, 1])
    lower, upper = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
    rows = model[1].weight[1 - labels] - model[1].weight[labels]
    for steps, size in ((1, 10.0), (6, 1.0)):
        points = adversarial_points(model, lower, upper, labels, steps=steps, step_size=size)
        torch.testing.assert_close(points, torch.where(rows > 0, upper, lower))


def test_the_best_point_of_a_search_is_kept() -> None:
    """Steps of 2 half-widths jump over the maximum in the middle and back; the best point on the way is kept."""

    class Bump(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return torch.cat((x.square(), torch.zeros_like(x)), 1)  # the label 0 is worst at x = 0

    seen: list[Tensor] = []
    x, labels = torch.linspace(-0.4, 0.4, 5).view(5, 1), torch.zeros(5, dtype=torch.int64)
    point = adversarial_points(Bump(), x - 1, x + 1, labels, steps=4, step_size=2.0)
    closest = torch.stack(seen).abs().amin(0)
    assert len(seen) == 5
    torch.testing.assert_close(point.abs(), closest)
    assert (seen[-1].abs() > closest).any()  # the last one is not the best


def test_steps_shrink_after_their_shares() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [0.0]]))  # downhill for label 0 is to the left: up is to the right
    labels = torch.ones(1, dtype=torch.int64)
    lower, upper = torch.zeros(1, 1), torch.full((1, 1), 100.0)
    with torch.random.fork_rng():
        start = float(torch.lerp(lower, upper, torch.rand(1, 1)))
    # half-width 50: 4 steps of 0.02, then 3 of a tenth, 1 of a hundredth, and 2 of a thousandth
    end = adversarial_points(model, lower, upper, labels, steps=10, step_size=0.02, decays=(0.4, 0.7, 0.8))
    assert float(end) == pytest.approx(start + 4 + 3 * 0.1 + 0.01 + 2 * 0.001, abs=1e-4)


def test_the_attack_leaves_modes_and_statistics_alone() -> None:
    step = normalised()
    step.model[1].eval()
    modes = [module.training for module in step.model.modules()]
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    adversarial_points(step.model, step.x - EPS, step.x + EPS, step.labels, steps=3, step_size=0.5)
    assert modes == [module.training for module in step.model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in step.model.state_dict().items())


# losses


@pytest.mark.parametrize("made", [plain, normalised])
def test_pgd_is_the_loss_at_the_adversarial_point(made) -> None:
    step, recipe = made(), PGDRecipe(eps_train=EPS)
    points = points_of(recipe, step)
    found = recipe.loss(step)["loss"]
    close(found, F.cross_entropy(step.model.double()(points.double()), step.labels))


@pytest.mark.parametrize("made", [plain, normalised])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_expressive_losses_equal_their_formulas(made, alpha: float) -> None:
    for recipe in (method(eps_train=EPS, alpha=alpha) for method in EXPRESSIVE):
        step = made()
        points = points_of(recipe, step)
        found = recipe.loss(step)
        lower, upper = (step.x - EPS).clamp(min=0), (step.x + EPS).clamp(max=1)
        margins = margins_of(step.model, lower, upper, points, step.labels)
        ibp, adversarial = cross_entropy(margins["ibp"]), cross_entropy(margins["clean"])
        expected = {
            "mtl-ibp": alpha * ibp + (1 - alpha) * adversarial,
            "cc-ibp": cross_entropy(alpha * margins["ibp"] + (1 - alpha) * margins["clean"]),
            "exp-ibp": ibp**alpha * adversarial ** (1 - alpha),
        }
        close(found["loss"], expected[recipe.method])
        close(found["robust_loss"], ibp)
        close(found["adversarial_loss"], adversarial)


@pytest.mark.parametrize("method", EXPRESSIVE)
def test_expressive_losses_at_their_limits(method) -> None:
    """alpha 0: adversarial training; alpha 1: IBP without a clean part."""
    for alpha, limit in (
        (0.0, PGDRecipe(eps_train=EPS, attack_steps=1, attack_step=10.0)),
        (1.0, recipes.IBPRecipe(eps_train=EPS, kappa_start=0.0, kappa_end=0.0)),
    ):
        step = plain()
        with torch.random.fork_rng():
            found = method(eps_train=EPS, alpha=alpha).loss(step)["loss"]
        weighted = dataclasses.replace(step, weights={"kappa": 0.0})
        torch.testing.assert_close(found, limit.loss(weighted)["loss"])


def test_a_loss_that_rounds_to_zero_has_a_finite_gradient() -> None:
    step = plain()
    with torch.no_grad():
        step.model[-1].weight.zero_()
        step.model[-1].bias.copy_(torch.tensor([1e4] + [0.0] * 9))
    step = dataclasses.replace(step, labels=torch.zeros(6, dtype=torch.int64))
    loss = ExpIBPRecipe(eps_train=EPS).loss(step)["loss"]
    loss.backward()
    assert loss < 1e-30 and all(p.grad.isfinite().all() for p in step.model.parameters())


def test_running_statistics_see_the_clean_batch_and_then_the_adversarial_one() -> None:
    step, recipe = normalised(), MTLIBPRecipe(eps_train=EPS)
    expected, points = copy.deepcopy(step.model), points_of(recipe, step)
    with torch.no_grad():
        expected(step.x)
        expected(points)
    recipe.loss(step)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(step.model.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


# SABR


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.8, 1.0])
def test_the_small_box_lies_in_the_box_and_holds_the_point_where_it_can(ratio: float) -> None:
    x = torch.rand(100, 1000).mul(1.4).sub(0.2).clamp(0, 1)
    lower, upper = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
    assert (upper - lower < 2 * 0.8 * EPS).any()  # narrower than the small box would be
    point = torch.lerp(lower, upper, torch.rand_like(x))
    low, high = small_box(point, lower, upper, ratio * EPS)
    rounding = 4 * torch.finfo(x.dtype).eps
    assert (low >= lower).all() and (high <= upper).all() and (low <= high).all()
    assert (low <= point + rounding).all() and (high >= point - rounding).all()
    torch.testing.assert_close(high - low, (upper - lower).clamp(max=2 * ratio * EPS), rtol=0, atol=rounding)
    # centred on the point wherever the box leaves room for it
    room = (point - lower >= ratio * EPS) & (upper - point >= ratio * EPS)
    torch.testing.assert_close(((low + high) / 2)[room], point[room], rtol=0, atol=rounding)


@pytest.mark.parametrize("made", [plain, normalised])
def test_sabr_is_ibp_of_the_small_box_with_clean_statistics(made) -> None:
    step, recipe = made(), SABRRecipe(eps_train=EPS, box_ratio=0.4)
    points = points_of(recipe, step)
    lower, upper = (step.x - EPS).clamp(min=0), (step.x + EPS).clamp(max=1)
    low, high = small_box(points, lower, upper, 0.4 * EPS)
    expected = cross_entropy(margins_of(step.model, low, high, step.x, step.labels)["ibp"])
    close(recipe.loss(step)["loss"], expected)


def test_sabr_at_its_limits() -> None:
    """A box of the whole radius is IBP; a box without a radius is adversarial training."""
    step = plain()
    weighted = dataclasses.replace(step, weights={"kappa": 0.0})
    whole = SABRRecipe(eps_train=EPS, box_ratio=1.0).loss(step)["loss"]
    torch.testing.assert_close(
        whole, recipes.IBPRecipe(eps_train=EPS, kappa_start=0.0, kappa_end=0.0).loss(weighted)["loss"]
    )
    attack = {"attack_step": 0.5, "attack_decays": (0.5, 0.8, 0.9)}
    with torch.random.fork_rng():
        point = SABRRecipe(eps_train=EPS, box_ratio=0.0).loss(step)["loss"]
    torch.testing.assert_close(point, PGDRecipe(eps_train=EPS, **attack).loss(step)["loss"])


def test_shrinking_makes_the_loss_smaller() -> None:
    step = normalised()
    with torch.random.fork_rng():
        whole = SABRRecipe(eps_train=EPS).loss(step)["loss"]
    assert SABRRecipe(eps_train=EPS, relu_shrink=0.4).loss(step)["loss"] < whole


# penalties and bad numbers


def test_each_code_base_has_its_own_l1() -> None:
    step = normalised()
    weights = sum(
        module.weight.double().abs().sum() for module in step.model if isinstance(module, nn.Conv2d | nn.Linear)
    )
    everything = sum(parameter.double().abs().sum() for parameter in step.model.parameters())
    assert everything > weights
    for method, expected in ((SABRRecipe, everything), (MTLIBPRecipe, weights), (PGDRecipe, weights)):
        for eps in (0.0, EPS):  # also while the radius is 0
            without, losses = (
                method(eps_train=EPS, l1=l1).loss(dataclasses.replace(normalised(), eps=eps)) for l1 in (0.0, 1e-3)
            )
            close(losses["loss"] - without["loss"], 1e-3 * expected)
            close(losses["l1_loss"], 1e-3 * expected)


@pytest.mark.parametrize("method", [SABRRecipe, *EXPRESSIVE])
def test_regularisers_are_those_of_the_propagated_box(method) -> None:
    without, found = (
        method(eps_train=EPS, regularisation=weight).loss(
            dataclasses.replace(normalised(), weights={"regularisation": weight})
        )
        for weight in (0.0, 0.3)
    )
    step, recipe = normalised(), method(eps_train=EPS)
    points, ends = points_of(recipe, step), recipe.ends(step, EPS)
    if method is SABRRecipe:
        box = fb.box(*small_box(points, *ends, recipe.box_ratio * EPS), nominal=step.x)
    else:
        box = fb.box(*ends, nominal=points)
    expected = warmup_regularisers(step.model(with_moments(box)))
    torch.testing.assert_close(torch.stack((found["tightness"], found["balance"])), torch.stack(expected))
    torch.testing.assert_close(found["loss"] - without["loss"], 0.3 * sum(expected), rtol=1e-5, atol=1e-6)
    assert found["tightness"] > 0


# Numbers as their authors' commands have them: radius of training, coefficient, L1, epochs, steps of the attack.
PUBLISHED = {
    "mnist-sabr-0.1": (0.1, 0.4, 1e-5, 70, 8),
    "mnist-sabr-0.3": (0.3, 0.6, 1e-6, 70, 8),
    "cifar10-sabr-2-255": (2 / 255, 0.1, 1e-6, 160, 8),
    "cifar10-sabr-8-255": (8 / 255, 0.7, 0.0, 180, 8),
    "mnist-mtl-ibp-0.1": (0.2, 0.01, 1e-5, 70, 1),
    "mnist-mtl-ibp-0.3": (0.4002, 0.08, 1e-6, 70, 1),
    "mnist-cc-ibp-0.1": (0.2, 0.1, 2e-6, 70, 1),
    "mnist-cc-ibp-0.3": (0.4002, 0.3, 3e-6, 70, 1),
    "cifar10-mtl-ibp-2-255": (2 / 255, 0.004, 3e-6, 160, 8),
    "cifar10-cc-ibp-2-255": (2 / 255, 0.01, 3e-6, 160, 8),
    "cifar10-exp-ibp-2-255": (2 / 255, 0.095, 4e-6, 160, 8),
    "cifar10-mtl-ibp-8-255": (8 / 255, 0.5, 1e-7, 260, 1),
    "cifar10-cc-ibp-8-255": (8 / 255, 0.5, 0.0, 260, 1),
    "cifar10-exp-ibp-8-255": (8 / 255, 0.5, 0.0, 260, 1),
    "tiny-imagenet-cc-ibp-1-255": (1 / 255, 0.01, 5e-5, 160, 1),
    "tiny-imagenet-mtl-ibp-1-255": (1 / 255, 0.01, 5e-5, 160, 1),
    "tiny-imagenet-exp-ibp-1-255": (1 / 255, 0.04, 5e-5, 160, 1),
}


def test_published_coefficients() -> None:
    for name, expected in PUBLISHED.items():
        config = find_config(name)
        recipe = config.recipe
        coefficient = recipe.box_ratio if isinstance(recipe, SABRRecipe) else recipe.alpha
        found = (recipe.eps_train, coefficient, recipe.l1, recipe.epochs, recipe.attack_steps)
        assert found == pytest.approx(expected), name
        weight = 0.2 if config.dataset == "tiny-imagenet" else 0.5
        assert (recipe.lr, recipe.lr_decay, recipe.init, recipe.regularisation) == (5e-4, 0.2, "ibp", weight), name
        assert recipe.attack_factor == (2.1 if re.fullmatch("cifar10-.*-ibp-2-255", name) else 1.0), name
    assert find_config("cifar10-sabr-2-255").recipe.relu_shrink == 0.4
    for eps in (0.1, 0.3):
        ours = find_config(f"mnist-exp-ibp-{eps}")
        assert ours.recipe.alpha == 0.5 and "fastbound's choice" in ours.source


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (PGDRecipe, {"regularisation": 0.5}, "pgd computes no bounds that it could regularise"),
        (SABRRecipe, {"box_ratio": 1.5}, r"box_ratio: wanted a number in \[0, 1\], got 1.5"),
        (SABRRecipe, {"relu_shrink": -0.1}, r"relu_shrink: wanted a number in \[0, 1\], got -0.1"),
        (MTLIBPRecipe, {"alpha": -0.5}, r"alpha: wanted a number in \[0, 1\], got -0.5"),
        (CCIBPRecipe, {"alpha": 2}, r"alpha: wanted a number in \[0, 1\], got 2"),
        (ExpIBPRecipe, {"alpha": float("nan")}, "alpha: wanted a finite number, got nan"),
        (PGDRecipe, {"attack_steps": 0}, "attack_steps: wanted a number greater than 0, got 0"),
        (PGDRecipe, {"attack_step": -1.0}, "attack_step: wanted a number greater than 0"),
        (PGDRecipe, {"attack_factor": 0.0}, "attack_factor: wanted a number greater than 0"),
        (
            PGDRecipe,
            {"attack_decays": [0.5, 2]},
            r"attack_decays: wanted shares of the steps in \(0, 1\], got \[0.5, 2\]",
        ),
        (PGDRecipe, {"l1": -1e-5}, "l1: wanted 0 or more, got -1e-05"),
        (PGDRecipe, {"alpha": 0.5}, "pgd has no option alpha; its options: attack_decays"),
    ],
)
def test_bad_coefficients(recipe, overrides, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipes.resolve(recipe(), EPS, overrides)
