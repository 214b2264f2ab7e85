"""An import and a --help load little, and names that are imported on first use are there all the same."""

import ast
import copy
import importlib.metadata
import inspect
import pickle
import subprocess
import sys

import pytest
import torch

import fastbound as fb
from fastbound import choices, data, models
from fastbound.on_demand import Table

HEAVY = ("torch", "numpy", "scipy", "matplotlib", "PIL", "rich", "typer")
TABLES = {name: table for name, table in vars(choices).items() if isinstance(table, Table)}
ENTRIES = [(table, name) for table in TABLES for name in TABLES[table]]


def in_a_new_process(code):
    """The output of the code in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code, modules):
    """The modules of the given names that are loaded after the code has run."""
    report = f"import sys; print('\\nloaded', *(name for name in {modules} if name in sys.modules))"
    return in_a_new_process(f"{code}\n{report}").splitlines()[-1].split()[1:]


def test_the_import_loads_no_library():
    assert loaded_by("import fastbound", HEAVY) == []


def test_bounds_load_no_part_that_they_do_not_need():
    apart = ("matplotlib", "PIL", "rich", "typer", "scipy.optimize", "torch._dynamo")
    assert (
        loaded_by("import fastbound as fb; fb.linf_box, fb.bound", (*apart, "fastbound.train", "fastbound.certify"))
        == []
    )


@pytest.mark.parametrize("command", ["", "train", "certify", "study", "bench", "info"])
def test_help_loads_no_torch(command):
    code = f"""
from fastbound.cli import main
try:
    main({[*command.split(), "--help"]})
except SystemExit as ended:
    assert ended.code == 0
"""
    assert loaded_by(code, ("torch", "numpy", "scipy", "matplotlib")) == []


def test_every_public_name_is_there():
    namespace = {}
    exec("from fastbound import *", namespace)
    for name in fb.__all__:
        assert namespace[name] is getattr(fb, name)
    assert set(fb.__all__) <= set(dir(fb)) and "train" in dir(fb)
    assert fb.__version__ == importlib.metadata.version("fastbound")
    with pytest.raises(AttributeError, match="module 'fastbound' has no attribute 'linf_bocks'"):
        fb.linf_bocks  # noqa: B018
    assert not hasattr(fb, "__wrapped__")


def test_what_type_checkers_see_is_what_is_there():
    block = next(node for node in ast.parse(inspect.getsource(fb)).body if isinstance(node, ast.If))
    seen = {(line.module, entry.name) for line in block.body for entry in line.names}
    names = {(home, name) for name, home in fb._homes.items()}
    assert seen == names | {("fastbound", name) for name in fb._submodules}
    assert set(fb.__all__) <= {*fb._homes, *fb._submodules}
    for home, name in names:
        assert getattr(fb, name) is getattr(importlib.import_module(home), name)
    for name in fb._submodules:
        assert getattr(fb, name) is importlib.import_module(f"fastbound.{name}")


def test_a_function_keeps_its_name_from_the_package_of_that_name():
    code = """
import fastbound.certify.report, fastbound as fb
from fastbound import certify
print(callable(certify), fb.certify is certify)
"""
    assert in_a_new_process(code) == "True True\n"


def test_a_rule_of_the_user_wins():
    code = """
import fastbound as fb, torch
@fb.rule(fb.Interval, torch.nn.functional.relu)
def relu(x, inplace=False): return "the user's"
print(torch.nn.functional.relu(fb.linf_box(torch.zeros(1, 2), 0.1)))
"""
    assert in_a_new_process(code) == "the user's\n"


def test_compiled_code_may_use_a_name_first():
    code = """
import fastbound as fb, torch
@torch.compile(backend="eager", fullgraph=True)
def lower(x): return fb.bound(torch.nn.functional.relu, fb.linf_box(x, 0.25), method="ibp").lower
print(lower(torch.ones(1, 2)).tolist())
"""
    assert in_a_new_process(code) == "[[0.75, 0.75]]\n"


def test_values_are_copied_and_read_back(tmp_path):
    box = fb.linf_box(torch.ones(1, 2), 0.25)
    assert torch.equal(copy.deepcopy(box).lower, box.lower)
    path = tmp_path / "box.pickle"
    path.write_bytes(pickle.dumps(box))
    code = f"import pickle, pathlib; print(pickle.loads(pathlib.Path({str(path)!r}).read_bytes()).lower.tolist())"
    assert in_a_new_process(code) == "[[0.75, 0.75]]\n"


@pytest.mark.parametrize("table, name", ENTRIES)
def test_every_choice_is_there(table, name):
    entry = TABLES[table][name]
    assert callable(entry) and entry is TABLES[table][name]
    known_as = {"METHODS": "method", "BALLS": "norm"}.get(table)
    assert known_as is None or getattr(entry, known_as) == name


def test_tables_of_choices():
    assert list(choices.NETWORKS) == models.names() and list(choices.DATASETS) == data.names()  # shown in this order
    assert "dm-small" in choices.NETWORKS and "dm-tiny" not in choices.NETWORKS and len(choices.BALLS) == 2
    with pytest.raises(KeyError):
        choices.NETWORKS["dm-tiny"]
