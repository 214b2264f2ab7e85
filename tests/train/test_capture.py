"""Steps as CUDA graphs: what is refused, that a phase is recorded once, and on a GPU that replays equal eager."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT
from test_scheduled import BATCHES, RECIPES, moments, network, resolved
from torch import Tensor

import fastbound as fb
from fastbound import data
from fastbound.train import capture, checkpoint, steps
from fastbound.train import train as train_run
from fastbound.train.capture import Captured, StaticInputs, require_capturable
from fastbound.train.distributed import Processes
from fastbound.train.recipes import Recipe
from fastbound.train.steps import CapturedByPhase, TrainingStep, make_optimizer, scheduled_at, set_lr, why_eager

# ---- arguments -------------------------------------------------------------------------------------------------------


def test_a_graph_needs_cuda() -> None:
    with pytest.raises(ValueError, match=r"example_batch: a CUDA graph needs CUDA, but the tensors are on cpu; move"):
        capture(lambda x: x, (torch.zeros(2),))


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((0.1, 2), ValueError, r"wanted tensors on one device, got no tensor"),
        ((torch.zeros(1), torch.zeros(1, device="meta")), ValueError, r"one device, got (cpu, meta|meta, cpu)"),
        ((torch.zeros(1), "0.1"), TypeError, r"example_batch\[1\]: wanted a tensor or a number, got str"),
        ((torch.zeros(1, requires_grad=True),), ValueError, r"example_batch\[0\]: .* without gradients.*Detach it"),
    ],
)
def test_examples_of_a_batch(batch: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        StaticInputs(batch)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((torch.zeros(4, 3), 0.1), ValueError, r"batch\[0\]: .* captured with shape \[2, 3\], got \[4, 3\]"),
        ((torch.zeros(2, 3).double(), 0.1), ValueError, r"dtype torch.float32, got torch.float64"),
        ((torch.zeros(2, 3, device="meta"), 0.1), ValueError, r"device cpu, got meta"),
        ((torch.zeros(2, 3, requires_grad=True), 0.1), ValueError, r"requires_grad False, got True"),
        ((torch.zeros(2, 3),), ValueError, r"captured with 2 arguments, got 1"),
        ((0.5, 0.1), TypeError, r"batch\[0\]: the step was captured with a tensor, got float"),
        ((torch.zeros(2, 3), None), TypeError, r"batch\[1\]: .* got NoneType"),
    ],
)
def test_a_batch_that_is_not_what_was_captured(batch: tuple[Any, ...], error: type[Exception], message: str) -> None:
    inputs = StaticInputs((torch.zeros(2, 3), 0.1))
    with pytest.raises(error, match=message):
        inputs.write(batch)


def test_inputs_are_copied_into_the_same_memory() -> None:
    inputs = StaticInputs((torch.zeros(2, 3), 0.5))
    addresses = [buffer.data_ptr() for buffer in inputs.buffers]
    x = torch.rand(3, 2).T
    for number in (0.25, 0.25, 2, torch.tensor(0.125), 2):
        inputs.write((x, number))
        assert torch.equal(inputs.buffers[0], x) and inputs.buffers[1] == number
    assert addresses == [buffer.data_ptr() for buffer in inputs.buffers]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "parameters are on cpu; move the model to a GPU"),
        ({"params": []}, r"Adam counts its steps on the host; make it with capturable=True"),
        ({"params": [], "capturable": True}, r"learning rate 0\.001 is a number.*lr=torch\.tensor\(0\.001"),
    ],
)
def test_optimisers_that_a_graph_would_freeze(options: dict[str, Any], message: str) -> None:
    optimizer = torch.optim.Adam(network().parameters(), lr=1e-3)
    optimizer.param_groups[0].update(options)
    with pytest.raises(ValueError, match=f"optimizer: .*{message}"):
        require_capturable(optimizer)
    optimizer.param_groups[0].update(params=[], capturable=True, lr=torch.tensor(1e-3))
    require_capturable(optimizer)


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
@pytest.mark.parametrize(("device", "world_size"), [("cpu", 1), ("cuda", 1), ("cuda", 2)])
def test_when_a_run_captures(mode: str, device: str, world_size: int) -> None:
    group = Processes(0, world_size, torch.device(device))
    possible = device == "cuda" and world_size == 1
    if mode == "on" and not possible:
        with pytest.raises(ValueError, match=r"cuda_graph: .* but (the run is on cpu|gradients .* 2 processes); use"):
            why_eager(mode, group)
    else:
        assert (why_eager(mode, group) is None) == (possible and mode != "off")


def test_modes_are_checked() -> None:
    with pytest.raises(ValueError, match="cuda_graph: wanted auto, on, off, got 'yes'"):
        why_eager("yes", Processes(0, 1, torch.device("cpu")))


# ---- a graph that the host plays -------------------------------------------------------------------------------------


class OnHost(Captured):
    """The same calls without a GPU: a replay runs the recorded function on the memory of its inputs."""

    def __init__(self, step: Callable[..., Any], inputs: StaticInputs) -> None:
        self._step, self._inputs = step, inputs
        self._eager_calls, self._graph = 0, None

    def _run_eagerly(self) -> Any:
        return self._step(*self._inputs.buffers)

    def _record(self) -> Any:
        self.recorded = True

        def replay() -> None:
            self._outputs = self._step(*self._inputs.buffers)

        return SimpleNamespace(replay=replay)


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> list[OnHost]:
    """Makes `CapturedByPhase` capture on the host; the list fills with what it captures."""
    made: list[OnHost] = []

    def on_host(step: Callable[..., Any], example: tuple[Any, ...]) -> OnHost:
        made.append(OnHost(step, StaticInputs(example)))
        return made[-1]

    monkeypatch.setattr(steps, "capture", on_host)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    return made


def batches(count: int, device: str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        x = torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64)
        yield x.to(device), torch.randint(10, (6,), generator=generator).to(device)


def trained(
    recipe: Recipe, at: list[int], captured: bool, device: str = "cpu", lowered: torch.dtype | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Losses and final parameters of one training step at each of the moments `at` of a run.

    In float64, or in float32 if autocast lowers products, because it lowers only those.
    """
    dtype = torch.float64 if lowered is None else torch.float32
    model = network(recipe.norm).to(device, dtype)
    optimizer = make_optimizer(recipe, model, torch.device(device), captured and device == "cuda")
    if captured and device == "cpu":
        optimizer.param_groups[0].update(lr=torch.tensor(recipe.lr), foreach=False)
    # The gradient of a bias before a BatchNorm is only rounding, which Adam would turn into whole steps; hence float64.
    optimizer.param_groups[0]["eps"] = 1e-3
    eager = TrainingStep(recipe, model, optimizer, 10, recipe.memory(), lowered)
    step = CapturedByPhase(eager) if captured else eager
    losses = []
    torch.manual_seed(7)
    for moment, (x, labels) in zip(at, batches(len(at), device)):
        set_lr(optimizer, recipe.lr_at(moment, BATCHES))
        losses += [value.clone() for value in step(x.to(dtype), labels, scheduled_at(recipe, moment, BATCHES)).values()]
    return losses, list(model.parameters())


