"""The table of rules: which Python function answers which torch function in which domain."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbound.domains.location import module_path
from fastbound.errors import MissingRuleError
from fastbound.shapes import Function

RuleFunction = TypeVar("RuleFunction", bound=Callable[..., Any])

_table: dict[type, dict[Callable[..., Any], Callable[..., Any]]] = {}


def _callables(module: Any) -> dict[str, Callable[..., Any]]:
    names = (name for name in dir(module) if not name.startswith("_"))
    return {name: getattr(module, name) for name in names if callable(getattr(module, name))}


# Spellings of one function: a method of a tensor, of the function of its name; and these.
_SPELLINGS: dict[Callable[..., Any], Callable[..., Any]] = {
    **{method: getattr(torch, name) for name, method in _callables(Tensor).items() if name in _callables(torch)},
    torch.absolute: torch.abs,
    torch.negative: torch.neg,
    torch.true_divide: torch.div,
    torch.divide: torch.div,
    torch.multiply: torch.mul,
    torch.subtract: torch.sub,
    Tensor.view: torch.reshape,
    Tensor.__pow__: torch.pow,
    Tensor.where: Tensor.where,  # its condition comes second
    torch.clip: torch.clamp,
    torch.concat: torch.cat,
    torch.concatenate: torch.cat,
    torch.swapaxes: torch.transpose,
    torch.swapdims: torch.transpose,
    torch.moveaxis: torch.movedim,
    torch.arctan: torch.atan,
    torch.sgn: torch.sign,
    torch.special.expit: torch.sigmoid,
    torch.special.erf: torch.erf,
    torch.special.expm1: torch.expm1,
    torch.special.log1p: torch.log1p,
    F.relu: torch.relu,
    F.prelu: torch.prelu,
    F.sigmoid: torch.sigmoid,
    F.tanh: torch.tanh,
    torch.hardshrink: F.hardshrink,
    F.log_softmax: torch.log_softmax,
    torch.special.log_softmax: torch.log_softmax,
    torch.threshold: F.threshold,
    torch.max_pool1d: F.max_pool1d,
    torch.max_pool2d: F.max_pool2d,
    torch.max_pool3d: F.max_pool3d,
    torch.avg_pool1d: F.avg_pool1d,
    torch.adaptive_avg_pool1d: F.adaptive_avg_pool1d,
    torch.dropout: F.dropout,
    torch.celu: F.celu,
    torch.selu: F.selu,
    F.upsample: F.upsample,
}


def _resolved(function: Callable[..., Any]) -> Callable[..., Any]:
    while _SPELLINGS.get(function, function) is not function:
        function = _SPELLINGS[function]
    return function


_ALIASES = {spelling: _resolved(spelling) for spelling in _SPELLINGS}


def _in_place_twins() -> dict[Callable[..., Any], Callable[..., Any]]:
    """In-place functions end in an underscore: the same value, and the handle that was written to is rebound to it."""
    twins = {}
    for module in (torch, F, Tensor):
        known = _callables(module)
        twins.update({known[name]: known[name[:-1]] for name in known if name.endswith("_") and name[:-1] in known})
    return twins


_IN_PLACE = _in_place_twins()


def canonical(function: Callable[..., Any]) -> Callable[..., Any]:
    """The one object that stands for all spellings of a torch function."""
    return _ALIASES.get(function, function)


def out_of_place(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The out-of-place twin of an in-place torch function, None for other functions."""
    twin = _IN_PLACE.get(function)
    return None if twin is None else canonical(twin)


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


def has_rule(domain: type, function: Callable[..., Any]) -> bool:
    """Whether ``domain``, or a class it derives from, has a rule for a torch function."""
    return _found(domain, canonical(function)) is not None


def find_rule(domain: type, function: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of ``domain``, or of the class it derives from, for a torch function.

    Raises `MissingRuleError` naming both and the module path.
    """
    function = canonical(function)
    found = _found(domain, function)
    if found is not None:
        return found
    raise MissingRuleError(
        f"{function_name(function)} has no rule for {domain.__name__}{module_path()}; add one with "
        f"@fastbound.rule(fastbound.{domain.__name__}, {function_name(function)}), see fastbound.rule."
    )


def _found(domain: type, function: Callable[..., Any]) -> Callable[..., Any] | None:
    for kind in domain.__mro__:
        found = _table.get(kind, {}).get(function)
        if found is not None:
            return found
    return None


@cache
def function_name(function: Callable[..., Any]) -> str:
    """The name under which users know a torch function."""
    modules = ((torch, "torch"), (F, "torch.nn.functional"), (Tensor, "torch.Tensor"))
    own = getattr(function, "__name__", "")
    for names in ((own,), *(dir(module) for module, _ in modules)):
        for module, prefix in modules:
            for name in names:
                if name and not name.startswith("_") and getattr(module, name, None) is function:
                    return f"{prefix}.{name}"
    return f"{getattr(function, '__module__', 'torch')}.{getattr(function, '__qualname__', function)}"


# ---- element-wise functions ------------------------------------------------------------------------------------------

Entry = Callable[..., Function]
EntryFunction = TypeVar("EntryFunction", bound=Entry)
# The rule of a domain for all entries: takes a value, a function, and the name under which users know it.
Reader = Callable[[Any, Function, str], Any]

ENTRIES: dict[Callable[..., Any], Entry] = {}
_readers: dict[type, Reader] = {}
_read_rules: set[Callable[..., Any]] = set()


def entry(*torch_functions: Callable[..., Any]) -> Callable[[EntryFunction], EntryFunction]:
    """Decorate what makes a `Function` from arguments as the entry of torch functions, in every domain."""

    def register(made: EntryFunction) -> EntryFunction:
        for function in map(canonical, torch_functions):
            ENTRIES[function] = made
            for domain in _readers:
                _read(domain, function)
        return made

    return register


def read_by(domain: type) -> Callable[[Reader], Reader]:
    """Decorate how a domain reads the entries, those to come included; rules of its own come first."""

    def register(reader: Reader) -> Reader:
        _readers[domain] = reader
        for function in ENTRIES:
            _read(domain, function)
        return reader

    return register


def _read(domain: type, torch_function: Callable[..., Any]) -> None:
    known = _table.get(domain, {}).get(torch_function)
    if known is not None and known not in _read_rules:
        return
    name, made, reader = function_name(torch_function), ENTRIES[torch_function], _readers[domain]

    @wraps(made)
    def answer(input: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(input, domain) or any(isinstance(other, domain) for other in (*args, *kwargs.values())):
            raise NotImplementedError(
                f"{name}{module_path()}: wanted an abstract value as the first argument, and constants as the others."
            )
        function, value = made(*args, **kwargs), cast(Any, input)
        shape = torch.broadcast_shapes(value.shape, function.parameter_shape)
        return reader(value if shape == value.shape else value.expand(*shape), function, name)

    _read_rules.add(answer)
    rule(domain, torch_function)(answer)
