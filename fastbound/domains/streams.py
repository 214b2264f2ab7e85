"""`Streams`: base of the values that linear functions map stream by stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from fastbound import backends
from fastbound.domains.location import module_path, warn_of_reentrant_checkpoint
from fastbound.domains.records import Opaque, Record
from fastbound.domains.rules import function_name
from fastbound.domains.tape import NO_TAPE, Node, detached_node, free_after_backward
from fastbound.domains.value import Value
from fastbound.errors import TapeError
from fastbound.ops.autocast import autocast_dtype

S = TypeVar("S", bound="Streams")


class Streams(Value):
    """A stack of streams [N, B, *S] and a radius [B, *S], >= 0, on a node of the tape.

    A linear function with weight W maps every stream of the stack by W and the radius by |W|. The rules in
    `fastbound.domains.linear` do so for all domains of this kind; a domain defines the meaning of its streams and the
    rules of non-linear functions.
    """

    # Whether a layer may call a rule directly, because dispatch would not change its result.
    direct: ClassVar[bool] = True
    # Attributes that must agree if several values are inputs of one function, whose result has only one of each.
    settings: ClassVar[tuple[str, ...]] = ()

    @property
    def node(self) -> Node:
        return self._node

    @property
    def nominal(self) -> Tensor | None:
        """Clean activations [B, ...], or None."""
        return self.node.nominal

    @property
    def carries_nominal(self) -> bool:
        """Whether the first stream is the clean activations."""
        return self.node.stored[0].shape[0] == 2

    @property
    def radius(self) -> Tensor:
        """Half-width [B, ...], >= 0."""
        return self.node.radius

    def on_node(self: S, node: Node, inputs: tuple[S, ...]) -> S:
        """The value on a new node, computed from ``inputs``; a domain that has more than streams propagates it here."""
        if len(inputs) > 1:
            _require_alike(inputs)
        return self.handle(node)

    def error_term_width(self, function: Callable[[Tensor], Tensor]) -> Tensor | None:
        """The half-width that error terms add to the radius of a linear ``function`` of [B, *S]; None without any."""
        return None

    def __deepcopy__(self: S, memo: dict[int, Any]) -> S:
        return self.handle(detached_node(*(t.detach().clone() for t in self.node.streams)))

    def __reduce__(self) -> tuple[Callable[..., Streams], tuple[type[Streams], Tensor, Tensor]]:
        stack, radius = (t.detach() for t in self.node.streams)
        return _rebuild, (type(self.handle(self.node)), stack, radius)

    @classmethod
    def _finish(cls, function: Callable[..., Any], result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Puts the result of a rule that returned a value without a tape on the tape of its inputs."""
        if not isinstance(result, Streams) or result._node.tape is not NO_TAPE:
            return result
        inputs = tuple(a for a in (*args, *kwargs.values()) if isinstance(a, Streams) and a._node.tape is not NO_TAPE)
        return emit(_opaque(function), inputs, *result._node.streams) if inputs else result


def emit(record: Record, inputs: tuple[S, ...], stack: Tensor, radius: Tensor, dtype: torch.dtype | None = None) -> S:
    """A new value, ``stack`` [N, B, *S] and ``radius`` [B, *S]: the function ``record`` of ``inputs``.

    ``dtype`` is that of the value, if autocast may have computed the streams in half precision; None: theirs.
    """
    tape = inputs[0]._node.tape
    if not torch.compiler.is_compiling():
        if tape.grad_enabled and not torch.is_grad_enabled():
            warn_of_reentrant_checkpoint()
        needs_grad = torch.is_grad_enabled() and (stack.requires_grad or radius.requires_grad)
        if needs_grad and tape.keeps and not any(x.requires_grad for x in inputs):
            stack, radius = free_after_backward(tape, stack, radius)
    return inputs[0].on_node(Node(record, tuple(x._node for x in inputs), (stack, radius), tape, dtype), inputs)


def as_stored(node: Node, stem: str) -> tuple[Tensor, Tensor]:
    """Stack and radius of a node for the primitive ``stem``: in autocast's dtype if it is on and a backend supports it,
    else in the dtype of the value."""
    dtype, device = node.stored[1].dtype, node.device.type
    kept = dtype == node.dtype or (dtype == autocast_dtype(device) and backends.serves(stem, device, dtype))
    return node.stored if kept else node.streams


def _require_alike(inputs: tuple[Streams, ...]) -> None:
    for name in sorted({name for value in inputs for name in value.settings}):
        found = {getattr(value, name, None) for value in inputs}
        if len(found) > 1:
            both = " and ".join(sorted(map(str, found)))
            raise ValueError(
                f"{name}: values of {both} meet{module_path()}, so that later ReLUs would have two rules; "
                f"make all with one {name}."
            )


def require_tape(out: Streams) -> None:
    """Raise `TapeError` if ``out`` has no tape."""
    if out.node.tape is NO_TAPE:
        raise TapeError(
            f"this {type(out).__name__} has no tape (it was copied, unpickled, or made by fastbound.bound); bound the "
            "output of the model itself."
        )


def _opaque(function: Callable[..., Any]) -> Opaque:
    return Opaque(function_name(function), module_path())


def _rebuild(domain: type[S], stack: Tensor, radius: Tensor) -> S:
    return domain(detached_node(stack, radius))
