"""Training: recipes and their losses, the loop, checkpoints, run folders."""

import dataclasses
import json
import os
import signal

import pytest
import torch
from run_folders import numbers
from torch.nn import functional as F

import fastbound as fb
from fastbound import data
from fastbound.train import checkpoint, load_run, loop, train
from fastbound.train.interrupts import Interrupted, Interrupts
from fastbound.train.recipes import METHODS, NaturalRecipe
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


def weights(folder):
    return load_run(folder).state_dict()


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
    """Requests a stop at this check, as Ctrl-C would; an epoch checks after each of 3 steps and in its evaluation."""

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
    monkeypatch.setattr("fastbound.train.recipes.catalogue.METHODS", {**METHODS, "natural": dropping})
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
