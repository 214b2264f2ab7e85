"""A recording that fails leaves torch as it was, on an emulation of what torch keeps. On a GPU: failed_recording.py."""

from __future__ import annotations

import gc
import inspect
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fastbound.train import CaptureError, recording
from fastbound.train.capture import Captured, StaticInputs
from fastbound.train.recording import NotRestored, record

# The releases that differ in what a failed capture leaves behind, read in their sources and seen in their libraries:
# up to 2.11 capture_end() raises before anything is undone; 2.12 knows a generator by capture; 2.13 ends the
# allocation to the pool before it raises; from 2.14 on reset() gives back the pool.
RELEASES = ((2, 11), (2, 12), (2, 13), (2, 14))
DEVICE = 1

# ---- an emulation ----------------------------------------------------------------------------------------------------


class Stream:
    def __init__(self, name: str) -> None:
        self.name, self.capturing = name, None
        self.device, self.device_index = torch.device("cpu"), DEVICE

    def wait_stream(self, other: Stream) -> None:
        Machine.now.calls.append(f"{self.name} waits for {other.name}")


class Machine:
    """What torch keeps of captures: current stream, pools and who claims them, where allocations go, a generator."""

    now: Machine

    def __init__(self, release: tuple[int, int]) -> None:
        self.release = release
        self.calls: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.main, self.side = Stream("main"), Stream("side")
        self.current = self.main
        self.pools = 0
        self.claims: dict[int, int] = {}
        self.held: dict[int, int] = {}  # bytes of each pool
        self.cached = 0  # bytes of no pool
        self.routed: list[int] = []
        self.asked: dict[int, weakref.ref[Graph]] = {}  # by the allocator of pinned memory
        self.generator = SimpleNamespace(offset=0, recording=False)

    def called(self, call: str, pool: int | None = None) -> None:
        self.calls.append(call if pool is None else f"{call} {pool}")
        if call in self.broken:
            raise self.broken.pop(call)

    # What a step does.

    def draw(self) -> int:
        """A random number: where it is in the sequence."""
        graph = self.current.capturing
        recording = self.generator.recording if self.release < (2, 12) else graph is not None
        if recording != (graph is not None):
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        at = self.generator.offset
        if graph is None:
            self.generator.offset += 4
        else:
            graph.draws += 4
        return at

    def allocate(self, amount: int) -> None:
        if self.current.capturing is None:
            self.cached += amount
        else:
            self.held[self.current.capturing.of_pool] = amount

    def pin(self) -> None:
        """Pinned memory: every graph whose capture is thought underway is asked whether it is for it."""
        for graph in self.asked.values():
            assert graph() is not None, "torch reads a graph that is gone"

    def read(self) -> float:
        self.pin()
        if self.current.capturing is not None:
            self.current.capturing.valid = False
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nFor debugging consider")
        return 0.0

    # The allocator.

    def claim(self, pool: int) -> None:
        assert self.claims.get(pool, 1) > 0
        self.claims[pool] = self.claims.get(pool, 0) + 1

    def end_allocation(self, device: int, pool: int) -> None:
        assert device == DEVICE
        self.called("endAllocateToPool", pool)
        if pool not in self.routed:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.routed.remove(pool)

    def release_pool(self, device: int, pool: int) -> None:
        assert device == DEVICE
        self.called("releasePool", pool)
        if pool not in self.claims:
            raise RuntimeError("it != graph_pools.end() INTERNAL ASSERT FAILED")
        self.claims[pool] -= 1
        if self.claims[pool] < 0:
            raise RuntimeError("uc >= 0 INTERNAL ASSERT FAILED")

    def empty_cache(self) -> None:
        self.called("empty_cache")
        if not self.routed:
            self.cached = 0
        for pool, claims in list(self.claims.items()):
            assert claims >= 0, "it->second->use_count == 0 INTERNAL ASSERT FAILED"
            if claims == 0:
                del self.claims[pool]
                self.held.pop(pool, None)

    # Streams.

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def set_stream(self, stream: Stream) -> None:
        self.current = stream

    def new_pool(self) -> int:
        self.pools += 1
        return self.pools


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self.machine, self.on = Machine.now, Machine.now.current
        self.of_pool = self.draws = 0
        self.ended = self.claimed = False
        self.valid = True

    def capture_begin(self, pool: int | None = None, **_: object) -> None:
        machine, self.on = self.machine, self.machine.current
        self.of_pool = machine.new_pool() if pool is None else pool
        machine.calls.append(f"capture_begin {self.of_pool} on {self.on.name}")
        if "before the pool" in machine.broken:
            raise machine.broken.pop("before the pool")
        machine.generator.recording = machine.release < (2, 12)
        machine.claim(self.of_pool)
        machine.routed.append(self.of_pool)
        machine.asked[self.of_pool] = weakref.ref(self)
        self.claimed = True
        if "cudaStreamBeginCapture" in machine.broken:
            raise machine.broken.pop("cudaStreamBeginCapture")
        if self.on.capturing is not None:
            raise RuntimeError("CUDA error: the operation cannot be performed in the present state")
        self.on.capturing = self

    def capture_end(self) -> None:
        machine = self.machine
        machine.calls.append(f"capture_end {self.of_pool}")
        if machine.current is not self.on:
            raise RuntimeError("Capture must end on the same stream it began on.")
        assert self.on.capturing is self
        self.on.capturing = None
        problem = machine.broken.pop("cudaStreamEndCapture", None)
        if not self.valid:
            problem = RuntimeError("CUDA error: operation failed due to a previous error during capture")
        if machine.release >= (2, 13):
            self._end_allocation()
        if problem is not None:
            raise problem
        if machine.release < (2, 13):
            self._end_allocation()
        machine.generator.recording = False
        self.ended = True
        if "cudaGraphInstantiate" in machine.broken:
            raise machine.broken.pop("cudaGraphInstantiate")

    def _end_allocation(self) -> None:
        self.machine.routed.remove(self.of_pool)
        del self.machine.asked[self.of_pool]

    def reset(self) -> None:
        self.machine.called("reset", self.of_pool)
        if self.machine.release >= (2, 14) and self.of_pool in self.machine.routed:
            self._end_allocation()
        if self.ended or (self.machine.release >= (2, 14) and self.claimed):
            self.machine.claims[self.of_pool] -= 1
        self.ended = self.claimed = False

    def __del__(self) -> None:
        # As ~CUDAGraph, in C++ and without a record of the call.
        if self.ended:
            self.machine.claims[self.of_pool] -= 1

    def pool(self) -> int:
        if not self.ended:
            raise RuntimeError("Called CUDAGraph::pool() without a preceding successful capture.")
        return self.of_pool

    def replay(self) -> None:
        assert self.ended
        if self.machine.generator.recording:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        self.machine.generator.offset += self.draws


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


def test_torchs_own_way_leaves_that_behind(machine: Machine) -> None:
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
