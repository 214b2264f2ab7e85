"""`Value`: base of the values of all domains, which models accept in place of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from fastbound.domains.location import module_path
from fastbound.domains.rules import canonical, find_rule, function_name, has_rule, out_of_place
from fastbound.errors import MissingRuleError

V = TypeVar("V", bound="Value")


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Value that goes through `__torch_function__`, as methods of torch.Tensor do."""
    function = canonical(function) if out_of_place(function) is None else function

    def call(self: Value, *args: Any, **kwargs: Any) -> Any:
        return _call(function, self, *args, **kwargs)

    return call


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What torch does with a function of values: it asks the first one."""
    types = tuple(type(value) for value in args if isinstance(value, Value))
    return args[0].__torch_function__(function, types, args, kwargs)


def _comparison(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compare with numbers and tensors by the domain's rule, if it has one; with anything else by identity."""

    def call(self: Value, other: Any) -> Any:
        if not isinstance(other, (Tensor, int, float)):
            return NotImplemented
        return self.__torch_function__(function, (type(self),), (self, other))

    return call


class Value:
    """An abstract value: a handle on an immutable node that any torch function with a rule of its domain accepts.

    In-place functions rebind the handle, so all its aliases see the result. A domain derives a class, gives its nodes
    ``shape``, ``dtype``, ``device`` and ``requires_grad``, and registers rules with `rule`; a rule of a base class
    serves the classes derived from it.

    Raises:
        MissingRuleError: for a function or attribute without a rule, naming it and the module.
        TypeError: for values of two domains as inputs of one function.
    """

    __array_ufunc__ = None  # makes numpy's numbers leave `number * value` to this class

    def __init__(self, node: Any) -> None:
        self._node = node
        self._viewed = False  # with plain tensors, another handle would share its storage

    def handle(self: V, node: Any) -> V:
        """A value of this domain on another node."""
        return type(self)(node)

    # ---- reading ---------------------------------------------------------------------------------------------------

    @property
    def node(self) -> Any:
        return self._node

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

    def __iter__(self: V) -> Iterator[V]:
        return iter(self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"the truth value of a {type(self).__name__} is undefined: the control flow of the model depends on data."
        )

    # ---- dispatch --------------------------------------------------------------------------------------------------

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = {_NUMPY_NAMES.get(name, name): value for name, value in (kwargs or {}).items()}
        for other in types:
            if other is not cls and issubclass(other, Value) and not _related(cls, other):
                raise TypeError(
                    f"{function_name(function)}{module_path()} meets {_with_article(cls)} and {_with_article(other)}; "
                    "pass values of one domain through a model."
                )
        twin = out_of_place(function)
        in_place = twin is not None or bool(kwargs.pop("inplace", False))
        if kwargs.pop("out", None) is not None:
            name = function_name(function)
            raise MissingRuleError(f"{name}(out=...) cannot write {_with_article(cls)}{module_path()}.")
        result = cls._finish(function, find_rule(cls, twin or function)(*args, **kwargs), args, kwargs)
        return _rebind(function, args, kwargs, result) if in_place else result

    @classmethod
    def _finish(cls, function: Callable[..., Any], result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A hook: the domain may change the result of a rule before the model gets it."""
        return result

    __getitem__ = _method(Tensor.__getitem__)
    __neg__ = _method(Tensor.neg)
    __abs__ = _method(Tensor.abs)
    __add__ = __radd__ = _method(Tensor.add)
    __sub__, __rsub__ = _method(Tensor.sub), _method(torch.rsub)
    __mul__ = __rmul__ = _method(Tensor.mul)
    __truediv__ = _method(Tensor.div)
    __matmul__ = _method(Tensor.matmul)
    __pow__ = _method(Tensor.pow)
    __rpow__ = _method(Tensor.__rpow__)
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

    def __pos__(self: V) -> V:
        return self.handle(self.node)

    def __rtruediv__(self, other: Any) -> Any:
        return self.__torch_function__(torch.div, (type(self),), (other, self))

    def __getattr__(self, name: str) -> Any:
        """The methods of torch.Tensor that have a rule in this domain."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _TRANSPOSES:
            return _TRANSPOSES[name](self)
        function = getattr(Tensor, name, None)
        if callable(function) and has_rule(type(self), out_of_place(function) or function):
            return lambda *args, **kwargs: _call(function, self, *args, **kwargs)
        where, domain = module_path(), type(self).__name__
        if "SyncBatchNorm" in where:
            raise MissingRuleError(f"an active SyncBatchNorm{where} does not dispatch; call fastbound.convert(model).")
        raise MissingRuleError(
            f"{domain} has no attribute {name!r}{where}; the model reads or calls torch.Tensor.{name}, which has no "
            "rule. Write that step of the model with functions that have one (see fastbound.rule)."
        )


# No properties: what they raise would be taken for a missing attribute.
_TRANSPOSES: dict[str, Callable[[Any], Any]] = {
    "T": lambda value: value.permute(*reversed(range(value.dim()))),
    "mT": lambda value: value.transpose(-2, -1),
}
# Names of arguments that torch takes too.
_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def _related(one: type, other: type) -> bool:
    return issubclass(one, other) or issubclass(other, one)


def _with_article(domain: type) -> str:
    return f"{'an' if domain.__name__[0] in 'AEIOU' else 'a'} {domain.__name__}"


def _rebind(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Value) -> Value:
    """Move the handle that an in-place function writes to the node of the result, which all its aliases then see."""
    target = args[0] if args else kwargs["input"]
    if not isinstance(target, Value):
        # Not a TypeError: Python would replace `tensor += value` by a sum, which aliases of the tensor do not see.
        raise NotImplementedError(
            f"{function_name(function)} cannot write {_with_article(type(result))} into a plain tensor{module_path()}; "
            "use the out-of-place form, e.g. x = x + y."
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
    target._node = (result if result.dtype == target.dtype else result.to(target.dtype))._node  # type: ignore[attr-defined]
    return target
