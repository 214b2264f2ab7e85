"""The table of rules: which Python function answers which torch function in which domain."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.location import module_path
from fastbound.errors import MissingRuleError

RuleFunction = TypeVar("RuleFunction", bound=Callable[..., Any])

_table: dict[type, dict[Callable[..., Any], Callable[..., Any]]] = {}


def _methods(*names: str) -> dict[Callable[..., Any], Callable[..., Any]]:
    return {getattr(Tensor, name): getattr(torch, name) for name in names}


# Every spelling of a function leads to one canonical object.
_ALIASES: dict[Callable[..., Any], Callable[..., Any]] = {
    **_methods(
        *("abs", "add", "sub", "mul", "div", "neg", "exp", "sigmoid", "tanh", "relu", "prelu", "clamp", "sum", "mean"),
        *("flatten", "unflatten", "reshape", "permute", "transpose", "movedim", "squeeze", "unsqueeze"),
        *("chunk", "split", "unbind", "select", "narrow", "index_select", "roll", "flip", "matmul", "clone", "detach"),
        *("true_divide", "square", "clamp_min", "clamp_max", "absolute", "negative", "swapaxes", "tile"),
    ),
    torch.absolute: torch.abs,
    Tensor.absolute: torch.abs,
    torch.negative: torch.neg,
    Tensor.negative: torch.neg,
    torch.true_divide: torch.div,
    torch.divide: torch.div,
    torch.multiply: torch.mul,
    torch.subtract: torch.sub,
    Tensor.true_divide: torch.div,
    Tensor.divide: torch.div,
    Tensor.multiply: torch.mul,
    Tensor.subtract: torch.sub,
    Tensor.view: torch.reshape,
    torch.clip: torch.clamp,
    Tensor.clip: torch.clamp,
    Tensor.__getitem__: Tensor.__getitem__,
    torch.concat: torch.cat,
    torch.concatenate: torch.cat,
    torch.swapaxes: torch.transpose,
    torch.swapdims: torch.transpose,
    Tensor.swapaxes: torch.transpose,
    torch.moveaxis: torch.movedim,
    torch.rsub: torch.rsub,
    F.relu: torch.relu,
    F.prelu: torch.prelu,
    F.sigmoid: torch.sigmoid,
    F.tanh: torch.tanh,
    torch.max_pool1d: F.max_pool1d,
    torch.max_pool2d: F.max_pool2d,
    torch.max_pool3d: F.max_pool3d,
    torch.avg_pool1d: F.avg_pool1d,
    torch.adaptive_avg_pool1d: F.adaptive_avg_pool1d,
    torch.batch_norm: torch.batch_norm,
    torch.dropout: F.dropout,
    torch.celu: F.celu,
    torch.selu: F.selu,
    F.upsample: F.upsample,
}

# In-place functions: the same value, and the handle that was written to is rebound to it.
_IN_PLACE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.relu_: torch.relu,
    F.leaky_relu_: F.leaky_relu,
    F.elu_: F.elu,
    F.hardtanh_: F.hardtanh,
    torch.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh,
    torch.abs_: torch.abs,
    torch.exp_: torch.exp,
    torch.neg_: torch.neg,
    torch.clamp_: torch.clamp,
    torch.clamp_min_: torch.clamp_min,
    torch.clamp_max_: torch.clamp_max,
    **{
        getattr(Tensor, f"{name}_"): getattr(torch, name)
        for name in ("add", "sub", "mul", "div", "relu", "sigmoid", "tanh", "abs", "exp", "neg", "clamp", "square")
    },
    Tensor.clamp_min_: torch.clamp_min,
    Tensor.clamp_max_: torch.clamp_max,
}


def canonical(function: Callable[..., Any]) -> Callable[..., Any]:
    """The one object that stands for all spellings of a torch function."""
    return _ALIASES.get(function, function)


def out_of_place(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The out-of-place twin of an in-place torch function, None for other functions."""
    return _IN_PLACE.get(function)


def rule(domain: type, *functions: Callable[..., Any]) -> Callable[[RuleFunction], RuleFunction]:
    """Decorate a function as the answer of ``domain`` to the given torch functions.

    The decorated function takes the torch function's own arguments (``inplace`` excepted, which is handled for it)
    with abstract values in the place of tensors, and returns an abstract value::

        @fb.rule(fb.Interval, torch.nn.functional.mish)
        def mish(input):
            lower, upper = ...            # must contain mish([input.lower, input.upper]) element-wise
            return fb.Interval.from_bounds(lower, upper, nominal=F.mish(input.nominal))

    Soundness: rests on the rule; nothing checks it.

    Raises:
        TypeError: ``domain`` is not a class or no function is given.
    """
    if not isinstance(domain, type) or not functions:
        raise TypeError("rule: wanted a domain class and at least one torch function, e.g. rule(fb.Interval, F.gelu).")

    def register(implementation: RuleFunction) -> RuleFunction:
        for function in functions:
            _table.setdefault(domain, {})[canonical(function)] = implementation
        return implementation

    return register


def find_rule(domain: type, function: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of ``domain``, or of the class it derives from, for a torch function.

    Raises `MissingRuleError` naming both and the module path.
    """
    function = canonical(function)
    for kind in domain.__mro__:
        found = _table.get(kind, {}).get(function)
        if found is not None:
            return found
    raise MissingRuleError(
        f"{function_name(function)} has no rule for {domain.__name__}{module_path()}; add one with "
        f"@fastbound.rule(fastbound.{domain.__name__}, {function_name(function)}), see fastbound.rule."
    )


@cache
def function_name(function: Callable[..., Any]) -> str:
    """The name under which users know a torch function."""
    modules = ((torch, "torch"), (F, "torch.nn.functional"), (Tensor, "torch.Tensor"))
    own = getattr(function, "__name__", "")
    for names in ((own,), *(dir(module) for module, _ in modules)):
        for module, prefix in modules:
            for name in names:
                if name and not name.startswith("__") and getattr(module, name, None) is function:
                    return f"{prefix}.{name}"
    return f"{getattr(function, '__module__', 'torch')}.{getattr(function, '__qualname__', function)}"
