"""The import contracts of pyproject.toml are kept, and notice what they forbid; kernels/ is where it is installed."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest
from contributing import LINT_IMPORTS, ROOT, Tree, section

pytest.importorskip("importlinter", reason="import-linter is not installed (pip install '.[dev]')")

SETTINGS = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CONTRACTS = dict(re.findall(r'^id = "(.+)"\nname = "(.+)"$', SETTINGS, re.M))

# Inside functions, where an import is as forbidden as at the top.
PLANTED = [
    ("floors", "fastbound/ops/layout.py", "from fastbound.domains.tape import Node"),
    ("floors", "fastbound/certify/report.py", "from fastbound import losses"),
    ("floors", "fastbound/kernels/_maps.py", "import fastbound.backends"),
    ("floors", "fastbound/lost.py", "import fastbound.errors"),
    ("domains", "fastbound/domains/tape.py", "from fastbound.domains.interval import Interval"),
    ("domains", "fastbound/domains/zonotope/value.py", "from fastbound.domains import lipschitz"),
    ("domains", "fastbound/domains/linear/shapes.py", "import fastbound.domains.interval.value"),
    ("circles", "fastbound/domains/location.py", "from fastbound.domains.streams import Streams"),
    ("circles", "fastbound/kernels/_precision.py", "from fastbound.kernels import _configurations"),
    ("code", "fastbound/train/loop.py", "from fastbound.reference import crown_relu"),
    ("facade", "fastbound/train/loop.py", "from fastbound import bound"),
]


def broken(tree: Tree) -> list[str]:
    """The contracts that the tree breaks."""
    run = tree.python(*LINT_IMPORTS)
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)\b", run.stdout, re.M))
    assert set(verdicts) == set(CONTRACTS.values()), run.stdout
    found = [contract for contract, name in CONTRACTS.items() if verdicts[name] == "BROKEN"]
    assert run.returncode == (1 if found else 0), run.stdout
    return found


def test_the_contracts_are_kept(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    assert (tmp_path / "fastbound/kernels/_maps.py").exists()
    assert broken(tree) == []


@pytest.mark.parametrize(("contract", "path", "statement"), PLANTED)
def test_a_forbidden_import_is_found(contract: str, path: str, statement: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.write(path, f"\n\ndef planted():\n    {statement}\n")
    assert contract in broken(tree)


def test_every_contract_was_seen_to_fail() -> None:
    assert {contract for contract, *_ in PLANTED} == set(CONTRACTS)


def test_the_page_names_floors_in_their_order() -> None:
    (layers,) = re.findall(r"^# From the top;[^\n]*\nlayers = \[\n(.*?)^\]", SETTINGS, re.M | re.S)
    height = {floor: -row for row, line in enumerate(layers.splitlines()) for floor in re.findall(r"\w+", line)}
    (rule,) = re.findall(r"^- Each floor imports .*", section("Rules") or "", re.M)
    named = [[height[floor] for floor in re.findall(r"`(\w+)`", part)] for part in rule.split(" < ")]
    assert len(named) > 5
    assert all(max(lower) < min(upper) for lower, upper in itertools.pairwise(named)), rule


def test_no_file_is_longer_than_a_reader_keeps_in_mind() -> None:
    folders = ("fastbound", "kernels", "csrc", "tests", "bench", "examples")
    endings = {".py", ".pyi", ".cpp", ".h", ".cu", ".cuh"}
    files = [f for folder in folders for f in (ROOT / folder).rglob("*") if f.suffix in endings]
    assert len(files) > 300
    for file in files:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, f"{file.relative_to(ROOT)} wants splitting"


def rooms_and_arrows(folder: Path) -> tuple[set[str], set[tuple[str, str]]]:
    """The files and folders of a package, and which imports which."""
    package = ".".join(folder.relative_to(ROOT).parts)
    rooms: set[str] = set()
    arrows: set[tuple[str, str]] = set()
    for file in folder.rglob("*.py"):
        room = file.relative_to(folder).parts[0].removesuffix(".py")
        rooms.add(room)
        for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(statement, ast.ImportFrom) and f"{statement.module}.".startswith(f"{package}."):
                inner = str(statement.module).removeprefix(package).strip(".").partition(".")[0]
                arrows |= {(room, inner or alias.name) for alias in statement.names}
    return rooms, {(room, other) for room, other in arrows if room != other}


def test_the_domains_stay_few_rooms_with_few_doors() -> None:
    rooms, arrows = rooms_and_arrows(ROOT / "fastbound" / "domains")
    print(len(rooms), "rooms,", len(arrows), "arrows")
    assert {"__init__", "functions", "interval", "lipschitz"} <= rooms and ("interval", "functions") in arrows
    assert len(rooms) <= 15 and len(arrows) <= 60
