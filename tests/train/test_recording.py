"""A recording that fails leaves torch as it was, on an emulation of torch's state. On a GPU: failed_recording.py."""

from __future__ import annotations

import gc
import inspect
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from emulated_cuda import RELEASES, Graph, Machine, Stream
from torch import nn

from fastbound.train import CaptureError, recording
from fastbound.train.capture import Captured, StaticInputs
from fastbound.train.recording import NotRestored, record


@pytest.fixture(params=RELEASES, ids=lambda release: f"torch-{release[0]}.{release[1]}")
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """torch.cuda emulated, as far as a recording touches it."""
    made = Machine.now = Machine(request.param)
    emulated = {
        "CUDAGraph": Graph,
        "Stream": lambda device: made.side,
        "current_stream": lambda device=None: made.current,
        "stream": made.stream,
        "set_stream": made.set_stream,
        "graph_pool_handle": made.new_pool,
        "synchronize": lambda device=None: made.called("synchronize"),
        "empty_cache": made.empty_cache,
    }
    for name, value in emulated.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", made.end_allocation, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", made.release_pool, raising=False)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    monkeypatch.setattr(recording, "_RESET_GIVES_BACK", made.release >= (2, 14))
    monkeypatch.setattr(recording, "_failed", [])
    monkeypatch.setattr(recording, "gc", SimpleNamespace(collect=lambda: made.called("collect")))
    return made


# ---- failures --------------------------------------------------------------------------------------------------------


def reads(machine: Machine) -> None:
    machine.allocate(8)
    machine.draw()
    machine.read()


def raises(machine: Machine) -> None:
    machine.allocate(8)
    machine.draw()
    raise ValueError("of the step")


def is_interrupted(machine: Machine) -> None:
    machine.allocate(8)
    raise KeyboardInterrupt


def leaves_its_stream(machine: Machine) -> None:
    machine.set_stream(Stream("another"))
    raise ValueError("of the step")


def reads_and_goes_on(machine: Machine) -> None:
    """The first error is that of the step, wherever the capture became invalid."""
    try:
        machine.read()
    except RuntimeError as problem:
        raise ValueError("of the step") from problem


def swallows(machine: Machine) -> None:
    """Only the end of the capture tells."""
    try:
        machine.read()
    except RuntimeError:
        machine.allocate(8)


def broken(where: str) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        machine.allocate(8)
        machine.draw()

    step.broken = where  # type: ignore[attr-defined]
    return step


OF_STEP, OF_CUDA, PREVIOUS = (ValueError, "of the step"), (RuntimeError, "operation not permitted"), "a previous error"
FAILURES: dict[str, tuple[Callable[[Machine], None], tuple[type[BaseException], str | None]]] = {
    "reads": (reads, OF_CUDA),
    "raises": (raises, OF_STEP),
    "is interrupted": (is_interrupted, (KeyboardInterrupt, None)),
    "leaves its stream": (leaves_its_stream, OF_STEP),
    "reads and goes on": (reads_and_goes_on, OF_STEP),
    "swallows": (swallows, (RuntimeError, PREVIOUS)),
    "begins badly": (broken("cudaStreamBeginCapture"), (RuntimeError, "planted")),
    "has no pool": (broken("before the pool"), (RuntimeError, "planted")),
    "ends badly": (broken("cudaStreamEndCapture"), (RuntimeError, "planted")),
    "is no graph": (broken("cudaGraphInstantiate"), (RuntimeError, "planted")),
}


def plant(machine: Machine, step: Callable[[Machine], None]) -> None:
    if hasattr(step, "broken"):
        machine.broken[step.broken] = RuntimeError("planted")


def good(machine: Machine) -> str:
    machine.allocate(16)
    machine.draw()
    machine.pin()
    return "outputs"


