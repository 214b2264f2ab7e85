"""Intervals: lower and upper bounds of every element; importing a module registers its rules."""

from fastbound.domains.interval import elementwise, log_softmax, max_pooling, minmax, products
from fastbound.domains.interval.box import box, linf_box
from fastbound.domains.interval.value import Interval

__all__ = ["Interval", "box", "elementwise", "linf_box", "log_softmax", "max_pooling", "minmax", "products"]