def long_enough_in_each_phase(recipe: Recipe) -> list[int]:
    """Moments of a run: at least six in every phase, so that each records and replays, then the first phase again."""
    return [*itertools.chain.from_iterable([step] * 6 for step in moments(recipe)), 0, 0]


@pytest.mark.parametrize("name", RECIPES)
def test_every_phase_is_recorded_once_and_follows_the_schedules(name: str, on_host: list[OnHost]) -> None:
    recipe = resolved(name)
    at = long_enough_in_each_phase(recipe)
    losses, parameters = trained(recipe, at, captured=True)
    expected_losses, expected = trained(recipe, at, captured=False)
    phases = {tuple((k, v) for k, v in scheduled_at(recipe, s, BATCHES).items() if v in (0, 1)) for s in at}
    assert len(on_host) == len(phases) and all(step.recorded for step in on_host)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parameters, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_recorded_step_keeps_its_lowered_precision(device: str, request: pytest.FixtureRequest) -> None:
    """`--precision bf16`: a replay is as far from float64 as the eager step is, and both are the same."""
    if device == "cpu":
        request.getfixturevalue("on_host")
    recipe = resolved("ibp")
    at = [long_enough_in_each_phase(recipe)[-3]] * 12
    replayed, eager = (
        torch.stack(trained(recipe, at, captured, device, torch.bfloat16)[0]).double() for captured in (True, False)
    )
    exact = torch.stack(trained(recipe, at, False, device)[0])
    lowered_by = (eager - exact).abs().max()
    assert 1e-4 < lowered_by < 0.1 * exact.abs().max()
    assert (replayed - eager).abs().max() < 0.1 * lowered_by


