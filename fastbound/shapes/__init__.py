"""Shapes of functions of one real number: where they rise and bend, their ranges, and the lines around them."""

from fastbound.shapes.curved import Curved, Jump
from fastbound.shapes.function import Cover, Definition, Function, Line, Point, Shape
from fastbound.shapes.periodic import Branches, Wave, one_branch
from fastbound.shapes.polygon import Corner, Hinge, Polygon, Ramp, kink, leaky_slope
from fastbound.shapes.staircase import Staircase

__all__ = [
    "Branches",
    "Corner",
    "Cover",
    "Curved",
    "Definition",
    "Function",
    "Hinge",
    "Jump",
    "Line",
    "Point",
    "Polygon",
    "Ramp",
    "Shape",
    "Staircase",
    "Wave",
    "kink",
    "leaky_slope",
    "one_branch",
]
