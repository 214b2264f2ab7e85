"""The documentation agrees with the code: every rule is listed, every Python block of README and guide runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

import fastbound as fb
from fastbound.domains import rules
from fastbound.train.configs import CONFIGS
from fastbound.train.recipes import METHODS

SETTING = {
    "torch": torch,
    "F": F,
    "fb": fb,
}


def blocks(page: str) -> list[str]:
    """The indented blocks of Python in a page; shell commands start with a program's name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)]
    return [b for b in found if not re.match(r"\s*(make|pip|fastbound|git|torchrun|pytest)\b", b)]


def needs_interpreter(block: str) -> bool:
    return '"triton"' in block


def test_triton_comparison_of_the_page_runs(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed: the comparison of docs/backends.md did NOT run")
    (block,) = [block for block in blocks("docs/backends.md") if needs_interpreter(block)]
    (tmp_path / "compare.py").write_text(block, encoding="utf-8")
    command, environment = [sys.executable, "compare.py"], {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    pairs = re.findall(r"difference (\S+) for values up to (\S+)", run.stdout)
    assert len(pairs) == 3
    for difference, largest in pairs:
        assert float(difference) <= 1e-5 * float(largest), run.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/methods/README.md", "docs/backends.md"])
def test_python_of_the_page_runs(page: str) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10))
    x, labels = torch.rand(6, 1, 2, 2), torch.randint(10, (6,))
    names = dict(SETTING, model=model, loader=[(x, labels)], eps=0.1, kappa=0.5, box=fb.linf_box(x, 0.1))
    names.update(out=model(names["box"]), spec=fb.margin_spec(labels, 10))
    names["optimizer"] = torch.optim.SGD(model.parameters(), 0.1)
    found = [block for block in blocks(page) if not needs_interpreter(block)]
    assert found
    before = dict(rules._table[fb.Interval])
    try:
        for block in found:
            exec(compile(block, page, "exec"), names)
    finally:
        rules._table[fb.Interval] = before


def test_every_rule_is_in_the_list_of_operators() -> None:
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    for function in {function for kind in fb.Interval.__mro__ for function in rules._table.get(kind, ())}:
        name = rules.function_name(function).rsplit(".", 1)[-1]
        assert f"`{name}`" in page, f"docs/operators.md does not list {name}"


METHOD_PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_page(method: str) -> None:
    index = (ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\|.*`{method}`.*\|$", index, re.MULTILINE)
    assert row, f"docs/methods/README.md has no row for {method}"
    assert re.search(r"\]\([a-z-]+\.md\) \|$", row[0]), f"the row of {method} links to no page"
    assert any(f"`--method {method}`" in page.read_text(encoding="utf-8") for page in METHOD_PAGES)


@pytest.mark.parametrize("page", METHOD_PAGES, ids=lambda page: page.stem)
def test_commands_of_the_pages_name_what_there_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for method in re.findall(r"fastbound train .*--method ([a-z-]+)$", text, re.MULTILINE):
        assert method in METHODS
    for config in re.findall(r"--config (\S+)|`((?:mnist|cifar10)-[a-z-]+-[\d.-]+)`", text):
        assert "".join(config) in CONFIGS


def test_links_lead_to_files() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        prose = re.sub(r"^    .*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)  # without blocks of code
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_architecture_page_names_what_there_is() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"(?:`|<i>|, )((?:[a-z_]+/)+(?:[a-z_]+\.py)?)", page) + re.findall(r"`([a-z_]+\.py)`", page)
    assert len(named) > 20
    for path in named:
        assert any((ROOT / folder / path).exists() for folder in ("fastbound", "fastbound/domains", ".")), path
    glossary = re.findall(r"^\| ([\w, ]+) \|", page.partition("## Glossary")[2], re.MULTILINE)
    assert glossary[1:] == sorted(glossary[1:])
    wanted = {
        "stream",
        "stack",
        "record",
        "tape",
        "pending",
        "primitive",
        "stem",
        "rows",
        "lines",
        "nominal",
        "elision",
    }
    assert wanted <= set(glossary)
