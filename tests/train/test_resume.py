"""Every method resumes to the bit: whatever it carries from step to step is in the checkpoint."""

import pytest
import torch
from run_folders import numbers
from safetensors.torch import load_file

from fastbound.train import loop, train
from fastbound.train.interrupts import Interrupted, Interrupts
from fastbound.train.recipes import METHODS

# 3 steps an epoch (the last images fill no batch): the first at radius 0, a ramp that ends in the third.
RUN = {"dataset": "digits", "eps": 0.05, "limit": 126, "test_limit": 40, "pgd_steps": 2}
SHORT = {"epochs": 4, "batch_size": 32, "milestones": ()}
RAMP = {"warmup": 0.5, "ramp": 2.0}
# Random crops and BatchNorm, so that generators and running statistics have to be restored too.
NETWORK = {"model": "cnn7", "model_options": {"width": 2}}
OTHER_NETWORKS = {
    "gloro": {"model": "gloro-2c2f"},
    "relaxation": {"model": "mlp", "model_options": {"hidden": [16]}},
}
OVERRIDES = {
    "natural": {},
    "singleprop-adaptive": {**RAMP, "validation": 30},
    "sabr": {**RAMP, "regularisation": 0.5, "relu_shrink": 0.4},
    "gloro": {**RAMP, "power_iterations": 1, "lr_hold": 1.0},
    "relaxation": {**RAMP, "relaxation": "deepz"},
}


def small_run(out, method, **options):
    given = {**RUN, "method": method, **OTHER_NETWORKS.get(method, NETWORK)}
    overrides = {**SHORT, "crop": 1, **OVERRIDES.get(method, RAMP)}
    return train(out, given, overrides, quiet=True, **options)


class _StopAfter(Interrupts):
    """Requests a stop at this check, as Ctrl-C would; an epoch checks after each of 3 steps and in its evaluation."""

    questions = 10  # the second step of the third epoch

    @property
    def requested(self):
        self.seen += 1
        return "SIGINT" if self.seen >= self.questions else None

    @requested.setter
    def requested(self, value):
        self.seen = 0


def killed_after(steps, monkeypatch):
    """The process ends without a word in the middle of an epoch, as by SIGKILL: nothing is saved on the way out."""
    real, done = loop.TrainingStep.__call__, []

    def step(self, *arguments):
        if len(done) == steps:
            raise MemoryError("killed")
        done.append(None)
        return real(self, *arguments)

    monkeypatch.setattr(loop.TrainingStep, "__call__", step)


def assert_same_run(left, right):
    assert numbers(left) == numbers(right)
    states = [load_file(folder / "checkpoint" / "state.safetensors") for folder in (left, right)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_as_if_it_had_not_been(tmp_path, monkeypatch, method):
    small_run(tmp_path / "whole", method)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interrupts", _StopAfter)
        with pytest.raises(Interrupted, match="in epoch 3 of 4, after 2 of 3 batches"):
            small_run(tmp_path / "stopped", method)
    torch.rand(7)  # whatever happens between the two parts
    small_run(tmp_path / "stopped", method, resume=True)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("method", ["short-warmup", "singleprop-adaptive", "sabr", "gloro"])
def test_a_killed_run_goes_on_from_the_end_of_an_epoch(tmp_path, monkeypatch, method):
    small_run(tmp_path / "whole", method)
    with monkeypatch.context() as patch:
        killed_after(8, patch)
        with pytest.raises(MemoryError):
            small_run(tmp_path / "killed", method, checkpoint_seconds=0.0)
    torch.rand(7)
    small_run(tmp_path / "killed", method, resume=True)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
