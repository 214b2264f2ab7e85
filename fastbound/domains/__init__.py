"""Abstract values that flow through unmodified models, and the rules by which they do."""

from fastbound.domains import interval_rules, linear_rules, singleprop_rules, zonotope_rules
from fastbound.domains.box import box, linf_box
from fastbound.domains.interval import Interval
from fastbound.domains.lipschitz import Lipschitz, LipschitzState, lipschitz
from fastbound.domains.rules import rule
from fastbound.domains.singleprop import SingleProp, singleprop
from fastbound.domains.zonotope import Zonotope, zonotope

__all__ = [
    "Interval",
    "Lipschitz",
    "LipschitzState",
    "SingleProp",
    "Zonotope",
    "box",
    "interval_rules",
    "linear_rules",
    "linf_box",
    "lipschitz",
    "rule",
    "singleprop",
    "singleprop_rules",
    "zonotope",
    "zonotope_rules",
]
