"""The tape: how each abstract value was computed, for bounds that walk backwards.

A `Node` is immutable: two tensors (the streams), the nodes it was computed from, and a *record* of the function, one
of the types in `records`. A function that none of them describes leaves an `Opaque` record, which the walk refuses by
name.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from fastbound.domains.records import Linear, LinearMap, Opaque, Record, Scale, Shift, Sum, tensors
from fastbound.errors import MissingRuleError, TapeError
from fastbound.ops.layout import stream

R = TypeVar("R")


class Tape:
    """The state that all nodes computed from one box share.

    Args:
        keeps: whether nodes keep their inputs. Without, a value keeps only as many as elision of a last layer needs.

    ``keeps_relu_moments``: whether ReLUs also compute `Node.relu_moments`.
    """

    def __init__(self, keeps: bool = True) -> None:
        self.keeps = keeps
        self.keeps_relu_moments = False
        self.grad_enabled = torch.is_grad_enabled()
        self.freed = False
        self._nodes: list[weakref.ref[Node]] = []

    def add(self, node: Node) -> None:
        self._nodes.append(weakref.ref(node))

    def free(self) -> None:
        """Cut all nodes off from their inputs, as autograd drops its saved tensors after ``backward()``."""
        self.freed = True
        for reference in self._nodes:
            node = reference()
            if node is not None:
                node.inputs = ()
        self._nodes.clear()


class Node:
    """One value on the tape: ``stack`` [N, B, *S] (N = 2: nominal, center; N = 1: center), ``radius`` [B, *S].

    `stored` are the streams as their function returned them, in half precision under autocast. ``streams`` are in the
    ``dtype`` of the value, which is that of the network.

    ``relu_moments`` [8] of a ReLU are those of its input bounds (`fastbound.ops.interval_norm_relu_moments`), if
    the tape keeps them.
    """

    __slots__ = (
        *("__weakref__", "_box", "_dtype", "_stored", "_streams", "inputs", "relu_moments", "record", "tape", "terms"),
        "versions",
    )

    def __init__(
        self,
        record: Record,
        inputs: tuple[Node, ...],
        stored: tuple[Tensor, Tensor] | None,
        tape: Tape,
        dtype: torch.dtype | None = None,  # None: that of the stored streams
    ) -> None:
        self.record = record
        self.inputs = inputs
        self.tape = tape
        self._stored = stored
        self._dtype = dtype
        self._streams: tuple[Tensor, Tensor] | None = None  # `stored`, converted
        self._box: tuple[Tensor, Tensor] | None = None
        self.terms: Any = None  # further data of a domain: the error terms of a zonotope
        self.relu_moments: Tensor | None = None
        self.versions: tuple[tuple[Tensor, int], ...] = ()
        if torch.compiler.is_compiling():
            return
        self.versions = tuple((t, t._version) for t in tensors(record) if not t.is_inference())
        if tape.keeps:
            tape.add(self)
        else:
            for parent in inputs:  # a linear layer may be an output too, and elision reads its input
                if not parent.tape.keeps and not isinstance(parent.record, Linear):
                    parent.inputs = ()

    @property
    def stored(self) -> tuple[Tensor, Tensor]:
        """``stack`` and ``radius`` as their function returned them."""
        assert self._stored is not None
        return self._stored

    @property
    def streams(self) -> tuple[Tensor, Tensor]:
        """``stack`` and ``radius``."""
        stack, radius = self.stored
        if radius.dtype == self.dtype:
            return stack, radius
        if self._streams is None:
            self._streams = self._converted(stack), self._converted(radius)
        return self._streams

    def _converted(self, stored: Tensor) -> Tensor:
        """In the dtype of the value; independent of the grad mode, because later readers get the same tensor."""
        if stored.dtype == self.dtype:
            return stored
        with _inference_mode(False), torch.set_grad_enabled(stored.requires_grad):
            return stored.to(self.dtype)

    @property
    def stack(self) -> Tensor:  # [N, B, *S]
        return self.streams[0]

    @property
    def radius(self) -> Tensor:  # [B, *S]
        return self.streams[1]

    @property
    def center(self) -> Tensor:  # [B, *S]
        return stream(self.stack, -1)

    @property
    def lower(self) -> Tensor:  # [B, *S]
        return self.center - self.radius

    @property
    def upper(self) -> Tensor:  # [B, *S]
        return self.center + self.radius

    @property
    def nominal(self) -> Tensor | None:  # [B, *S]
        stack = self.stored[0] if self._streams is None else self._streams[0]
        return self._converted(stream(stack, 0)) if stack.shape[0] == 2 else None

    @property
    def box(self) -> tuple[Tensor, Tensor]:  # [B, *S], [B, *S]
        """Center and radius, for a backward walk."""
        if self._box is None:
            return self.center, self.radius
        center, radius = self._box
        return center.to(self.dtype), radius.to(self.dtype)

    def set_box(self, center: Tensor, radius: Tensor) -> None:
        """Set ``box`` to the copy that a function of this node returned; its backward adds up the gradients of both."""
        self._box = (center, radius)

    @property
    def shape(self) -> torch.Size:
        return self.stored[1].shape

    @property
    def dtype(self) -> torch.dtype:
        return self.stored[1].dtype if self._dtype is None else self._dtype

    @property
    def device(self) -> torch.device:
        return self.stored[1].device

    @property
    def requires_grad(self) -> bool:
        stack, radius = self.stored
        return stack.requires_grad or radius.requires_grad

    def record_as(self, kind: type[R]) -> R:
        """The record, as the type that the caller knows it to be."""
        assert isinstance(self.record, kind)
        return self.record

    def check(self) -> None:
        """Raise `TapeError` if the tape was freed or the weights have changed since recording."""
        if self.tape.freed:
            raise TapeError(
                "the tape was freed by backward(); bound the output again, or call backward(retain_graph=True)."
            )
        for tensor, version in self.versions:
            if tensor._version != version:
                raise TapeError(
                    f"a tensor of shape {tuple(tensor.shape)} used by {type(self.record).__name__} changed in place "
                    "after the bounds were recorded (an optimizer step?); run the model on the box again."
                )


class Pending(Node):
    """A node whose streams are computed when they are first read; its shape, dtype and device are known before."""

    __slots__ = ("_apply", "_device", "_grad_enabled", "_inference", "_requires_grad", "_shape", "_source")

    def __init__(
        self, record: Record, parent: Node, shape: torch.Size, apply: Callable[[], tuple[Tensor, Tensor]]
    ) -> None:
        super().__init__(record, (parent,), None, parent.tape, parent.dtype)
        self._apply: Callable[[], tuple[Tensor, Tensor]] | None = apply
        self._source = parent
        self._shape, self._device = shape, parent.device
        self._grad_enabled = torch.is_grad_enabled()
        self._inference = not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
        needed = parent.requires_grad or any(t.requires_grad for t in tensors(record))
        self._requires_grad = self._grad_enabled and needed

    @property
    def is_pending(self) -> bool:
        return self._stored is None

    @property
    def source(self) -> Node:
        """The node that this one is computed from; unlike ``inputs`` it is never dropped."""
        self.check()
        return self._source

    @property
    def shape(self) -> torch.Size:
        return self._shape

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @property
    def stored(self) -> tuple[Tensor, Tensor]:
        if self._stored is None:
            assert self._apply is not None
            self.check()
            with _inference_mode(self._inference), torch.set_grad_enabled(self._grad_enabled):
                self._stored = self._apply()
            self._apply = None
        return self._stored


class PendingNorm(Pending):
    """A BatchNorm that waits for the ReLU that usually follows, so that both run in one pass.

    The ReLU runs the same pass if the BatchNorm was read before, for example by a hook.
    """

    __slots__ = ()

    @property
    def can_fuse(self) -> bool:
        return self.is_pending or not self.tape.freed


class PendingFlatten(Pending):
    """A flattened channels_last map that waits for a linear layer: it may be cheaper to reorder the layer's weight."""

    __slots__ = ()