def check_whole(machine: Machine, early: Graph, offset: int) -> None:
    """Eager work, memory, random numbers, replays of an earlier graph and a new recording are what they should be."""
    assert machine.current is machine.main and machine.side.capturing is None
    assert machine.draw() == offset and machine.generator.offset == offset + 4
    early.replay()
    assert machine.generator.offset == offset + 8
    machine.allocate(32)
    torch.cuda.empty_cache()
    assert machine.cached == 0 and machine.held == {early.of_pool: 16} and machine.claims == {early.of_pool: 1}
    graph, outputs = record(lambda: good(machine), machine.side)
    graph.replay()
    assert outputs == "outputs" and machine.generator.offset == offset + 12
    machine.read()


@pytest.mark.parametrize("name", FAILURES)
def test_a_recording_that_fails_leaves_torch_as_it_was(name: str, machine: Machine) -> None:
    step, (kind, words) = FAILURES[name]
    early, _ = record(lambda: good(machine), machine.side)
    for _ in range(2):
        offset = machine.generator.offset
        plant(machine, step)
        with pytest.raises(kind, match=words) as caught:
            record(lambda: step(machine), machine.side)
        assert caught.type is kind and not machine.broken
        del caught  # its frames hold the graph
        check_whole(machine, early, offset)


# Of the second recording and of the third, which puts the generator right.
PROLOGUE, REPAIR = (
    ["synchronize", "collect", "empty_cache", "capture_begin 2 on side"],
    ["capture_begin 3 on side", "capture_end 3", "main waits for side"],
)
UNDONE, RELEASED = ["reset 2", "endAllocateToPool 2", "releasePool 2"], ["reset 2", "endAllocateToPool 2"]


@pytest.mark.parametrize(
    ("name", "ends", "undone", "undone_from_214"),
    [
        ("reads", True, UNDONE, RELEASED),
        ("raises", True, ["reset 2"], ["reset 2"]),
        ("begins badly", False, UNDONE, RELEASED),
        ("has no pool", False, RELEASED, RELEASED),
        ("ends badly", True, UNDONE, RELEASED),
        ("is no graph", True, ["reset 2"], ["reset 2"]),
    ],
)
def test_the_calls_that_undo_it(
    name: str, ends: bool, undone: list[str], undone_from_214: list[str], machine: Machine
) -> None:
    step, (kind, _) = FAILURES[name]
    earlier = record(lambda: good(machine), machine.side)
    machine.calls.clear()
    plant(machine, step)
    with pytest.raises(kind):
        record(lambda: step(machine), machine.side)
    undone = undone_from_214 if machine.release >= (2, 14) else undone
    assert machine.calls == [*PROLOGUE, *["capture_end 2"] * ends, *undone, *REPAIR]
    del earlier


def test_a_function_may_leave_its_stream(machine: Machine) -> None:
    graph, _ = record(lambda: machine.set_stream(Stream("another")), machine.side)
    assert graph.pool() == 1 and machine.current is machine.main


def test_a_recording_that_succeeds_undoes_nothing(machine: Machine) -> None:
    recorded = record(lambda: good(machine), machine.side)
    assert recorded[1] == "outputs" and machine.current is machine.main and not recording._failed
    expected = ["synchronize", "collect", "empty_cache", "capture_begin 1 on side", "capture_end 1"]
    assert machine.calls == [*expected, "main waits for side"] and machine.claims == {1: 1}


