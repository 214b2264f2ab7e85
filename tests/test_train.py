"""Training: recipes and their losses, the loop, checkpoints, run folders."""

import dataclasses
import json
import os
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastbound as fb
from fastbound import data, models
from fastbound.train import checkpoint, load_run, loop, recipes, settings, train
from fastbound.train.configs import CONFIGS, find_config
from fastbound.train.initialisation import initialise
from fastbound.train.interrupts import Interrupted, Interrupts
from fastbound.train.recipes import METHODS, CrownIBPRecipe, IBPRecipe, NaturalRecipe, Step
from fastbound.train.runs import RunError, RunFolder

SMALL = {
    "dataset": "digits",
    "model_options": {"hidden": [24]},
    "limit": 300,
    "test_limit": 60,
    "eps": 0.05,
    "pgd_steps": 3,
}
SHORT = {"epochs": 3, "batch_size": 100}


def small_run(out, given=None, overrides=None, **options):
    torch.set_num_threads(1)  # numbers are compared to the bit, and another number of threads sums in another order
    return train(out, {**SMALL, **(given or {})}, {**SHORT, **(overrides or {})}, quiet=True, **options)


def numbers(folder):
    """Metrics without the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("seconds")} for line in lines]


def weights(folder):
    return load_run(folder).state_dict()


# recipes


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


# settings


def test_settings_of_a_configuration_can_be_overridden():
    mnist = dataclasses.replace(data.load("digits"), name="mnist")
    made = settings.resolve({"config": "mnist-dm-small-0.3", "eps": 0.2, "model": "mlp"}, {"epochs": 50}, mnist)
    assert (made.model, made.eps, made.recipe.method, made.recipe.ramp) == ("mlp", 0.2, "crown-ibp", 30)
    assert settings.Settings.from_data(json.loads(json.dumps(made.as_data()))) == made
    with pytest.raises(ValueError, match=r"mnist-dm-small-0\.3 trains with crown-ibp, not ibp"):
        settings.resolve({"config": "mnist-dm-small-0.3", "method": "ibp"}, {}, mnist)
    for eps in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="eps: wanted a finite radius of at least 0"):
            settings.resolve({"eps": eps}, {}, mnist)
    with pytest.raises(ValueError, match="--method natural trains without one"):
        settings.resolve({"eps": 0.0}, {}, mnist)


# the loop


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished IBP run."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    report = small_run(folder)
    return folder, report


def test_a_run_leaves_what_it_promises(finished):
    folder, report = finished
    for name in RunFolder.FILES:
        assert (folder / name).is_file(), name
    assert not list(folder.rglob("*.partial"))
    assert json.loads((folder / "report.json").read_text()) == report
    assert report["clean_error"] <= report["pgd_error"] <= report["verified_error"] and report["num_samples"] == 60
    assert report["training_precision"].startswith("float32") and report["precision"].startswith("float32 (ieee)")
    lines = numbers(folder)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert {"loss", "natural_loss", "robust_loss", "clean_error", "verified_error", "eps", "lr"} <= set(lines[-1])
    assert lines[-1]["eps"] == pytest.approx(0.05)


def test_load_run_gives_the_trained_model(finished):
    folder, report = finished
    model = load_run(folder)
    assert not model.training and fb.load_run is load_run
    loader = data.Loader(data.load("digits").test.limit(60), 60)
    assert fb.certify(model, loader, 0.05, attack=None).verified_error == report["verified_error"]


def test_training_reduces_the_verified_error(tmp_path):
    given = {"limit": None, "test_limit": None, "pgd_steps": 5, "model_options": {"hidden": [64]}}
    report = small_run(tmp_path / "run", given, {"epochs": 12, "lr": 5e-3})
    assert report["verified_error"] < 0.4
    # the natural run of the same length is better on clean images, and certifies less
    natural = small_run(tmp_path / "natural", {**given, "method": "natural"}, {"epochs": 12, "lr": 5e-3})
    assert natural["clean_error"] < 0.1 and natural["verified_error"] > report["verified_error"] + 0.1


def test_same_seed_same_numbers_other_seed_other_numbers(finished, tmp_path):
    folder, _ = finished
    small_run(tmp_path / "again")
    small_run(tmp_path / "other", {"seed": 1})
    assert numbers(tmp_path / "again") == numbers(folder)
    assert numbers(tmp_path / "other") != numbers(folder)


class _StopAfter(Interrupts):
    """Asks for a stop at this question, as Ctrl-C would; an epoch asks after each of 3 steps and in its evaluation."""

    steps = 4

    @property
    def requested(self):
        self.seen += 1
        return "SIGINT" if self.seen >= self.steps else None

    @requested.setter
    def requested(self, value):
        self.seen = 0


@pytest.mark.parametrize("steps", [1, 3, 4, 9, 12, 13])
def test_resume_gives_the_numbers_of_an_uninterrupted_run(finished, tmp_path, monkeypatch, steps):
    folder, _ = finished
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(_StopAfter, "steps", steps)
        patch.setattr(loop, "Interrupts", _StopAfter)
        with pytest.raises(Interrupted, match=r"stopped by SIGINT in (epoch \d of 3|the final cert).*--resume"):
            small_run(stopped)
    assert not (stopped / "model.safetensors").exists()
    torch.rand(7)  # whatever happens between the two parts
    small_run(stopped, resume=True)
    assert numbers(stopped) == numbers(folder)
    assert all(torch.equal(left, right) for left, right in zip(weights(stopped).values(), weights(folder).values()))
    left, right = (checkpoint._read(path / RunFolder.FILES[-1])[1] for path in (stopped, folder))
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Dropping(NaturalRecipe):
    """Uses the global random generator in every step."""

    def loss(self, step):
        return {"loss": F.cross_entropy(step.model(F.dropout(step.x, 0.3)), step.labels)}


def test_resume_restores_the_random_generator(tmp_path, monkeypatch):
    dropping = dataclasses.dataclass(frozen=True, kw_only=True)(Dropping)
    monkeypatch.setattr(recipes.catalogue, "METHODS", {**METHODS, "natural": dropping})
    given = {"method": "natural"}
    small_run(tmp_path / "whole", given, {"crop": 1})
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interrupts", _StopAfter)
        with pytest.raises(Interrupted):
            small_run(tmp_path / "stopped", given, {"crop": 1})
    torch.manual_seed(99)
    small_run(tmp_path / "stopped", given, {"crop": 1}, resume=True)
    assert numbers(tmp_path / "stopped") == numbers(tmp_path / "whole")


def test_resume_from_an_older_checkpoint_rewrites_the_later_lines(finished, tmp_path, monkeypatch):
    folder, _ = finished
    out = tmp_path / "run"
    real = checkpoint.save
    with monkeypatch.context() as patch:  # the last checkpoint is of epoch 1, the metrics are of all three
        patch.setattr(checkpoint, "save", lambda path, *state: real(path, *state) if state[-1].epoch <= 1 else None)
        small_run(out, checkpoint_seconds=0.0)
    assert len(numbers(out)) == 3
    small_run(out, resume=True)
    assert numbers(out) == numbers(folder)


def test_ctrl_c_is_answered_between_two_steps():
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.requested == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.requested == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_resume_with_other_options_is_refused(finished):
    folder, _ = finished
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"epochs: 3 in the run, 5 now; lr: 0\.001 in the run, 0.5 now"):
        small_run(folder, None, {"epochs": 5, "lr": 0.5}, resume=True)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_nothing_is_overwritten_unasked(finished, tmp_path):
    folder, _ = finished
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        RunError, match="there is a run already; continue it with --resume, or replace it with --overwrite"
    ):
        small_run(folder)
    for overrides in ({"epochs": -1}, {"ramp": 100.0}):  # errors come before anything is replaced
        with pytest.raises(ValueError, match=r"epochs: wanted|schedule:"):
            small_run(folder, None, overrides, overwrite=True)
    with pytest.raises(ValueError, match="does not fit"):
        small_run(folder, {"model": "dm-small", "model_options": {}}, overwrite=True)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="is not empty and holds no run"):
            small_run(tmp_path, overwrite=overwrite)
    with pytest.raises(RunError, match="this is a file"):
        small_run(tmp_path / "thesis.tex")


def test_overwrite_replaces_the_run_and_keeps_other_files(tmp_path):
    small_run(tmp_path / "run", None, {"epochs": 1})
    (tmp_path / "run" / "notes.txt").write_text("mine")
    small_run(tmp_path / "run", {"seed": 3}, {"epochs": 2}, overwrite=True)
    assert len(numbers(tmp_path / "run")) == 2 and (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_divergence_is_an_error_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(loop.Diverged, match=r"the loss is .* in epoch \d .*smaller --lr.*checkpoint"):
        small_run(tmp_path / "run", {"method": "natural"}, {"lr": 1e30, "epochs": 5})
    assert (tmp_path / "run" / "checkpoint" / "state.safetensors").is_file()
    assert not (tmp_path / "run" / "report.json").exists()


def test_gradients_are_clipped(tmp_path, monkeypatch):
    seen = []
    real = torch.optim.Adam.step

    def spying(self, *arguments):
        gradients = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        seen.append(torch.stack(gradients).norm().item())
        return real(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", spying)
    small_run(tmp_path / "run", None, {"clip_norm": 0.01, "epochs": 1})
    assert len(seen) == 3 and max(seen) <= 0.01 * (1 + 1e-4)


# run folders


def damage(folder, tmp_path, name, content):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content((copy / name).read_bytes()))
    return copy


def changed_config(change):
    def content(old):
        config = json.loads(old)
        change(config)
        return json.dumps(config).encode()

    return content


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "there is no config.json, so this is no run folder"),
        ("config.json", lambda old: old[:50], r"config\.json: the file is damaged"),
        ("config.json", lambda old: b"[]", "run format None"),
        ("config.json", changed_config(lambda c: c.update(format=2, fastbound="9")), r"format 2 \(written by .* 9\)"),
        ("config.json", changed_config(lambda c: c["model"].pop("name")), "description of the model is damaged"),
        ("config.json", changed_config(lambda c: c["model"].update(name="vgg")), "no network 'vgg'; known: cnn7"),
        ("config.json", changed_config(lambda c: c["model"].update(num_classes=7)), "weights do not fit the network"),
        ("model.safetensors", None, "no trained weights; finish the run with"),
        ("model.safetensors", lambda old: old[:100], r"model\.safetensors: the file is damaged"),
        ("model.safetensors", lambda old: b"", r"model\.safetensors: the file is damaged"),
    ],
)  # fmt: skip
def test_damaged_run_folders_are_named(finished, tmp_path, name, content, message):
    copy = damage(finished[0], tmp_path, name, content)
    with pytest.raises(ValueError, match=message):
        load_run(copy)


def test_a_missing_run_folder(tmp_path):
    with pytest.raises(RunError, match="nowhere: there is no such run folder"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no checkpoint to resume from"),
        (lambda old: old[:200], "the checkpoint is damaged"),
        (lambda old: b"x", "damaged"),
    ],
)
def test_damaged_checkpoints_are_named(finished, tmp_path, content, message):
    copy = damage(finished[0], tmp_path, "checkpoint/state.safetensors", content)
    with pytest.raises(ValueError, match=message):
        small_run(copy, resume=True)
    assert len(numbers(copy)) == 3


def test_loading_never_unpickles(finished, monkeypatch):
    import pickle

    def refuse(*arguments, **options):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load_run(finished[0])
    small_run(finished[0], resume=True)


def test_a_checkpoint_is_whole_or_absent(finished, tmp_path, monkeypatch):
    """A crash while writing leaves the earlier checkpoint."""
    copy = damage(finished[0], tmp_path, "report.json", None)
    path = copy / "checkpoint" / "state.safetensors"
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoint.write_safetensors(path, {"x": torch.zeros(3)})
    assert path.read_bytes() == before
