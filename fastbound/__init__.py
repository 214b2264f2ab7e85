"""Fast, trustworthy bound propagation for PyTorch: certified training at the price of ordinary training."""

from fastbound import losses
from fastbound.backends import show_config, use_backend
from fastbound.bounds import bound
from fastbound.domains import Interval, box, linf_box, rule
from fastbound.spec import margin_spec

__all__ = [
    "Interval",
    "bound",
    "box",
    "linf_box",
    "losses",
    "margin_spec",
    "rule",
    "show_config",
    "use_backend",
]
