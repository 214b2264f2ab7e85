"""CONTRIBUTING's recipes, executed: in a copy of the tree, with the page's own code, up to what each promises."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import containment
import pytest
import torch
from contributing import LINT_IMPORTS, PAGE, ROOT, Tree, section
from test_cli import SMALL

import fastbound as fb
from fastbound.domains import functions, rules
from fastbound.domains.records import Elementwise
from fastbound.domains.streams import emit

OPERATOR, NATIVE, FUNCTION = "Add an operator", "Add C++ and CUDA code to an operator", "Add an element-wise function"
DOMAIN, METHOD = "Add a domain", "Add a training method"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def passes(tree: Tree, *arguments: str, **variables: str) -> str:
    """The output of ``python *arguments`` in the tree; the command must succeed."""
    run = tree.python(*arguments, **variables)
    assert run.returncode == 0, run.stdout
    return run.stdout


def fails(tree: Tree, *arguments: str) -> str:
    run = tree.python(*arguments)
    assert run.returncode == 1, run.stdout
    return run.stdout


def suite(*arguments: str) -> tuple[str, ...]:
    return "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments


def test_programs_in_the_tree_import_its_own_package(tree: Tree) -> None:
    program = "import fastbound, fastbound.kernels as k; print(fastbound.__file__, k.__file__)"
    assert passes(tree, "-c", program).split() == [
        str(tree.root / "fastbound/__init__.py"),
        str(tree.root / "fastbound/kernels/__init__.py"),
    ]


def test_every_recipe_is_followed_here() -> None:
    headings = re.findall(r"^## (Add .*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert set(headings) <= {OPERATOR, NATIVE, FUNCTION, DOMAIN, METHOD}


# ---- an operator -----------------------------------------------------------------------------------------------------

CONTRACT = suite("tests/primitives", "-k", "interval_scale")


def test_an_operator(tree: Tree) -> None:
    tree.follow(OPERATOR)
    assert "passed" in passes(tree, *CONTRACT)


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("fastbound/reference/interval_scale.py", "* scale.sign()", ""),
        ("fastbound/ops/interval_scale.py", "_bwd(*grads,", "_bwd(*grads[::-1],"),
    ],
    ids=["gradient", "autograd function"],
)
def test_a_bug_in_an_operator_is_noticed(path: str, right: str, wrong: str, tree: Tree) -> None:
    tree.follow(OPERATOR)
    tree.replace(path, right, wrong)
    assert "beyond the rounding bound" in fails(tree, *CONTRACT)


@pytest.mark.cuda_on_cpu
def test_native_code_of_an_operator(tree: Tree) -> None:
    """Built in the tree: the contract suite on a CPU, the same for the CUDA code, instruction sets, the stub."""
    for path in ("csrc", "bench"):
        shutil.copytree(ROOT / path, tree.root / path, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ("CMakeLists.txt", "setup.py"):
        shutil.copy(ROOT / path, tree.root)
    tree.follow(OPERATOR)
    tree.follow(NATIVE)
    tree.replace(
        "csrc/passes.h",
        '#include "interval_norm_relu.h"',
        '#include "interval_norm_relu.h"\n#include "interval_scale.h"',
    )
    tree.replace("csrc/passes.h", "visit(NormStatistics)", "visit(NormStatistics) visit(IntervalScaleFwd)")
    passes(tree, "setup.py", "build_ext", "--inplace", FASTBOUND_CUDA="off")
    passes(tree, "tests/write_stub.py")
    assert "def interval_scale_fwd(" in (tree.root / "fastbound/_C.pyi").read_text(encoding="utf-8")
    native = (
        "from fastbound import backends; import torch; print(backends.find('interval_scale', torch.ones(1)).__name__)"
    )
    assert passes(tree, "-c", native).split() == ["fastbound.native.interval_scale"]
    passes(tree, *CONTRACT)
    passes(tree, *suite("tests/kernels/test_native_processor.py"))
    passes(tree, *suite("tests/project/test_packaging.py", "-k", "bound or stub or weak or cpu_and_cuda"))
    emulated = suite("tests/primitives/test_cuda_on_cpu.py", "-m", "cuda_on_cpu", "-k", "interval_scale")
    assert "passed" in passes(tree, *emulated)
    tree.replace("csrc/interval_scale.h", "absolute(scale) * radius", "scale * radius")
    passes(tree, "setup.py", "build_ext", "--inplace", FASTBOUND_CUDA="off")
    assert "beyond the rounding bound" in fails(tree, *CONTRACT)


# ---- an element-wise function ----------------------------------------------------------------------------------------

ADDED_FUNCTIONS_CONTAINED = """
import sys, containment

added = {name: function for name, function in containment.entries().items() if name not in sys.argv}
for function in added.values():
    containment.check(function)
