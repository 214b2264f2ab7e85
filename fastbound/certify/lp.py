"""Certification by linear programming over the triangle relaxation, the tightest one of single neurons; slow.

Every ReLU that may be on either side of 0 becomes a variable between three lines (Ehlers, 2017, arXiv 1705.01320;
Salman et al., 2019, arXiv 1902.08722, who call it the convex relaxation barrier). The bounds before it are those of
full CROWN. Everything else is a sparse linear function of the variables.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor, nn

from fastbound.bounds import bound
from fastbound.crown.options import Options
from fastbound.crown.tighten import tightened_bounds
from fastbound.crown.walk import Path, PreActivationBounds
from fastbound.domains.interval import Interval
from fastbound.domains.interval.box import linf_box
from fastbound.domains.records import Elementwise, LinearRecord, Source
from fastbound.domains.tape import Node, topological
from fastbound.domains.zonotope.error_terms import apply_linear_part
from fastbound.errors import MissingRuleError
from fastbound.shapes import leaky_slope
from fastbound.spec import margin_spec

# Beyond this HiGHS takes minutes for one margin.
MAX_VARIABLES, MAX_COEFFICIENTS = 20_000, 10_000_000
_CHUNK = 256


def triangle_margins(
    model: nn.Module,
    x: Tensor,  # [B, ...]
    labels: Tensor,  # [B]
    eps: float,
    lower: float | None = 0.0,
    upper: float | None = 1.0,
) -> Tensor:
    """Lower bounds [B, K - 1] of the margins, in float64 on CPU, one sample after the other.

    Margins that full CROWN finds to be positive keep its bound, which the program could only raise.

    Raises:
        ValueError: a program of more than 20,000 variables or 10 million coefficients, or one that HiGHS cannot solve.
        MissingRuleError: a non-linear function other than a (leaky) ReLU of a slope in [0, 1].

    Soundness: float64, rounded to nearest; read off the dual solution, which is valid whatever the tolerances of the
    solver (Neumaier & Shcherbina, 2004, Mathematical Programming 99).
    """
    twin = copy.deepcopy(model).double().cpu()
    rows = []
    for sample, label in zip(x.double().cpu().split(1), labels.cpu().split(1)):
        out = twin(linf_box(sample, eps, lower, upper, nominal=False))
        spec = margin_spec(label, out.shape[1]).double()
        found = bound(out, method="crown", spec=spec).lower
        open_rows = (found[0] <= 0).nonzero().flatten()
        if len(open_rows):
            found[0, open_rows] = triangle_bounds(out, spec[:, open_rows])[0]
        rows.append(found)
    return torch.cat(rows).to(x)


@torch.no_grad()
def triangle_bounds(out: Interval, spec: Tensor) -> Tensor:  # [1, S, K] -> [1, S]
    """Lower bounds of ``spec @ out`` for a batch of one sample, with its tape in float64; as `triangle_margins`."""
    path = Path(out.node, Options())
    program = _Program()
    forms = _forms(out.node, tightened_bounds(path), program)
    target = forms[id(out.node)]
    matrix = sparse.csr_matrix(spec[0].numpy())
    objective = _Form(matrix @ target.matrix, matrix @ target.constant)
    lower = [program.minimum(objective.matrix[row], objective.constant[row]) for row in range(spec.shape[1])]
    return torch.tensor([lower], dtype=torch.float64)


class _Form(NamedTuple):
    """The elements of a value as linear functions of the variables."""

    matrix: sparse.csr_matrix  # [elements, variables so far]
    constant: np.ndarray  # [elements]


@dataclass
class _Program:
    """A linear program: variables v between ``low`` and ``high``, and rows ``left . v <= right``."""

    low: list[np.ndarray] = field(default_factory=list)
    high: list[np.ndarray] = field(default_factory=list)
    left: list[sparse.csr_matrix] = field(default_factory=list)
    right: list[np.ndarray] = field(default_factory=list)

    @property
    def variables(self) -> int:
        return sum(map(len, self.low))

    def add_variables(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low.append(low)
        self.high.append(high)
        self._check()

    def add_rows(self, left: sparse.csr_matrix, right: np.ndarray) -> None:
        self.left.append(left)
        self.right.append(right)
        self._check()

    def _check(self) -> None:
        coefficients = sum(matrix.nnz for matrix in self.left)
        if self.variables > MAX_VARIABLES or coefficients > MAX_COEFFICIENTS:
            raise ValueError(
                f"method: the linear program of this network has over {self.variables} variables and {coefficients} "
                f"coefficients, at most {MAX_VARIABLES} and {MAX_COEFFICIENTS} are tried; use method='crown'."
            )

    def minimum(self, objective: sparse.csr_matrix, constant: float) -> float:
        """A lower bound of ``objective . v + constant`` from the dual solution."""
        low, high = np.concatenate(self.low), np.concatenate(self.high)
        cost = _widened(objective, len(low)).toarray()[0]
        prices, reduced = np.zeros(0), cost
        if self.left:
            left = sparse.vstack([_widened(matrix, len(low)) for matrix in self.left], format="csr")
            right = np.concatenate(self.right)
            solved = linprog(cost, left, right, bounds=np.stack((low, high), 1), method="highs")
            if solved.status != 0:
                raise ValueError(f"method: HiGHS could not solve the program ({solved.message}); use method='crown'.")
            prices = np.minimum(solved.ineqlin.marginals, 0)
            reduced = cost - left.T @ prices
            constant = constant + prices @ right
        return float(constant + np.minimum(reduced * low, reduced * high).sum())


def _forms(target: Node, bounds: PreActivationBounds, program: _Program) -> dict[int, _Form]:
    """The linear forms of all nodes from the box to ``target``."""
    forms: dict[int, _Form] = {}
    for node in reversed(topological(target)):
        record = node.record
        if isinstance(record, Source):
            lower, upper = _ends(node.center, node.radius)
            start = program.variables
            program.add_variables(lower, upper)
            matrix = sparse.eye(len(lower), format="csr")
            forms[id(node)] = _Form(sparse.hstack((sparse.csr_matrix((len(lower), start)), matrix), "csr"), 0 * lower)
        elif isinstance(record, Elementwise) and (slope := leaky_slope(record.function.shape)) is not None:
            before = node.inputs[0]
            forms[id(node)] = _triangles(forms[id(before)], *_ends(*bounds.of(before)), slope, program)
        elif isinstance(record, LinearRecord):
            forms[id(node)] = _linear(node, [forms[id(parent)] for parent in node.inputs])
        else:
            name = getattr(record, "name", type(record).__name__) + getattr(record, "where", "")
            raise MissingRuleError(f"{name} has no triangle relaxation; use method='crown' or 'ibp'.")
    return forms


def _triangles(z: _Form, low: np.ndarray, high: np.ndarray, slope: float, program: _Program) -> _Form:
    """``f(z)``: z above 0, ``slope z`` below, and a variable in the triangle of each neuron that may be either."""
    unstable = np.flatnonzero((low < 0) & (high > 0))
    factor = np.where(low >= 0, 1.0, slope)
    factor[unstable] = 0
    start, count = program.variables, len(unstable)
    matrix = sparse.diags(factor) @ _widened(z.matrix, start)
    pick = sparse.csr_matrix((np.ones(count), (unstable, np.arange(count))), (len(low), count))
    low, high, inner = low[unstable], high[unstable], _widened(z.matrix, start)[unstable]
    program.add_variables(slope * low, high)
    chord = (high - slope * low) / (high - low)
    minus, ones, constant = sparse.eye(count, format="csr"), np.ones(count), z.constant[unstable]
    for sign, line, offset in ((1, ones, 0), (1, slope * ones, 0), (-1, chord, high - chord * high)):
        # sign (line z + offset - f) <= 0; a lower line of slope 0 is the variable's own lower end.
        if line.any():
            left = sparse.hstack((sign * (sparse.diags(line) @ inner), -sign * minus), "csr")
            program.add_rows(left, -sign * (line * constant + offset))
    return _Form(sparse.hstack((matrix, pick), "csr"), factor * z.constant)


def _linear(node: Node, parents: list[_Form]) -> _Form:
    """The linear form of a node with a linear record."""
    width = max(form.matrix.shape[1] for form in parents)
    matrix, constant = sparse.csr_matrix((node.shape.numel(), width)), node.center.flatten().numpy().copy()
    for place, (parent, form) in enumerate(zip(node.inputs, parents)):
        weight = _matrix(node, place)
        constant += weight @ (form.constant - parent.center.flatten().numpy())
        matrix = matrix + weight @ _widened(form.matrix, width)
    return _Form(matrix.tocsr(), constant)


def _matrix(node: Node, place: int) -> sparse.csr_matrix:
    """The matrix by which a node depends on its input number ``place``, built some columns at a time."""
    count = node.inputs[place].shape.numel()
    columns = []
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        blocks = [parent.radius.new_zeros(size, *parent.shape) for parent in node.inputs]
        blocks[place].view(size, -1)[:, start : start + size].fill_diagonal_(1)
        columns.append(sparse.csr_matrix(apply_linear_part(node.record, node, blocks).reshape(size, -1).numpy()).T)
    return sparse.hstack(columns, "csr")


def _ends(center: Tensor, radius: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return (center - radius).flatten().numpy(), (center + radius).flatten().numpy()


def _widened(matrix: sparse.csr_matrix, variables: int) -> sparse.csr_matrix:
    """The matrix with zero columns for the variables that were added later."""
    missing = variables - matrix.shape[1]
    return sparse.hstack((matrix, sparse.csr_matrix((matrix.shape[0], missing))), "csr") if missing else matrix