def _inference_mode(enabled: bool) -> AbstractContextManager[Any]:
    """`torch.inference_mode` if it differs from the current one; the compiler does not support it."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() == enabled:
        return nullcontext()
    return torch.inference_mode(enabled)


class _FreeTapeAfterBackward(torch.autograd.Function):
    """The identity, for the first streams of a tape that need gradients: its backward runs last.

    It frees the tape if autograd frees its own buffers."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, stack: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        ctx.tape = tape
        ctx.save_for_backward(stack.new_empty(0))
        ctx.set_materialize_grads(False)
        return stack.view_as(stack), radius.view_as(radius)

    @staticmethod
    def backward(ctx: Any, grad_stack: Tensor, grad_radius: Tensor) -> tuple[None, Tensor, Tensor]:
        def free_if_autograd_did() -> None:
            try:
                _ = ctx.saved_tensors
            except RuntimeError:
                ctx.tape.free()

        torch.autograd.Variable._execution_engine.queue_callback(free_if_autograd_did)
        return None, grad_stack, grad_radius


def free_after_backward(tape: Tape, stack: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first streams of a tape that need gradients, such that ``backward()`` frees the tape."""
    return _FreeTapeAfterBackward.apply(tape, stack, radius)


class HasInputs(Protocol):
    """A node of a graph."""

    @property
    def inputs(self: N) -> tuple[N, ...]: ...


N = TypeVar("N", bound=HasInputs)


def topological(node: N) -> list[N]:
    """All nodes from ``node`` back to the source, each before its inputs."""
    order: list[N] = []
    seen: set[int] = set()
    stack: list[tuple[N, bool]] = [(node, False)]
    while stack:
        current, done = stack.pop()
        if done:
            order.append(current)
        elif id(current) not in seen:
            seen.add(id(current))
            stack.append((current, True))
            stack.extend((parent, False) for parent in current.inputs)
    return order[::-1]


_APART = "backward walks and zonotopes keep samples apart"


def require_separate_samples(node: Node) -> None:
    """Raise `MissingRuleError` if the function of a node moves values between the samples of the batch.

    Linear functions and error terms that are kept for each sample could not follow them.
    """
    record = node.record
    broadcasts = isinstance(record, (Sum, Scale, Shift))
    for parent in node.inputs:
        if parent.shape[:1] != node.shape[:1] or (broadcasts and len(parent.shape) != len(node.shape)):
            name = getattr(record, "name", type(record).__name__)
            raise MissingRuleError(
                f"{name} changes {tuple(parent.shape)} to {tuple(node.shape)} and so moves the batch dimension; "
                f"{_APART}."
            )
    if isinstance(record, Linear) and len(node.shape) < 2:
        raise MissingRuleError(
            f"a linear layer over a vector {tuple(node.shape)} mixes samples of the batch; {_APART}."
        )
    if isinstance(record, LinearMap) and not record.per_sample and node.shape[0] > 1:
        _require_unmixed_samples(record, node)


@torch.no_grad()
def _require_unmixed_samples(record: LinearMap, node: Node) -> None:
    """Raise unless scaling the input of each sample by a number of its own scales the outputs by the same numbers."""
    ones = [torch.ones_like(parent.radius) for parent in node.inputs]
    sizes = torch.arange(1, node.shape[0] + 1, device=node.device, dtype=node.dtype).sqrt()
    marked = record.function(*(one * sizes.view(-1, *(1,) * (one.dim() - 1)) for one in ones))
    expected = record.function(*ones) * sizes.view(-1, *(1,) * (marked.dim() - 1))
    if not torch.allclose(marked, expected, rtol=1e-4, atol=0):
        raise MissingRuleError(f"{record.name} mixes samples of the batch; {_APART}.")


NO_TAPE = Tape(keeps=False)


def detached_node(stack: Tensor, radius: Tensor) -> Node:
    """A node with streams but no record of how they were computed."""
    return Node(Opaque("a value without a tape", ""), (), (stack, radius), NO_TAPE)
