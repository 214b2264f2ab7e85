"""Records a function as a CUDA graph. A recording that fails leaves torch as it was."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch

T = TypeVar("T")

# From this version on `reset` also releases the memory of a failed capture. `torch.__version__` compares as a version.
_RESET_GIVES_BACK = torch.__version__ >= "2.14.dev0"

# Kept alive: up to torch 2.12 the allocator of pinned memory keeps querying the graph of a failed capture.
_failed: list[torch.cuda.CUDAGraph] = []


class NotRestored(RuntimeError):
    """A recording failed, and the earlier state of torch could not be restored."""


def record(function: Callable[[], T], stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, T]:
    """Records the GPU work of `function` as a graph. Returns the graph and the result of `function`, whose tensors each
    replay of the graph fills.

    Nothing is computed before the graph is replayed. The recording fails if `function` raises, or does something that a
    graph cannot record, such as reading a value from the device. Memory, streams and generators of torch are then as
    before: other recordings, eager work and replays of earlier graphs go on, with the random numbers that they would
    have had. Tensors of the failed recording that live on (gradients) are valid memory to which nothing was ever
    written.

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
    scalar = torch.zeros((), device=stream.device)  # made now: a failed recording may have taken all memory
    undo_errors: list[Exception] = []
    try:
        return _capture(function, stream, undo_errors)
    except BaseException as problem:
        # Up to torch 2.11 a generator stays in its recording state until a capture succeeds, so a trivial one follows.
        # A new generator state would do too, but the graphs recorded before would keep the old one.
        with _collected(undo_errors):
            _capture(scalar.zero_, stream, undo_errors)
        if not undo_errors:
            raise
        text = (
            f"{first_line(problem)}; torch is left inside the recording ({'; '.join(map(first_line, undo_errors))}): "
        )
        text += "start a new process."
        if isinstance(problem, Exception):
            raise NotRestored(text) from problem
        warnings.warn(text, stacklevel=2)
        raise


def first_line(problem: BaseException) -> str:
    """The first line of an error's message: CUDA adds advice below it."""
    return next(iter(str(problem).splitlines()), "") or type(problem).__name__


def _capture(
    function: Callable[[], T], stream: torch.cuda.Stream, undo_errors: list[Exception]
) -> tuple[torch.cuda.CUDAGraph, T]:
    """As `record`, but after a failure the generator is as torch leaves it; errors of undoing go to `undo_errors`."""
    graph, pool, begun = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle(), False
    try:
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=pool)
            begun = True
            try:
                with torch.cuda.stream(stream):  # a capture ends on its own stream, whichever one the function left
                    outputs = function()
            except BaseException:
                with suppress(RuntimeError):  # a consequence of the first error
                    graph.capture_end()
                raise
            graph.capture_end()
    except BaseException:
        _failed.append(graph)
        _undo(graph, pool, begun, stream.device_index, undo_errors)
        raise
    # Up to torch 2.11 recording writes the generator's seed and offset on `stream`, and a replay on the current stream.
    torch.cuda.current_stream(stream.device).wait_stream(stream)
    return graph, outputs


def _undo(graph: torch.cuda.CUDAGraph, pool: Any, begun: bool, device: int, undo_errors: list[Exception]) -> None:
    """Removes a failed capture and its pool from the allocator, as far as torch has not done it."""
    ended = False
    with suppress(RuntimeError):  # the graph has its pool if the capture itself succeeded
        ended = graph.pool() == pool
    with _collected(undo_errors):
        graph.reset()
    if ended:
        return
    with _collected(undo_errors):
        begun |= _end_allocation(device, pool)
    if begun and not _RESET_GIVES_BACK:
        with _collected(undo_errors):
            torch._C._cuda_releasePool(device, pool)


def _end_allocation(device: int, pool: Any) -> bool:
    """Ends the allocation from `pool` for the capture; False if it had ended already."""
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
