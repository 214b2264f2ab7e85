"""Fast, trustworthy bound propagation for PyTorch: certified training at the price of ordinary training."""

from importlib.metadata import version

from fastbound import losses, nn
from fastbound.backends import show_config, use_backend
from fastbound.bounds import bound
from fastbound.certify import certify
from fastbound.domains import (
    Interval,
    Lipschitz,
    LipschitzState,
    SingleProp,
    Zonotope,
    box,
    linf_box,
    lipschitz,
    rule,
    singleprop,
    zonotope,
)
from fastbound.errors import BackendError, MissingRuleError, TapeError
from fastbound.memory import keep_freed_memory
from fastbound.nn import convert
from fastbound.spec import margin_spec
from fastbound.train import load_run

__version__ = version("fastbound")

__all__ = [
    "BackendError",
    "Interval",
    "Lipschitz",
    "LipschitzState",
    "MissingRuleError",
    "SingleProp",
    "TapeError",
    "Zonotope",
    "bound",
    "box",
    "certify",
    "convert",
    "keep_freed_memory",
    "linf_box",
    "lipschitz",
    "load_run",
    "losses",
    "margin_spec",
    "nn",
    "rule",
    "show_config",
    "singleprop",
    "use_backend",
    "zonotope",
]
