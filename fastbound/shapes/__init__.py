"""Shapes of functions of one real number: where they rise and bend, their ranges, and the lines around them."""

from fastbound.shapes.curved import Curved
from fastbound.shapes.function import Cover, Definition, Function, Line, Point, Shape
from fastbound.shapes.periodic import Branches, Wave, one_branch
from fastbound.shapes.polygon import Corner, Hinge, Polygon, Ramp, kink, leaky_slope
from fastbound.shapes.staircase import Staircase
from fastbound.shapes.stepped import Stepped

__all__ = [
    "Branches",
    "Corner",
    "Cover",
    "Curved",
    "Definition",
    "Function",
    "Hinge",
    "Line",
    "Point",
    "Polygon",
    "Ramp",
    "Shape",
    "Staircase",
    "Stepped",
    "Wave",
    "kink",
    "leaky_slope",
    "one_branch",
]
