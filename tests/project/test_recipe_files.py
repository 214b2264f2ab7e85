"""Recipes of a user's own: --method path/to/file.py:Class, from the command line to the certificate."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path

import pytest
from run_folders import numbers
from test_cli import SMALL, run
from test_docs import blocks

from fastbound.train import load_run, recipes
from fastbound.train.recipes import METHODS, IBPRecipe, RecipeFileError

OWN = """
from dataclasses import dataclass

from torch.nn import functional as F

from fastbound import bound, losses
from fastbound.train.recipes import CertifiedRecipe, IBPRecipe, Losses, Recipe, Step


@dataclass(frozen=True, kw_only=True)
class Sharp(CertifiedRecipe):
    power: float = 2.0
    ramp: float = 20.0
    names: tuple[str, ...] = ("a",)

    def certified_loss(self, step: Step) -> Losses:
        margins = bound(self.bounded_output(step, 0.0), method="ibp", spec=step.spec())
        return {"loss": losses.robust_cross_entropy(margins) ** self.power}


class Plain(Recipe):
    def loss(self, step: Step) -> Losses:
        return {"loss": F.cross_entropy(step.model(step.x), step.labels)}
"""


def written(folder: Path, text: str = OWN, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def test_a_recipe_of_ones_own_trains_resumes_and_is_certified(tmp_path, monkeypatch, capsys):
    path, out = written(tmp_path), tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    code, _, err = run(
        *("train", "--out", out, *SMALL, "--eps", "0.02", "--method", "mine.py:Sharp", "--ramp", "1"),
        *("--set", "power=1.5", "--set", 'names=["x", "y"]', "--set", "warmup=0"),
        capsys=capsys,
    )
    assert code == 0, err
    saved = json.loads((out / "config.json").read_text())["settings"]["recipe"]
    assert saved["method"] == f"{path}:Sharp" and len(saved["sha256"]) == 64
    assert (saved["power"], saved["ramp"], saved["names"], saved["eps_train"]) == (1.5, 1.0, ["x", "y"], 0.02)
    assert not load_run(out).training
    before = numbers(out)
    monkeypatch.chdir(tmp_path.parent)  # the run knows its file from everywhere
    assert run("train", "--out", out, "--resume", "--quiet", capsys=capsys)[0] == 0
    assert run("train", "--out", out, "--resume", "--quiet", "--method", f"{path}:Sharp", capsys=capsys)[0] == 0
    code, _, err = run("train", "--out", out, "--resume", "--method", f"{path}:Plain", capsys=capsys)
    assert code == 2 and "was started with other options (method:" in err
    assert numbers(out) == before
    path.write_text(OWN.replace("2.0", "3.0"))
    code, _, err = run("train", "--out", out, "--resume", capsys=capsys)
    assert code == 2 and "mine.py:Sharp has changed since the run began; put the earlier version back" in err
    path.unlink()
    code, _, err = run("train", "--out", out, "--resume", capsys=capsys)
    assert code == 2 and "mine.py: there is no such file" in err
    # Certification is of the network, which needs no recipe.
    assert run("certify", out, "--limit", "20", capsys=capsys)[0] == 0


def test_the_recipe_of_the_documentation_trains(tmp_path, capsys):
    path, out = written(tmp_path, "\n".join(blocks("docs/methods/README.md"))), tmp_path / "run"
    code, _, err = run(
        "train", "--out", out, *SMALL, "--method", f"{path}:Focused", "--set", "power=1.5", capsys=capsys
    )
    assert code == 0, err
    assert numbers(out)[-1]["loss"] > 0


def test_a_class_without_fields_of_its_own_needs_no_decorator(tmp_path):
    found = recipes.find_method(f"{written(tmp_path)}:Plain")
    recipe = recipes.resolve(found(), 0.1, {"epochs": 3, "lr": 0.5})
    assert recipes.from_data(json.loads(json.dumps(recipes.as_data(recipe)))) == recipe
    assert found.method == f"{tmp_path}/mine.py:Plain" and recipes.find_method(found.method) is found


def test_a_changed_file_is_another_class(tmp_path):
    first = recipes.find_method(f"{written(tmp_path)}:Sharp")
    second = recipes.find_method(f"{written(tmp_path, OWN.replace('2.0', '3.0'))}:Sharp")
    assert (first().power, second().power) == (2.0, 3.0) and first.digest != second.digest


DECORATED = "@dataclass(frozen=True, kw_only=True)\n"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("def broken(:", ":Own", r"mine\.py does not load \(SyntaxError: .*line 1"),
        ("\nimport nowhere_to_be_found", ":Own", r"does not load \(line 2, ModuleNotFoundError: No module named 'nowh"),
        ("x = 1\n1 / 0", ":Own", r"does not load \(line 2, ZeroDivisionError: division by zero\)\. It is run as plain"),
        (OWN, ":Missing", r"mine\.py has no class 'Missing'; recipes in it: Sharp, Plain"),
        (OWN, "", r"mine\.py has no class ''; recipes in it: Sharp, Plain \(wanted path/to/file\.py:Class\)"),
        ("x = 1", ":Own", "recipes in it: none"),
        ("Own = 3", ":Own", r"Own of .* is no recipe; derive it from fastbound\.train\.recipes\.Recipe"),
        ("class Own: pass", ":Own", "is no recipe; derive it from"),
        (OWN, ":IBPRecipe", "IBPRecipe of .* is only imported there; recipes in it: Sharp, Plain"),
        (OWN + "class Own(IBPRecipe):\n    lr: float = 5.0", ":Own", "Own of .* declares lr; put @dataclass"),
        (OWN + "class Own(IBPRecipe):\n    lr = 5.0", ":Own", "gives lr a value without a type.*; write lr: float = "),
        (OWN + DECORATED + "class Own(IBPRecipe):\n    lr = 5.0", ":Own", "gives lr a value without a type"),
        (OWN + "class Own(Sharp):\n    lr = 5.0", ":Own", "gives lr a value without a type"),
        (OWN + "class Own(Recipe):\n    pass", ":Own", "Own of .* cannot be made with its defaults.*abstract.*loss"),
        (OWN + "class Own(CertifiedRecipe):\n    pass", ":Own", "cannot be made with its defaults.*certified_loss"),
        (OWN + DECORATED + "class Own(IBPRecipe):\n    lr: float = -1.0", ":Own", "lr: wanted a number greater than 0"),
        (OWN + DECORATED + "class Own(IBPRecipe):\n    new: float", ":Own", "cannot be made with its defaults.*new"),
        (OWN + DECORATED + "class Own(IBPRecipe):\n    new: bytes = b''", ":Own",
         "new is declared as bytes, wanted int, fl"),
        (OWN + DECORATED + "class Own(IBPRecipe):\n    new: 'Gone' = 1", ":Own",
         "cannot be made .*name 'Gone' is not def"),
        (OWN + "@dataclass\nclass Own(IBPRecipe):\n    new: int = 1", ":Own",
         r"does not load \(line .*TypeError: .*frozen"),
    ],
)  # fmt: skip
def test_recipe_files_that_cannot_be_used(tmp_path, text: str, name: str, message: str):
    path = written(tmp_path, text)
    with pytest.raises(RecipeFileError, match=message) as raised:
        recipes.find_method(f"{path}{name}")
    assert str(raised.value).startswith("method: ")
    assert not list(tmp_path.glob("__pycache__"))


def test_a_bad_recipe_file_is_one_line_and_writes_nothing(tmp_path, capsys):
    for method, message in (
        (f"{tmp_path}/nowhere.py:Own", "nowhere.py: there is no such file (wanted path/to/file.py:Class)"),
        (f"{written(tmp_path, '1 / 0')}:Own", "does not load"),
        ("magic", "or path/to/file.py:Class"),
    ):
        code, _, err = run("train", "--out", tmp_path / "run", "--method", method, capsys=capsys)
        assert code == 2 and message in err and len(err.strip().splitlines()) == 1 and "Traceback" not in err
        assert not (tmp_path / "run").exists()


WORDS = {
    "init": "orthogonal",
    "eps_schedule": "linear",
    "certify_with": "crown-ibp",
    "crop_mode": "zero",
    "variant": "fast-lin",
}


def another(name: str, value: object) -> object:
    """Another value of the same kind that suits the field."""
    if value == "lipschitz":
        return value  # no other method certifies in its norm
    if value is None or isinstance(value, str):
        return {**WORDS, "clip_norm": 5.0, "flip": True, "crop": 1}.get(name, value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value / 2 or 0.5 if isinstance(value, float) else [1.0]


@pytest.mark.parametrize("method", METHODS)
def test_every_default_can_be_set(method: str, tmp_path, capsys):
    """--set takes every field of every recipe."""
    recipe = recipes.resolve(METHODS[method](), 0.1, {"epochs": 1})
    fields = {name: another(name, value) for name, value in dataclasses.asdict(recipe).items()}
    if method in ("pgd", "singleprop", "singleprop-adaptive"):  # have no bounds to regularise
        fields["regularisation"] = 0.0
    if "singleprop" in method:
        fields |= {"clip_box": False, "validation": 8}
    pairs = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items()]
    options = [option for pair in pairs for option in ("--set", pair)]
    code, _, err = run("train", "--out", tmp_path / "run", "--method", method, *SMALL, *options, capsys=capsys)
    assert code == 0, err
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["recipe"]
    assert saved == {"method": method, **fields}


def test_fastbounds_own_classes_stay_what_they_are(tmp_path):
    with pytest.raises(RecipeFileError):
        recipes.find_method(f"{written(tmp_path)}:IBPRecipe")
    assert IBPRecipe.method == "ibp" and IBPRecipe.digest is None
