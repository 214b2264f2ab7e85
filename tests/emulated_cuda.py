"""An emulation of the state that torch keeps of captures, for the releases that differ after a capture has failed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch

# The releases that differ in their state after a failed capture, read in their sources and seen in their libraries:
# up to 2.11 capture_end() raises before anything is undone; 2.12 knows a generator by capture; 2.13 ends the
# allocation to the pool before it raises; from 2.14 on reset() gives back the pool.
RELEASES = ((2, 11), (2, 12), (2, 13), (2, 14))
DEVICE = 1


class Stream:
    def __init__(self, name: str) -> None:
        self.name, self.capturing = name, None
        self.device, self.device_index = torch.device("cpu"), DEVICE

    def wait_stream(self, other: Stream) -> None:
        Machine.now.calls.append(f"{self.name} waits for {other.name}")


class Machine:
    """Torch's state of captures: current stream, pools and who claims them, where allocations go, a generator."""

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

    # The operations of a step.

    def draw(self) -> int:
        """A random number, as its position in the sequence."""
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
