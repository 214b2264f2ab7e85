"""`Interval`: the value of the interval domain, which an unmodified PyTorch module accepts in place of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastbound.domains.location import module_path, warn_of_reentrant_checkpoint
from fastbound.domains.rules import canonical, find_rule, function_name, out_of_place
from fastbound.domains.tape import Node, Opaque, Record, Tape, enter
from fastbound.errors import MissingRuleError, TapeError


@dataclass
class _Tensors:
    nominal: Tensor | None
    center: Tensor
    radius: Tensor


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Interval that goes through `__torch_function__`, as one of a torch.Tensor does."""
    function = canonical(function) if out_of_place(function) is None else function

    def call(self: Interval, *args: Any, **kwargs: Any) -> Any:
        return Interval.__torch_function__(function, (Interval,), (self, *args), kwargs)

    return call


def _comparison(function: Callable[..., Any]) -> Callable[..., Any]:
    """Values are compared by a rule, if somebody writes one; handles, and None, by identity."""

    def call(self: Interval, other: Any) -> Any:
        if not isinstance(other, (Tensor, int, float)):
            return NotImplemented
        return Interval.__torch_function__(function, (Interval,), (self, other))

    return call


class Interval:
    """Lower and upper bounds of a tensor, with the clean activations beside them.

    A handle on an immutable node of the tape: ``out.lower``, ``out.upper``, ``out.center``, ``out.radius`` and
    ``out.nominal`` (None where the box had none) are tensors [B, ...] in the dtype of the network. Any torch function
    with a rule accepts it; in-place functions rebind the handle, so all its aliases see the result.

    Soundness: rounded to nearest. The bounds contain the real outputs up to the rounding of float arithmetic; with
    training-mode BatchNorm they hold for the statistics of the nominal batch.

    Raises:
        MissingRuleError: for a function or attribute without a rule, naming it and the module.
    """

    # Data-parallel wrappers look for tensors in dataclass fields; these are read from the properties below.
    __dataclass_fields__ = _Tensors.__dataclass_fields__

    __array_ufunc__ = None  # numpy's numbers leave `number * interval` to this class

    def __init__(self, node: Node) -> None:
        self._node = node
        self._viewed = False  # shares storage, in the plain program, with another handle

    @staticmethod
    def from_bounds(lower: Tensor, upper: Tensor, nominal: Tensor | None = None) -> Interval:
        """An interval [lower, upper] for use in a rule; the dispatcher puts it on the tape of the rule's inputs.

        Args:
            lower, upper: [B, ...], lower <= upper.
            nominal: [B, ...] or None.
        """
        return Interval(_detached_node(*streams_of(lower, upper, nominal)))

    # ---- reading ---------------------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        return self._node

    @property
    def nominal(self) -> Tensor | None:
        """Clean activations [B, ...], or None."""
        return self.node.nominal

    @property
    def center(self) -> Tensor:
        """Midpoint [B, ...]."""
        return self.node.center

    @property
    def radius(self) -> Tensor:
        """Half-width [B, ...], >= 0."""
        return self.node.radius

    @property
    def lower(self) -> Tensor:
        """Lower bound [B, ...]."""
        return self.center - self.radius

    @property
    def upper(self) -> Tensor:
        """Upper bound [B, ...]."""
        return self.center + self.radius

    @property
    def shape(self) -> torch.Size:
        return self.node.shape

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.shape)

    ndim = property(dim)

    def ndimension(self) -> int:
        return self.dim()

    def numel(self) -> int:
        return self.shape.numel()

    @property
    def dtype(self) -> torch.dtype:
        return self.node.dtype

    @property
    def device(self) -> torch.device:
        return self.node.device

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def requires_grad(self) -> bool:
        return self.node.requires_grad

    @property
    def is_nested(self) -> bool:
        return False

    def is_floating_point(self) -> bool:
        return True

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Interval]:
        return iter(self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        nominal = "with" if self.nominal is not None else "without"
        return f"Interval(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device}, {nominal} nominal)"

    def __bool__(self) -> NoReturn:
        raise TypeError("the truth value of an Interval is undefined: the control flow of the model depends on data.")

    def __deepcopy__(self, memo: dict[int, Any]) -> Interval:
        return Interval(_detached_node(*(t.detach().clone() for t in self.node.streams)))

    def __reduce__(self) -> tuple[Callable[..., Interval], tuple[Tensor, Tensor]]:
        stack, radius = self.node.streams
        return _rebuild, (stack.detach(), radius.detach())

    # ---- dispatch --------------------------------------------------------------------------------------------------

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = {} if kwargs is None else dict(kwargs)
        twin = out_of_place(function)
        in_place = twin is not None or bool(kwargs.pop("inplace", False))
        if kwargs.get("out") is not None:
            raise MissingRuleError(f"{function_name(function)}(out=...) cannot write an Interval{module_path()}.")
        answer = find_rule(Interval, twin or function)
        result = answer(*args, **kwargs)
        if isinstance(result, Interval) and result._node.tape is NO_TAPE:
            result = _opaque(function, result, args, kwargs)
        return _rebind(function, args, kwargs, result) if in_place else result

    __getitem__ = _method(Tensor.__getitem__)
    __neg__ = _method(Tensor.neg)
    __abs__ = _method(Tensor.abs)
    __add__ = __radd__ = _method(Tensor.add)
    __sub__, __rsub__ = _method(Tensor.sub), _method(torch.rsub)
    __mul__ = __rmul__ = _method(Tensor.mul)
    __truediv__ = _method(Tensor.div)
    __matmul__ = _method(Tensor.matmul)
    __pow__ = _method(Tensor.pow)
    __iadd__ = _method(Tensor.add_)
    __isub__ = _method(Tensor.sub_)
    __imul__ = _method(Tensor.mul_)
    __itruediv__ = _method(Tensor.div_)
    __lt__ = _method(Tensor.lt)
    __le__ = _method(Tensor.le)
    __gt__ = _method(Tensor.gt)
    __ge__ = _method(Tensor.ge)
    __eq__ = _comparison(Tensor.eq)
    __ne__ = _comparison(Tensor.ne)
    __hash__ = object.__hash__

    def __rtruediv__(self, other: Any) -> Any:
        return Interval.__torch_function__(torch.div, (Interval,), (other, self))

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        where = module_path()
        if "SyncBatchNorm" in where:
            raise MissingRuleError(f"an active SyncBatchNorm{where} does not dispatch; call fastbound.convert(model).")
        raise MissingRuleError(
            f"Interval has no attribute {name!r}{where}; the model reads or calls torch.Tensor.{name}, which has no "
            "rule. Write that step of the model with functions that have one (see fastbound.rule)."
        )


def emit(record: Record, inputs: tuple[Interval, ...], stack: Tensor, radius: Tensor) -> Interval:
    """A new interval, ``stack`` [N, B, *S] and ``radius`` [B, *S], made from ``inputs`` as ``record`` says."""
    tape = inputs[0]._node.tape
    if not torch.compiler.is_compiling():
        if tape.grad_enabled and not torch.is_grad_enabled():
            warn_of_reentrant_checkpoint()
        entering = torch.is_grad_enabled() and (stack.requires_grad or radius.requires_grad)
        if entering and tape.keeps and not any(x.requires_grad for x in inputs):
            stack, radius = enter(tape, stack, radius)
    return Interval(Node(record, tuple(x._node for x in inputs), (stack, radius), tape))


def streams_of(lower: Tensor, upper: Tensor, nominal: Tensor | None) -> tuple[Tensor, Tensor]:
    """Stack [N, B, *S] and radius [B, *S] of the interval [lower, upper], each [B, *S]."""
    radius = (upper - lower) / 2
    if nominal is None:
        return ((lower + upper) / 2).unsqueeze(0), radius
    needs_grad = torch.is_grad_enabled() and (radius.requires_grad or nominal.requires_grad)
    if needs_grad or torch.compiler.is_compiling():
        return torch.stack((nominal, (lower + upper) / 2)), radius
    stack = radius.new_empty(2, *radius.shape)
    stack[0].copy_(nominal)
    torch.add(lower, upper, out=stack[1]).mul_(0.5)
    return stack, radius


NO_TAPE = Tape(keeps=False)


def require_tape(out: Interval) -> None:
    """Raise unless ``out`` still knows how it was made."""
    if out.node.tape is NO_TAPE:
        raise TapeError(
            "this Interval has no tape (it was copied, unpickled, or made by fastbound.bound); bound the output of the "
            "model itself."
        )


def _detached_node(stack: Tensor, radius: Tensor) -> Node:
    return Node(Opaque("an interval without a tape", ""), (), (stack, radius), NO_TAPE)


def _rebuild(stack: Tensor, radius: Tensor) -> Interval:
    return Interval(_detached_node(stack, radius))


def _opaque(function: Callable[..., Any], result: Interval, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Interval:
    """Put the result of a rule that made bare bounds on the tape of its inputs."""
    inputs = tuple(a for a in (*args, *kwargs.values()) if isinstance(a, Interval) and a._node.tape is not NO_TAPE)
    if not inputs:
        return result
    return emit(Opaque(function_name(function), module_path()), inputs, *result._node.streams)


def _rebind(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Interval) -> Interval:
    """Let the handle written to by an in-place function, and so all its aliases, see the result."""
    target = args[0] if args else kwargs["input"]
    if not isinstance(target, Interval):
        # No TypeError: Python would turn that of `tensor += interval` into a sum that aliases of the tensor do not see.
        raise NotImplementedError(
            f"{function_name(function)} cannot write an Interval into a plain tensor{module_path()}; use the "
            "out-of-place form, e.g. x = x + y."
        )
    if target._viewed:
        raise NotImplementedError(
            f"{function_name(function)} writes in place into a view or into a value that was viewed{module_path()}; "
            "use the out-of-place form (e.g. ReLU(inplace=False))."
        )
    if result.shape != target.shape:
        raise ValueError(
            f"{function_name(function)} in place changes the shape {tuple(target.shape)} to {tuple(result.shape)}"
            f"{module_path()}."
        )
    target._node = result._node
    return target


# The methods of torch.Tensor that have a functional form.
for _name in (
    *("abs", "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "neg", "neg_", "exp", "exp_", "square"),
    *("relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_", "clamp", "clamp_", "clamp_min", "clamp_max", "clip"),
    *("clamp_min_", "clamp_max_", "abs_", "sum", "mean", "flatten", "unflatten", "view", "reshape", "permute"),
    *("transpose", "movedim", "squeeze", "unsqueeze", "chunk", "split", "unbind", "select", "narrow", "expand"),
    *("expand_as", "view_as", "reshape_as", "index_select", "roll", "flip", "contiguous", "clone", "detach", "to"),
    *("float", "double", "matmul", "repeat", "prelu", "swapaxes", "multiply", "divide"),
    *("subtract", "absolute", "negative", "true_divide", "square_"),
):
    setattr(Interval, _name, _method(getattr(Tensor, _name)))