def test_autocast_around_a_captured_step_is_refused(on_host: list[OnHost]) -> None:
    """It would keep the casts of weights from one step to the next, and a graph would replay them for ever."""
    step = OnHost(lambda x: x * 2, StaticInputs((torch.zeros(3),)))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=r"autocast is on .* inside the step"):
        step(torch.ones(3))
    assert torch.equal(step(torch.ones(3)), torch.full((3,), 2.0))


def test_the_learning_rate_is_one_tensor_and_survives_a_checkpoint(tmp_path: Any) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.5), foreach=False)
    lr = optimizer.param_groups[0]["lr"]
    set_lr(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is lr and lr == 0.25
    model(torch.rand(6, 1, 8, 8)).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path / "state", model, torch.nn.Module(), optimizer, checkpoint.Position(step=1))
    # A run that is resumed without graphs has a number there, and keeps it.
    other = torch.optim.Adam(network().parameters(), lr=1e-3)
    assert checkpoint.load(tmp_path / "state", network(), torch.nn.Module(), other).step == 1
    assert other.param_groups[0]["lr"] == 1e-3 and not other.param_groups[0]["capturable"]
    for index, saved in optimizer.state_dict()["state"].items():
        mine = other.state_dict()["state"][index]
        assert torch.equal(mine["exp_avg"], saved["exp_avg"]) and mine["step"] == saved["step"] == 1


def test_a_run_says_how_its_steps_ran(tmp_path: Any) -> None:
    given = {"method": "ibp", "eps": 0.05, "limit": 128, "test_limit": 20, "pgd_steps": 0, "device": "cpu"}
    with pytest.raises(ValueError, match="cuda_graph: a CUDA graph was asked for, but the run is on cpu"):
        train_run(tmp_path / "run", {**given, "cuda_graph": "on"}, {"epochs": 1}, quiet=True)
    report = train_run(tmp_path / "run", given, {"epochs": 1}, quiet=True)
    assert report["cuda_graph"] == "off (the run is on cpu)"
    # A run may continue with another choice.
    again = train_run(tmp_path / "run", {"cuda_graph": "off"}, resume=True, quiet=True)
    assert again["cuda_graph"] == "off (asked for)" and again["verified_error"] == report["verified_error"]


