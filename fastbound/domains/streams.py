"""`Streams`: the values of the domains that linear functions map stream by stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from fastbound import backends
from fastbound.domains.location import module_path, warn_of_reentrant_checkpoint
from fastbound.domains.records import Opaque, Record
from fastbound.domains.rules import function_name
from fastbound.domains.tape import NO_TAPE, Node, detached_node, enter
from fastbound.domains.value import Value
from fastbound.errors import TapeError
from fastbound.ops.autocast import autocast_dtype

S = TypeVar("S", bound="Streams")


class Streams(Value):
    """A stack of streams [N, B, *S] and a radius [B, *S], >= 0, on a node of the tape.

    A linear function with weight W maps every stream of the stack by W and the radius by |W|; `linear_rules` holds
    those rules for all domains of this shape. What the streams mean, and what a nonlinear function does to them, is
    the domain's own.
    """

    # Whether a layer may call a rule without dispatch, which would add nothing to its result.
    direct: ClassVar[bool] = True
    # Attributes in which values that meet in one function must agree: what follows could only have those of one.
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

    def made(self: S, node: Node, inputs: tuple[S, ...]) -> S:
        """A value on a node just made from ``inputs``; a domain that keeps more than streams carries it along here."""
        if len(inputs) > 1:
            _require_alike(inputs)
        return self.handle(node)

    def spread(self, function: Callable[[Tensor], Tensor]) -> Tensor | None:
        """What a domain keeps beside the streams adds to the radius of a linear ``function`` of [B, *S]."""
        return None

    def __deepcopy__(self: S, memo: dict[int, Any]) -> S:
        return self.handle(detached_node(*(t.detach().clone() for t in self.node.streams)))

    def __reduce__(self) -> tuple[Callable[..., Streams], tuple[type[Streams], Tensor, Tensor]]:
        stack, radius = (t.detach() for t in self.node.streams)
        return _rebuild, (type(self.handle(self.node)), stack, radius)

    @classmethod
    def _finish(cls, function: Callable[..., Any], result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Puts the result of a rule that made a bare value on the tape of its inputs."""
        if not isinstance(result, Streams) or result._node.tape is not NO_TAPE:
            return result
        inputs = tuple(a for a in (*args, *kwargs.values()) if isinstance(a, Streams) and a._node.tape is not NO_TAPE)
        return emit(_opaque(function), inputs, *result._node.streams) if inputs else result


def emit(record: Record, inputs: tuple[S, ...], stack: Tensor, radius: Tensor, dtype: torch.dtype | None = None) -> S:
    """A new value, ``stack`` [N, B, *S] and ``radius`` [B, *S], made from ``inputs`` as ``record`` says.

    ``dtype`` is that of the value, where autocast may have left the streams in less; None: theirs.
    """
    tape = inputs[0]._node.tape
    if not torch.compiler.is_compiling():
        if tape.grad_enabled and not torch.is_grad_enabled():
            warn_of_reentrant_checkpoint()
        entering = torch.is_grad_enabled() and (stack.requires_grad or radius.requires_grad)
        if entering and tape.keeps and not any(x.requires_grad for x in inputs):
            stack, radius = enter(tape, stack, radius)
    return inputs[0].made(Node(record, tuple(x._node for x in inputs), (stack, radius), tape, dtype), inputs)


def as_stored(node: Node, stem: str) -> tuple[Tensor, Tensor]:
    """Stack and radius of a node for the primitive ``stem``: as autocast left them, where it is on and code reads such.

    Else in the dtype of the value.
    """
    dtype, device = node.stored[1].dtype, node.device.type
    kept = dtype == node.dtype or (dtype == autocast_dtype(device) and backends.serves(stem, device, dtype))
    return node.stored if kept else node.streams


def _require_alike(inputs: tuple[Streams, ...]) -> None:
    for name in sorted({name for value in inputs for name in value.settings}):
        found = {getattr(value, name, None) for value in inputs}
        if len(found) > 1:
            both = " and ".join(sorted(map(str, found)))
            raise ValueError(
                f"{name}: values of {both} meet{module_path()}, and the ReLUs behind would have two rules; "
                f"make all with one {name}."
            )


def require_tape(out: Streams) -> None:
    """Raise unless ``out`` still knows how it was made."""
    if out.node.tape is NO_TAPE:
        raise TapeError(
            f"this {type(out).__name__} has no tape (it was copied, unpickled, or made by fastbound.bound); bound the "
            "output of the model itself."
        )


def _opaque(function: Callable[..., Any]) -> Opaque:
    return Opaque(function_name(function), module_path())


def _rebuild(domain: type[S], stack: Tensor, radius: Tensor) -> S:
    return domain(detached_node(stack, radius))
