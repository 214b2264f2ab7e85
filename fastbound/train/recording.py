"""A function recorded as a CUDA graph. A recording that fails leaves torch as it was."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch

T = TypeVar("T")

# From here on `reset` gives back the memory of a capture that failed, too. Versions compare as versions.
_RESET_GIVES_BACK = torch.__version__ >= "2.14.dev0"

# The allocator of pinned memory goes on asking the graph of a failed capture, up to torch 2.12.
_failed: list[torch.cuda.CUDAGraph] = []


class NotRestored(RuntimeError):
    """A recording failed, and torch could not be put back to where it was before."""


def record(function: Callable[[], T], stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, T]:
    """The graph of what `function` asks of the GPU, and what it returns: memory that each replay of the graph fills.

    Nothing is computed before the graph is replayed. The recording fails where `function` raises, or does what no graph
    can hold, such as reading a value from the device. Then memory, streams and generators of torch are as before: other
    recordings, eager work and replays of earlier graphs go on, with the random numbers that they would have had.
    Tensors of the failed recording that live on (gradients) are valid memory to which nothing was ever written.

    Args:
        function: called once, while `stream` records.
        stream: not the default stream of its device; the current stream waits for it afterwards.

    Raises:
        NotRestored: the recording failed, and torch is not as before; its cause is the first error.
        BaseException: any other failure. It is the first error: what `function` raised, or a RuntimeError of CUDA.

    **Soundness:** exact; a replay computes what `function` does.
    """
    torch.cuda.synchronize(stream.device)
    gc.collect()
    torch.cuda.empty_cache()
    scalar = torch.zeros((), device=stream.device)  # made here: a failed recording may have taken all memory
    left: list[Exception] = []
    try:
        return _capture(function, stream, left)
    except BaseException as problem:
        # Up to torch 2.11 a generator stays in its recording state until a capture ends well. A new state would be
        # another way out of it, but the graphs recorded before would keep the old one.
        with _collected(left):
            _capture(scalar.zero_, stream, left)
        if not left:
            raise
        text = f"{first_line(problem)}; torch is left inside the recording ({'; '.join(map(first_line, left))}): "
        text += "start a new process."
        if isinstance(problem, Exception):
            raise NotRestored(text) from problem
        warnings.warn(text, stacklevel=2)
        raise


def first_line(problem: BaseException) -> str:
    """What an error says, without the advice that CUDA puts below it."""
    return next(iter(str(problem).splitlines()), "") or type(problem).__name__


def _capture(
    function: Callable[[], T], stream: torch.cuda.Stream, left: list[Exception]
) -> tuple[torch.cuda.CUDAGraph, T]:
    """As `record`, but after a failure the generator is as torch leaves it; what cannot be undone goes to `left`."""
    graph, pool, begun = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle(), False
    try:
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=pool)
            begun = True
            try:
                with torch.cuda.stream(stream):  # a capture ends on its own stream, wherever the function stopped
                    outputs = function()
            except BaseException:
                with suppress(RuntimeError):  # what follows from the first error
                    graph.capture_end()
                raise
            graph.capture_end()
    except BaseException:
        _failed.append(graph)
        _undo(graph, pool, begun, stream.device_index, left)
        raise
    # Up to torch 2.11 the generator's seed and offset are written on `stream`, then by a replay on the current one.
    torch.cuda.current_stream(stream.device).wait_stream(stream)
    return graph, outputs


def _undo(graph: torch.cuda.CUDAGraph, pool: Any, begun: bool, device: int, left: list[Exception]) -> None:
    """Takes a failed capture and its pool from the allocator, as far as torch has not."""
    ended = False
    with suppress(RuntimeError):  # the graph has its pool where the capture itself ended well
        ended = graph.pool() == pool
    with _collected(left):
        graph.reset()
    if ended:
        return
    with _collected(left):
        begun |= _end_allocation(device, pool)
    if begun and not _RESET_GIVES_BACK:
        with _collected(left):
            torch._C._cuda_releasePool(device, pool)


def _end_allocation(device: int, pool: Any) -> bool:
    """Whether the allocator still took memory for the capture from `pool`."""
    try:
        torch._C._cuda_endAllocateToPool(device, pool)
    except RuntimeError as problem:
        if "not currently recording" not in str(problem):
            raise
        return False
    return True


@contextmanager
def _collected(errors: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as problem:
        errors.append(problem)