print(*added)
"""


@pytest.mark.skipif(section(FUNCTION) is None, reason=f"CONTRIBUTING.md has no section {FUNCTION!r} yet")
def test_an_elementwise_function(tree: Tree) -> None:
    tree.follow(FUNCTION, first="fastbound/domains/functions.py")
    added = passes(tree, "-c", ADDED_FUNCTIONS_CONTAINED, *containment.entries()).split()
    assert added, "the recipe adds no function"
    names = ", ".join(f"`{name.rpartition('.')[2]}`" for name in added)
    row = "| `linear`, `matmul` by a constant from either side |"
    tree.replace("docs/operators.md", row, f"| {names} | exact | yes |\n{row}")
    passes(tree, *suite("tests/project/test_docs.py", "-k", "list_of_operators"))
    # A hundred thousand intervals, brute force, gradients, models by every method.
    passes(tree, *suite("tests/domains/test_functions.py", "-k", "asinh or has_a_case"))
    tree.replace("fastbound/domains/functions.py", "(1 + x * x).rsqrt()", "(1 + x * x).sqrt()")
    fails(tree, *suite("tests/domains/test_functions.py", "-k", "asinh"))


@pytest.mark.parametrize("domain", containment.CHECKS)
def test_containment_holds_today(domain: str) -> None:
    containment.check(torch.tanh, domain)


def point(input: fb.Interval) -> fb.Interval:
    return fb.Interval.from_bounds(input.center.tanh(), input.center.tanh())


def relu_of_tanh(input: fb.Interval) -> fb.Interval:
    """The right interval, remembered as another function."""
    lower, upper = input.lower.tanh(), input.upper.tanh()
    return emit(
        Elementwise(functions.relu(), "torch.relu"), (input,), ((lower + upper) / 2).unsqueeze(0), (upper - lower) / 2
    )


def sigmoid_for_tanh(input: fb.Zonotope) -> fb.Zonotope:
    return rules.find_rule(fb.Zonotope, torch.sigmoid)(input)


def halved(input: fb.Lipschitz) -> fb.Lipschitz:
    return input.mapped_to(input.nominal.tanh(), 0.5)


@pytest.mark.parametrize(
    ("domain", "value", "wrong"),
    [
        ("interval", fb.Interval, point),
        ("crown", fb.Interval, relu_of_tanh),
        ("zonotope", fb.Zonotope, sigmoid_for_tanh),
        ("lipschitz", fb.Lipschitz, halved),
    ],
)
def test_containment_notices_a_wrong_rule(
    domain: str, value: type, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rules._table[value], torch.tanh, wrong)
    with pytest.raises(AssertionError, match=r"outside the bounds|moved beyond"):
        containment.check(torch.tanh, domain)


# ---- a domain --------------------------------------------------------------------------------------------------------

TUBE = "fastbound/domains/tube/__init__.py"
MODEL_IN_TUBE = """
import containment, torch, fastbound as fb
from torch import nn

torch.manual_seed(0)
layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
for model in nn.ReLU(), nn.Sequential(*layers, nn.ReLU(), nn.Linear(5, 3)).double().eval():
    containment.assert_within(fb.bound(model, fb.tube(x, 0.1)), model, x, 0.1)
margins = fb.bound(model, fb.tube(x, 0.1), spec=fb.margin_spec(torch.tensor([0, 2, 1]), 3))
assert margins.lower.shape == (3, 2)
try:
    torch.sigmoid(fb.tube(x, 0.1))
except fb.MissingRuleError as error:
    print(error)
"""


@pytest.fixture
def tree_with_a_domain(tree: Tree) -> Tree:
    tree.follow(DOMAIN)
    next_line = '        "fastbound.errors": ('
    tree.replace(
        "fastbound/__init__.py", next_line, f'        "fastbound.domains.tube": ("Tube", "tube"),\n{next_line}'
    )
    return tree


def test_a_domain(tree_with_a_domain: Tree) -> None:
    tree = tree_with_a_domain
    assert "torch.sigmoid has no rule for Tube" in passes(tree, "-c", MODEL_IN_TUBE)
    tree.replace(TUBE, "input.radius)", "input.radius / 2)")
    assert "outside the bounds" in fails(tree, "-c", MODEL_IN_TUBE)


def test_a_domain_has_a_floor(tree_with_a_domain: Tree) -> None:
    tree = tree_with_a_domain
    pytest.importorskip("importlinter", reason="import-linter is not installed (pip install '.[dev]')")
    assert "fastbound.domains.tube" in fails(tree, *LINT_IMPORTS)
    tree.replace("pyproject.toml", "| zonotope", "| tube | zonotope")
    passes(tree, *LINT_IMPORTS)


# ---- a training method -----------------------------------------------------------------------------------------------

CHOICES, METHODS_PAGE = "fastbound/choices.py", "docs/methods/README.md"
ROW = "| `gloro` |"  # before which the new one goes
TRAINED_AND_CERTIFIED = """
import sys
from fastbound import cli

for command in (["train", *sys.argv[1:], "--out", "run"], ["certify", "run", "--limit", "20"]):
    try:
        cli.main(command)
    except SystemExit as ended:
        assert ended.code == 0
"""


@pytest.fixture
def tree_with_a_method(tree: Tree) -> Tree:
    tree.follow(METHOD)
    last = '        "relaxation": "fastbound.train.recipes.relaxation:RelaxationRecipe",\n'
    tree.replace(CHOICES, last, f'{last}        "focused": "fastbound.train.recipes.focused:FocusedRecipe",\n')
    return tree


def test_a_training_method(tree_with_a_method: Tree) -> None:
    tree, options = tree_with_a_method, (*SMALL, "--epochs", "1", "--eps", "0.02")
    printed = passes(tree, "-c", TRAINED_AND_CERTIFIED, *options, "--method", "focused", "--set", "power=1.5")
    assert "verified error" in printed
    saved = json.loads((tree.root / "run/config.json").read_text(encoding="utf-8"))["settings"]["recipe"]
    assert (saved["method"], saved["power"]) == ("focused", 1.5)


def test_a_training_method_has_a_page(tree_with_a_method: Tree) -> None:
    tree, documented = tree_with_a_method, suite("tests/project/test_docs.py", "-k", "focused")
    assert "has no row for focused" in fails(tree, *documented)
    tree.replace(METHODS_PAGE, ROW, f"| `focused` | as `ibp` | 3 | [Focused](focused.md) |\n{ROW}")
    tree.write("docs/methods/focused.md", "# Focused\n\n`--method focused`\n")
    passes(tree, *documented)