# ---- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_replays_equal_eager_steps(name: str) -> None:
    """At least ten replays in all on changing inputs, radii, weights and learning rates, through every phase."""
    recipe = resolved(name)
    at = long_enough_in_each_phase(recipe)
    at += [at[len(at) // 2]] * 10
    losses, parameters = trained(recipe, at, captured=True, device="cuda")
    expected_losses, expected = trained(recipe, at, captured=False, device="cuda")
    torch.testing.assert_close(losses, expected_losses, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(parameters, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_ten_replays_of_a_users_step() -> None:
    def run(captured: bool) -> list[Tensor]:
        model = network().double().cuda()
        lr = torch.tensor(1e-3, device="cuda")
        optimizer = torch.optim.Adam(model.parameters(), lr, eps=1e-3, capturable=True)

        def step(x: Tensor, labels: Tensor, eps: float | Tensor) -> dict[str, Tensor]:
            optimizer.zero_grad(set_to_none=True)
            out = model(fb.linf_box(x, eps, 0.0, 1.0))
            margins = fb.bound(out, method="crown-ibp", spec=fb.margin_spec(labels, 10))
            loss = fb.losses.robust_cross_entropy(margins)
            loss.backward()
            optimizer.step()
            return {"loss": loss}

        found = []
        for turn, batch in enumerate(batches(14, "cuda")):
            if turn == 0 and captured:
                step = capture(step, (*batch, 0.1))
            lr.fill_(1e-3 / (1 + turn))
            found.append(step(*batch, 0.01 * (turn + 1))["loss"].detach().clone())
        return found

    replayed, eager = run(True), run(False)
    torch.testing.assert_close(replayed, eager, rtol=1e-4, atol=1e-5)
    assert len({round(float(loss), 6) for loss in replayed}) == 14


@pytest.mark.gpu
def test_a_changed_batch_is_refused() -> None:
    step = capture(lambda x: x * 2, (torch.zeros(3, device="cuda"),))
    for wrong in (torch.zeros(4, device="cuda"), torch.zeros(3, device="cuda").half(), torch.zeros(3)):
        with pytest.raises(ValueError, match="the step was captured with"):
            step(wrong)


@pytest.mark.gpu
def test_steps_that_cannot_be_recorded_are_refused_and_the_process_goes_on() -> None:
    """In a process of its own, which a step that reads a value could otherwise spoil for the tests after this one."""
    command = [sys.executable, str(ROOT / "tests" / "failed_recording.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.endswith("whole\n"), f"{done.stdout}\n{done.stderr}"


@pytest.mark.gpu
def test_an_optimiser_that_cannot_be_captured_is_named_by_the_first_call() -> None:
    model = network().cuda()
    optimizer = torch.optim.Adam(model.parameters())
    before = copy.deepcopy(model.state_dict())

    def step(x: Tensor) -> None:
        model.eval()(x).sum().backward()
        optimizer.step()

    with pytest.raises(ValueError, match="capturable=True"):
        capture(step, (torch.rand(6, 1, 8, 8, device="cuda"),))(torch.rand(6, 1, 8, 8, device="cuda"))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.gpu
def test_an_epoch_of_replays_waits_for_nothing() -> None:
    """Loader, augmentation, schedules and replays: not one of them makes the host wait for the device."""
    recipe = resolved("ibp")
    model = network().cuda()
    optimizer = make_optimizer(recipe, model, torch.device("cuda"), captured=True)
    step = CapturedByPhase(TrainingStep(recipe, model, optimizer, 10))
    images = data.Images(torch.randint(256, (96, 1, 8, 8), dtype=torch.uint8), torch.arange(96) % 10).to("cuda")
    loader = data.Loader(images, 6, shuffle=True, augmentation=data.Augmentation(flip=True, crop=2))
    moment = len(range(recipe.epochs)) * BATCHES // 2
    for epoch in range(2):
        stream = loader.epoch(epoch)
        batch = next(stream)  # the order of an epoch is drawn on the host and copied once
        torch.cuda.set_sync_debug_mode("error" if epoch else "default")
        try:
            for turn, batch in enumerate(stream):
                set_lr(optimizer, 1e-3 / (1 + turn))
                step(*batch, scheduled_at(recipe, moment + turn % 2, BATCHES))
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["default", "ieee", "tf32", "bf16"])
def test_a_run_with_graphs_ends_like_one_without(tmp_path: Any, precision: str) -> None:
    given = {"method": "ibp", "eps": 0.05, "limit": 512, "test_limit": 200, "device": "cuda", "precision": precision}
    reports = [
        train_run(tmp_path / mode, {**given, "cuda_graph": mode}, {"epochs": 4}, quiet=True) for mode in ("on", "off")
    ]
    assert reports[0]["training_precision"] == reports[1]["training_precision"]
    assert [report["cuda_graph"] for report in reports] == ["on", "off (asked for)"]
    assert reports[0]["verified_error"] == pytest.approx(reports[1]["verified_error"], abs=0.05)