@pytest.mark.parametrize("call", ["reset", "endAllocateToPool", "releasePool", "cudaStreamBeginCapture"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_what_cannot_be_undone_is_said_and_the_rest_is_undone(
    call: str, interrupted: bool, machine: Machine, recwarn: pytest.WarningsRecorder
) -> None:
    """The first error stays the cause; an interrupt stays an interrupt."""
    planted = RuntimeError("planted\nwith advice")

    def step() -> None:
        machine.broken[call] = planted
        try:
            machine.read()
        except RuntimeError as problem:
            raise (KeyboardInterrupt if interrupted else problem) from None

    if call == "releasePool" and machine.release >= (2, 14):
        pytest.skip("torch does it")
    with pytest.raises(KeyboardInterrupt if interrupted else NotRestored) as caught:
        record(step, machine.side)
    says = str(recwarn.pop(UserWarning).message) if interrupted else str(caught.value)
    first = "KeyboardInterrupt" if interrupted else "CUDA error: operation not permitted when stream is capturing"
    assert says.startswith(f"{first}; torch is left inside the recording (planted): start a new process.")
    if not interrupted:
        assert "operation not permitted" in str(caught.value.__cause__)
    calls = ["reset 1", "endAllocateToPool 1", *["releasePool 1"] * (machine.release < (2, 14))]
    assert [called for called in machine.calls if called in calls] == calls
    assert "capture_begin 2 on side" in machine.calls and machine.current is machine.main


def test_torchs_own_way_leaves_the_process_broken(machine: Machine) -> None:
    """The emulation shows what it is there to show: with torch.cuda.graph the same step poisons the process."""
    early, _ = record(lambda: good(machine), machine.side)
    with pytest.raises(RuntimeError), torch.cuda.graph(Graph(), stream=machine.side):
        reads(machine)
    if torch.__version__ < "2.15.dev0":
        assert machine.current is machine.side
    machine.current = machine.main
    machine.allocate(32)
    torch.cuda.empty_cache()
    if machine.release < (2, 13):
        assert machine.cached and machine.routed
    if machine.release < (2, 14):
        assert machine.claims != {early.of_pool: 1}
    if machine.release < (2, 12):
        for use in (machine.draw, early.replay):
            with pytest.raises(RuntimeError, match="outside graph capture"):
                use()
    if machine.release < (2, 13):
        gc.collect()
        with pytest.raises(AssertionError, match="a graph that is gone"):
            machine.pin()


# ---- a captured step -------------------------------------------------------------------------------------------------


def test_a_captured_step_that_fails_keeps_its_gradients_and_may_be_called_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(sys.modules[Captured.__module__], "require_capturable", lambda _: None)
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    problems: list[BaseException] = []

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        (weight * x).sum().backward()
        optimizer.step()
        if problems and machine.current.capturing:
            raise problems.pop()

    captured = Captured(step, StaticInputs((torch.zeros(3),)))
    for turn in range(3):
        captured(torch.full((3,), float(turn)))
    before = weight.grad
    for problem, told in (
        (RuntimeError("CUDA error: read\nadvice"), CaptureError),
        (RuntimeError(), CaptureError),
        (NotRestored("and no way back, which must end a run"), NotRestored),
        (ValueError("of the step"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        problems.append(problem)
        with pytest.raises(told) as caught:
            captured(torch.full((3,), 7.0))
        assert weight.grad is before and torch.equal(before, torch.full((3,), 2.0))
        if told is CaptureError:
            reason = "CUDA error: read" if str(problem) else "RuntimeError"
            assert str(caught.value) == f"the step cannot be recorded as a CUDA graph: {reason}"
            assert caught.value.__cause__ is problem
        else:
            assert caught.value is problem
    captured(torch.full((3,), 7.0))
    begun = sum(call.startswith("capture_begin") for call in machine.calls)
    captured(torch.full((3,), 7.0))
    assert begun == sum(call.startswith("capture_begin") for call in machine.calls) == 11
    assert weight.grad is not before


# ---- torch itself ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.version.cuda is None, reason="the private functions of captures are in CUDA builds of torch")
def test_torch_has_what_a_recording_calls() -> None:
    names = set(re.findall(r"torch\._C\.(\w+)", inspect.getsource(recording)))
    assert names == {"_cuda_endAllocateToPool", "_cuda_releasePool"}
    for name in names:
        assert inspect.isbuiltin(getattr(torch._C, name))
    for name in ("capture_begin", "capture_end", "pool", "reset", "replay"):
        assert callable(getattr(torch._C._CUDAGraph, name))
    assert "pool" in inspect.signature(torch.cuda.CUDAGraph.capture_begin).parameters
