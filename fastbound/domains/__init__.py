"""Abstract values that flow through unmodified models, and the rules by which they do."""

from fastbound.domains.interval import Interval, box, linf_box
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
    "linf_box",
    "lipschitz",
    "rule",
    "singleprop",
    "zonotope",
]
