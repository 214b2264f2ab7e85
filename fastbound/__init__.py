"""Fast, trustworthy bound propagation for PyTorch: certified training at the price of ordinary training."""

from typing import TYPE_CHECKING

from fastbound.on_demand import load_on_demand

if TYPE_CHECKING:
    from fastbound import backends as backends
    from fastbound import bounds as bounds
    from fastbound import crown as crown
    from fastbound import data as data
    from fastbound import domains as domains
    from fastbound import errors as errors
    from fastbound import losses as losses
    from fastbound import memory as memory
    from fastbound import methods as methods
    from fastbound import models as models
    from fastbound import nn as nn
    from fastbound import ops as ops
    from fastbound import spec as spec
    from fastbound import train as train
    from fastbound.backends import show_config, use_backend
    from fastbound.bounds import bound
    from fastbound.certify import certify
    from fastbound.domains.interval import Interval
    from fastbound.domains.interval.box import box, linf_box
    from fastbound.domains.lipschitz import Lipschitz, LipschitzState, lipschitz
    from fastbound.domains.rules import rule
    from fastbound.domains.singleprop import SingleProp, singleprop
    from fastbound.domains.zonotope import Zonotope, zonotope
    from fastbound.errors import BackendError, MissingRuleError, TapeError
    from fastbound.memory import keep_freed_memory
    from fastbound.nn.convert import convert
    from fastbound.spec import margin_spec
    from fastbound.train import load_run
    from fastbound.version import __version__ as __version__

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

load_on_demand(
    __name__,
    {
        "fastbound.backends": ("show_config", "use_backend"),
        "fastbound.bounds": ("bound",),
        "fastbound.certify": ("certify",),
        "fastbound.domains.interval": ("Interval",),
        "fastbound.domains.interval.box": ("box", "linf_box"),
        "fastbound.domains.lipschitz": ("Lipschitz", "LipschitzState", "lipschitz"),
        "fastbound.domains.rules": ("rule",),
        "fastbound.domains.singleprop": ("SingleProp", "singleprop"),
        "fastbound.domains.zonotope": ("Zonotope", "zonotope"),
        "fastbound.errors": ("BackendError", "MissingRuleError", "TapeError"),
        "fastbound.memory": ("keep_freed_memory",),
        "fastbound.nn.convert": ("convert",),
        "fastbound.spec": ("margin_spec",),
        "fastbound.train": ("load_run",),
        "fastbound.version": ("__version__",),
    },
    submodules=(
        *("backends", "bounds", "crown", "data", "domains", "errors", "losses", "memory"),
        *("methods", "models", "nn", "ops", "spec", "train"),
    ),
)
